"""Initial word vectors: what every source gives, and what is common to those that know some of the words."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numba
import numpy as np
import torch
import xxhash
from torch import Tensor

from two_tower.data.stream.corpus import Corpus
from two_tower.errors import UserError, at_least
from two_tower.ragged import Ragged
from two_tower.tokenizer.base import Tokenizer

log = logging.getLogger(__name__)

Weights: TypeAlias = Literal["idf", "uniform"]
Missing: TypeAlias = Literal["random", "mean", "zero"]

LOW_COVERAGE = 0.5  # of the corpus' tokens: below it, vectors and corpus hardly belong together
LONG = 2.0  # mean length of a vector beyond which steps of the usual size move it too little
EXAMPLES = 5


class Embedding(ABC):
    """Initial vectors, of ``dim`` dimensions, and token weights of the vocabulary's words.

    With a ``pull`` the words share a map of their vectors, see `two_tower.tower._mapped.MappedWords`.
    """

    rarest_word: int | None = None  # occurrences that a word needs for a vector that means something; None: as usual
    pretrained_dims: int = 0  # leading dimensions copied from pretrained vectors
    # Known once `vectors` has run: the share of the corpus' tokens whose word has one, and what `Further` needs.
    coverage: float | None = None
    origin: Mapping[str, Tensor] | None = None

    def __init__(
        self, dim: int, weights: Weights = "idf", freeze: bool | int = False, pull: float | None = None
    ) -> None:
        at_least(1, dim=dim)
        at_least(0, pull=pull)
        if freeze is not False and freeze < 1:
            raise ValueError(
                f"freeze={freeze} must be true, false, or the first epoch that trains the word vectors, counted from 1"
            )
        self.dim, self.weights, self.pull = dim, weights, pull
        self.frozen = freeze is True or freeze > 1  # when training starts

    def common_words(self) -> Sequence[str]:
        """Words that it knows and a query may hold even where no passage does."""
        return []

    @abstractmethod
    def vectors(self, tokenizer: Tokenizer, corpus: Corpus) -> Tensor:
        """(V, D) float32, row i for word i of the vocabulary; random numbers come from torch's global generator."""

    def token_weights(self, documents: Ragged, vocabulary_size: int) -> Tensor | None:
        """(V,) float32 > 0, or None for uniform weights."""
        return inverse_document_frequency(documents, vocabulary_size) if self.weights == "idf" else None


def inverse_document_frequency(documents: Ragged, vocabulary_size: int) -> Tensor:
    """``log(1 + N / (1 + df))`` of every word, (V,) float32 > 0, over N documents of which df hold the word."""
    return idf_of(documents.frequencies(vocabulary_size), len(documents))


def idf_of(frequencies: np.ndarray, documents: float) -> Tensor:
    """``log(1 + N / (1 + df))`` of (V,) words, each in df of N documents; float32 > 0."""
    return torch.from_numpy(np.log1p(documents / (1 + frequencies))).float()


class Further(ABC):
    """An embedding that can give words their vectors after training, by what it kept as ``origin``."""

    needs_map: bool = True  # where words share none, vectors that training has moved are of another kind than these

    @abstractmethod
    def further(self, words: Sequence[str], origin: Mapping[str, Tensor]) -> Tensor:
        """(W, D) float32, as `Embedding.vectors` would have given them to W words of the vocabulary."""


def drawn(words: Sequence[str], dim: int) -> Tensor:
    """(W, dim) float32, normally distributed; those of a word follow from its spelling, whichever the others are."""
    generator, rows = torch.Generator(), torch.empty(len(words), dim)
    for word, row in zip(words, rows, strict=True):
        row.normal_(generator=generator.manual_seed(xxhash.xxh3_64_intdigest(word.encode()) >> 1))
    return rows


@dataclass(frozen=True)
class Pretrained:
    """Pretrained vectors for words of a vocabulary."""

    vectors: np.ndarray  # (V, D) float32; zeros for words without one
    has_vector: np.ndarray  # (V,) bool
    source_words: int  # in the file, or wherever the vectors come from
    single_words: int  # those of them that are one token for the tokenizer too


