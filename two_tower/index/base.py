"""The one interface of all vector indexes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np

from two_tower.similarity import Similarity
from two_tower.store import VectorStore

__all__ = ["VectorIndex"]


class VectorIndex(ABC):
    """Built once from a store of vectors, saved beside them, searched by row."""

    @abstractmethod
    def build(self, store: VectorStore, similarity: Similarity) -> None:
        """Index all vectors of a complete store."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the index into a folder, atomically."""

    @abstractmethod
    def load(self, folder: Path, similarity: Similarity) -> None:
        """Read what `save` wrote.

        Raises:
            UserError: it is missing or damaged.
        """

    @abstractmethod
    def search(self, q_BD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The nearest documents.

        Args:
            q_BD: (B, D) float32, prepared for the similarity.
            k: how many; at most the number of documents are returned.

        Returns:
            scores (B, k) float32, larger is nearer, best first; rows (B, k) int64.
        """
