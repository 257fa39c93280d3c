"""What every source of initial word vectors gives, and the inverse document frequency."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numba
import numpy as np
import torch
from torch import Tensor

from two_tower.data.stream.corpus import Corpus
from two_tower.errors import UserError, one_of
from two_tower.ragged import Ragged
from two_tower.tokenizer.base import Tokenizer

__all__ = ["Embedding", "inverse_document_frequency"]

WEIGHTS = ("idf", "uniform")


def inverse_document_frequency(documents: Ragged, vocabulary_size: int) -> Tensor:
    """``log(1 + N / (1 + df))`` of every word, (V,) float32 > 0, over N documents of which df hold the word."""
    frequency = _document_frequency(documents.ids.numpy(), documents.offsets.numpy(), vocabulary_size)
    return torch.from_numpy(np.log1p(len(documents) / (1 + frequency))).float()


@numba.njit(nogil=True, cache=True)
def _document_frequency(ids: np.ndarray, offsets: np.ndarray, vocabulary_size: int) -> np.ndarray:
    """In how many texts each word occurs, (V,) int64; memory does not grow with the texts."""
    counts, last = np.zeros(vocabulary_size, np.int64), np.full(vocabulary_size, -1, np.int64)
    for text in range(len(offsets) - 1):
        for t in range(offsets[text], offsets[text + 1]):
            word = ids[t]
            if last[word] != text:
                last[word] = text
                counts[word] += 1
    return counts


class Embedding(ABC):
    """Initial vectors of the vocabulary's words.

    Args:
        dim: dimensions of a word vector.
        weights: initial token weights, ``idf`` or ``uniform``. They matter as much as the vectors:
            untrained random vectors with idf weights start above GloVe without.
        freeze: keep the vectors as they are (token weights are the tower's own matter): always, never, or
            until the epoch with this number, counted from 1, which is the first to train them.

    Attributes:
        dim: as given.
        frozen: whether training starts with frozen vectors.
        informed: how many dimensions, the first ones, come from elsewhere; 0 for none.
        coverage: share of the corpus' tokens whose word has a vector from elsewhere, known when the vectors are made;
            None for vectors that come from nowhere.

    Raises:
        UserError: unknown ``weights``, or an epoch below 1.
    """

    def __init__(self, dim: int, weights: str = "idf", freeze: bool | int = False) -> None:
        if dim < 1:
            raise ValueError(f"dim={dim} must be at least 1")
        if weights not in WEIGHTS:
            raise UserError(f"embedding.weights={weights} does not exist; {one_of(weights, WEIGHTS)}.")
        if freeze is not False and freeze < 1:
            raise UserError(
                f"embedding.freeze={freeze} must be true, false, or the first epoch that trains the word vectors, "
                "counted from 1."
            )
        self.dim = dim
        self.weights = weights
        self.informed = 0
        self.coverage: float | None = None
        self.frozen = freeze is True or freeze > 1

    @abstractmethod
    def vectors(self, tokenizer: Tokenizer, corpus: Corpus) -> Tensor:
        """(V, D) float32, row i for word i of the vocabulary; draws from torch's global generator where it draws."""

    def token_weights(self, documents: Ragged, vocabulary_size: int) -> Tensor | None:
        """(V,) float32 > 0, or None for uniform weights."""
        return inverse_document_frequency(documents, vocabulary_size) if self.weights == "idf" else None
