"""Exact search over all vectors: never wrong, and fast enough up to some hundred thousand passages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from two_tower.errors import UserError
from two_tower.files import atomic_path
from two_tower.index.base import VectorIndex
from two_tower.similarity import Similarity
from two_tower.store import VectorStore

__all__ = ["FlatIndex"]


class FlatIndex(VectorIndex):
    """FAISS's flat index: compares the query with every document."""

    file = "index.faiss"

    def __init__(self) -> None:
        self._index: Any = None
        self._similarity = Similarity()

    def build(self, store: VectorStore, similarity: Similarity) -> None:
        """Copy all vectors into the index."""
        import faiss  # late: on macOS faiss and torch both bring OpenMP, and faiss must come second

        self._similarity = similarity
        dim = store.manifest.dim
        self._index = faiss.IndexFlatL2(dim) if similarity.metric == "l2" else faiss.IndexFlatIP(dim)
        for vectors in store.vectors():
            self._index.add(np.ascontiguousarray(vectors, np.float32))

    def save(self, folder: Path) -> None:
        """Write ``index.faiss``."""
        import faiss

        with atomic_path(folder / self.file) as temporary:
            faiss.write_index(self._index, str(temporary))

    def load(self, folder: Path, similarity: Similarity) -> None:
        """Read ``index.faiss``, memory-mapped.

        Raises:
            UserError: it is missing or damaged.
        """
        import faiss

        try:
            self._index = faiss.read_index(str(folder / self.file), faiss.IO_FLAG_MMAP)
        except RuntimeError as error:
            raise UserError(f"{folder / self.file} is missing or damaged: run embed.py again.") from error
        self._similarity = similarity

    def search(self, q_BD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """See `VectorIndex.search`; exact."""
        found, rows = self._index.search(np.ascontiguousarray(q_BD, np.float32), min(k, self._index.ntotal))
        return self._similarity.from_distance(torch.from_numpy(found)).numpy(), rows
