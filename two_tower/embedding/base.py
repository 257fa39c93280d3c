"""What every source of initial word vectors gives, and the inverse document frequency."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from two_tower.errors import UserError, one_of
from two_tower.ragged import Ragged

__all__ = ["Embedding", "inverse_document_frequency"]

WEIGHTS = ("idf", "uniform")


def inverse_document_frequency(documents: Ragged, vocabulary_size: int) -> Tensor:
    """``log(1 + N / (1 + df))`` of every word, (V,) float32 > 0, over N documents of which df hold the word."""
    text = np.repeat(np.arange(len(documents), dtype=np.int64), documents.lengths.numpy())
    pairs = np.unique(text * vocabulary_size + documents.ids.numpy())
    frequency = np.bincount(pairs % vocabulary_size, minlength=vocabulary_size)
    return torch.from_numpy(np.log1p(len(documents) / (1 + frequency))).float()


class Embedding(ABC):
    """Initial vectors of the vocabulary's words.

    Args:
        dim: dimensions of a word vector.
        weights: initial token weights, ``idf`` or ``uniform``. They matter as much as the vectors:
            untrained random vectors with idf weights start above GloVe without.
        freeze: keep the vectors as they are (token weights are the tower's own matter).

    Raises:
        UserError: unknown ``weights``.
    """

    def __init__(self, dim: int, weights: str = "idf", freeze: bool = False) -> None:
        if weights not in WEIGHTS:
            raise UserError(f"embedding.weights={weights} does not exist; {one_of(weights, WEIGHTS)}.")
        self.dim = dim
        self.weights = weights
        self.freeze = freeze

    @abstractmethod
    def vectors(self, vocabulary: list[str]) -> Tensor:
        """(V, D) float32, row i for word i; draws from torch's global generator where it draws."""

    def token_weights(self, documents: Ragged, vocabulary_size: int) -> Tensor | None:
        """(V,) float32 > 0, or None for uniform weights."""
        return inverse_document_frequency(documents, vocabulary_size) if self.weights == "idf" else None