class PartialEmbedding(Embedding):
    """Pretrained vectors of ``width`` dimensions for some words; ``name`` says in messages where they come from.

    ``dim`` may add dimensions, drawn as `RandomEmbedding` draws all. It cannot drop any: a tower projects instead. With
    ``normalize`` a word vector has about length 1 with the random dimensions.
    """

    def __init__(
        self, name: str, width: int, dim: int | None, missing: Missing, normalize: bool, weights: Weights,
        freeze: bool | int, pull: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(max(width, dim or 0) if dim != 0 else 0, weights, freeze, pull)
        self.name, self.missing, self.normalize = name, missing, normalize
        self.pretrained_dims = width

    @abstractmethod
    def pretrained(self, tokenizer: Tokenizer, corpus: Corpus) -> Pretrained:
        """Vectors of ``pretrained_dims`` dimensions for the words that have one."""

    def vectors(self, tokenizer: Tokenizer, corpus: Corpus) -> Tensor:
        """(V, D) float32; logs how much of the vocabulary and of the corpus has a vector."""
        pretrained = self.pretrained(tokenizer, corpus)
        self.coverage = _report(self.name, pretrained, tokenizer, corpus.tokens, self.missing)
        vectors, known = torch.from_numpy(pretrained.vectors), torch.from_numpy(pretrained.has_vector)
        length = float(vectors[known].norm(dim=1).mean())
        if self.normalize:
            centred = vectors[known] - vectors[known].mean(dim=0)
            vectors[known] = self._scaled(centred)
        elif length > LONG:
            log.info("Their mean length is %.1f: embedding.normalize=true makes it 1 and often does better.", length)
        if self.missing != "zero":
            vectors[~known] = vectors[known].mean(dim=0)
        if self.missing == "random":
            noise = torch.randn(int((~known).sum()), vectors.shape[1])
            vectors[~known] += noise * vectors[known].std(dim=0, correction=0)
        return self._widened(vectors)

    def _scaled(self, vectors: Tensor) -> Tensor:
        """Vectors of about length 1 with the random dimensions."""
        return torch.nn.functional.normalize(vectors, dim=1) * math.sqrt(self.pretrained_dims / self.dim)

    def _widened(self, vectors: Tensor, words: Sequence[str] | None = None) -> Tensor:
        """With random dimensions behind them, those of each of the ``words`` its own."""
        dims = self.dim - self.pretrained_dims
        extra = torch.randn(len(vectors), dims) if words is None else drawn(words, dims)
        return torch.cat([vectors, extra * self.dim**-0.5], dim=1)


def _report(name: str, pretrained: Pretrained, tokenizer: Tokenizer, documents: Ragged, missing: str) -> float:
    """Log how much of the vocabulary and of the corpus has a vector; returns the latter."""
    known = pretrained.has_vector
    counts = _counts(documents.ids.numpy(), len(tokenizer))
    named = np.arange(len(tokenizer)) != tokenizer.unknown_id
    words, with_vector = int(named.sum()), int((known & named).sum())
    share = float(counts[known].sum() / max(1, counts.sum()))
    if not with_vector:
        raise UserError(f"{name} has no vector for any of the {words:,} words of the vocabulary: {_cause(pretrained)}.")
    absent = np.flatnonzero(~known & named)
    absent = absent[np.argsort(-counts[absent], kind="stable")][:EXAMPLES]
    examples = ", ".join(tokenizer.vocabulary[row] for row in absent)
    log.info(
        "%s has vectors for %s of %s words (%.1f %%), which are %.1f %% of the corpus' tokens; the others start as "
        "embedding.missing=%s%s.",
        name, f"{with_vector:,}", f"{words:,}", 100 * with_vector / words, 100 * share, missing,
        f", most frequent: {examples}" if examples else "",
    )  # fmt: skip
    if share < LOW_COVERAGE:
        cause = _cause(pretrained)
        log.warning("Only %.1f %% of the corpus' tokens have a vector in %s: %s.", 100 * share, name, cause)
    return share


def _cause(pretrained: Pretrained) -> str:
    """Why few words have a vector, as far as the file's own words tell."""
    words, single, vocabulary = pretrained.source_words, pretrained.single_words, len(pretrained.has_vector)
    if 2 * single < words:
        return (
            f"only {single:,} of its {words:,} words are single words for this tokenizer; perhaps they are pieces of "
            "words, phrases or numbers"
        )
    if 2 * words < vocabulary:
        return f"it has {words:,} words for a vocabulary of {vocabulary:,}; perhaps it is a part of a file"
    return "its words are others; perhaps it is for another language or subject, or its list of words is another one's"


@numba.njit(nogil=True, cache=True)
def _counts(ids: np.ndarray, vocabulary_size: int) -> np.ndarray:
    """How often each word occurs, (V,) int64; np.bincount would first copy all ids as int64."""
    counts = np.zeros(vocabulary_size, np.int64)
    for i in ids:
        counts[i] += 1
    return counts
