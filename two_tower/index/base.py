"""The one interface of all vector indexes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np

from two_tower.errors import UserError
from two_tower.similarity import Similarity
from two_tower.store import VectorStore

__all__ = ["Progress", "VectorIndex", "at_least"]

# Called with the number of vectors added since the last call.
Progress = Callable[[int], None]


class VectorIndex(ABC):
    """Built once from a store of vectors, saved beside them, searched by row.

    Attributes:
        grid: values of the search's effort to choose from, ascending; empty where it has none.
        name: what the effort is called in the configuration, below ``index.``.
        file: the one file that holds it, in the folder of the index; empty where there is none such.
        structure: what was built, in a few words; the same configuration makes others for other sizes.
    """

    grid: tuple[int, ...] = ()
    name: ClassVar[str] = ""
    file: ClassVar[str] = ""
    structure: str = ""

    @abstractmethod
    def build(self, store: VectorStore, similarity: Similarity, folder: Path, progress: Progress | None = None) -> None:
        """Index all vectors of a complete store.

        Args:
            store: the vectors.
            similarity: what they are compared by.
            folder: where the index will be saved, for one that writes while it is built.
            progress: see `Progress`.

        Raises:
            UserError: sizes that cannot be.
        """

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
            scores (B, k) float32, larger is nearer, best first; rows (B, k) int64. An approximate index may find
            fewer: its last rows are then -1, with score -inf.
        """

    def set_effort(self, value: int) -> None:  # noqa: B027
        """Search with another effort: more is slower and finds more."""

    def size(self, folder: Path) -> int:
        """Bytes on disk."""
        return (folder / self.file).stat().st_size


def at_least(least: int, **settings: int | None) -> None:
    """Check settings by name; None passes.

    Raises:
        UserError: the first that is below ``least``.
    """
    for name, value in settings.items():
        if value is not None and value < least:
            raise UserError(f"index.{name}={value} must be at least {least}.")
