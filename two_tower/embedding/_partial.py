"""Vectors that come from elsewhere, for some of the words: how many, and what the others start from."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from dataclasses import dataclass

import numba
import numpy as np
import torch
from torch import Tensor

from two_tower.data.stream.corpus import Corpus
from two_tower.embedding.base import Embedding
from two_tower.errors import UserError, one_of
from two_tower.ragged import Ragged
from two_tower.tokenizer.base import Tokenizer

__all__ = ["Known", "PartialEmbedding"]

log = logging.getLogger(__name__)

MISSING = ("random", "mean", "zero")

# Below this share of the corpus' tokens, vectors and corpus hardly belong together.
_LOW = 0.5
# Above this length, steps of the usual size move a vector too little.
_LONG = 2
_EXAMPLES = 5


@dataclass(frozen=True)
class Known:
    """What was found for the words of a vocabulary.

    Attributes:
        vectors: (V, D) float32; zeros where nothing was found.
        found: (V,) bool.
        words: words at the place where it was looked for.
        single: those of them that are one word for the tokenizer too.
    """

    vectors: np.ndarray
    found: np.ndarray
    words: int
    single: int


class PartialEmbedding(Embedding):
    """Vectors for some words; the others get a stated start, and more dimensions random numbers.

    Args:
        name: of the place they come from, for messages.
        width: their dimensions.
        dim: dimensions of a word vector; those beyond ``width`` are drawn as `RandomEmbedding` draws all, also
            for words without a vector. Fewer than ``width`` are not possible: a tower projects instead.
        missing: what words without a vector start as: ``random``, drawn with the mean and the standard deviation
            that the found vectors have in each dimension; ``mean``, their mean; ``zero``.
        normalise: subtract their mean from the found vectors and scale each, so that a word vector has about
            length 1 with the random dimensions; otherwise their numbers stay as they are.
        weights: initial token weights, ``idf`` or ``uniform``.
        freeze: see `Embedding`.

    Raises:
        UserError: an unknown ``missing`` or ``weights``.
    """

    def __init__(
        self, name: str, width: int, dim: int | None, missing: str, normalise: bool, weights: str, freeze: bool | int
    ) -> None:
        if dim is not None and dim < 1:
            raise ValueError(f"dim={dim} must be at least 1")
        super().__init__(max(width, dim or 0), weights, freeze)
        if missing not in MISSING:
            raise UserError(f"embedding.missing={missing} does not exist; {one_of(missing, MISSING)}.")
        self.name, self.width, self.missing, self.normalise = name, width, missing, normalise
        self.informed = width

    @abstractmethod
    def known(self, tokenizer: Tokenizer, corpus: Corpus) -> Known:
        """The vectors of the words that have one, of ``width`` dimensions."""

    def vectors(self, tokenizer: Tokenizer, corpus: Corpus) -> Tensor:
        """(V, D) float32; reports how much of the vocabulary and of the corpus has a vector.

        Raises:
            UserError: no word has one, or the place they come from is damaged.
        """
        known = self.known(tokenizer, corpus)
        self.coverage = _report(self.name, known, tokenizer, corpus.tokens, self.missing)
        vectors, found = torch.from_numpy(known.vectors), torch.from_numpy(known.found)
        length = float(vectors[found].norm(dim=1).mean())
        if self.normalise:
            vectors[found] = _normalised(vectors[found]) * math.sqrt(self.width / self.dim)
        elif length > _LONG:
            log.info(
                "Their mean length is %.1f: embedding.normalise=true, which makes it 1, often does better.", length
            )
        _complete(vectors, found, self.missing)
        more = torch.randn(len(vectors), self.dim - self.width) * self.dim**-0.5
        return torch.cat([vectors, more], dim=1)


def _normalised(vectors: Tensor) -> Tensor:
    """The vectors less their mean, each of length 1."""
    return torch.nn.functional.normalize(vectors - vectors.mean(dim=0), dim=1)


def _complete(vectors: Tensor, found: Tensor, missing: str) -> None:
    """Fill the rows of ``vectors`` (V, D) that are not ``found`` (V,), in place."""
    if missing != "zero":
        vectors[~found] = vectors[found].mean(dim=0)
    if missing == "random":
        noise = torch.randn(int((~found).sum()), vectors.shape[1])
        vectors[~found] += noise * vectors[found].std(dim=0, correction=0)


def _report(name: str, known: Known, tokenizer: Tokenizer, documents: Ragged, missing: str) -> float:
    """Log how much of the vocabulary and of the corpus has a vector, warn where it is little; returns the latter."""
    counts = _counts(documents.ids.numpy(), len(tokenizer))
    named = np.arange(len(tokenizer)) != tokenizer.unknown_id
    words, found = int(named.sum()), int((known.found & named).sum())
    share = float(counts[known.found].sum() / max(1, counts.sum()))
    if not found:
        raise UserError(f"{name} has no vector for any of the {words:,} words of the vocabulary: {_cause(known)}.")
    absent = np.flatnonzero(~known.found & named)
    absent = absent[np.argsort(-counts[absent], kind="stable")][:_EXAMPLES]
    examples = ", ".join(tokenizer.vocabulary[row] for row in absent)
    log.info(
        "%s has vectors for %s of %s words (%.1f %%), which are %.1f %% of the corpus' tokens; the others start as "
        "embedding.missing=%s%s.",
        name, f"{found:,}", f"{words:,}", 100 * found / words, 100 * share, missing,
        f", most frequent: {examples}" if examples else "",
    )  # fmt: skip
    if share < _LOW:
        log.warning("Only %.1f %% of the corpus' tokens have a vector in %s: %s.", 100 * share, name, _cause(known))
    return share


def _cause(known: Known) -> str:
    """Why few words have a vector, as far as the file's own words tell."""
    if 2 * known.single < known.words:
        return (
            f"only {known.single:,} of its {known.words:,} words are single words for this tokenizer; perhaps they are "
            "pieces of words, phrases or numbers"
        )
    if 2 * known.words < len(known.found):
        return f"it has {known.words:,} words for a vocabulary of {len(known.found):,}; perhaps it is a part of a file"
    return "its words are others; perhaps it is for another language or subject, or its list of words is another one's"


@numba.njit(nogil=True, cache=True)
def _counts(ids: np.ndarray, vocabulary_size: int) -> np.ndarray:
    """How often each word occurs, (V,) int64; np.bincount would first copy all ids as int64."""
    counts = np.zeros(vocabulary_size, np.int64)
    for i in ids:
        counts[i] += 1
    return counts
