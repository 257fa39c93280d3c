"""The interface of all vector indexes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from two_tower.console import Advance
from two_tower.index._copies import Copies
from two_tower.similarity import Similarity
from two_tower.store import VectorStore

# Keys of the group `index` that say how a build is measured (conf/index/_measure.yaml); an index has the others.
MEASURE_KEYS: dict[str, Any] = {"target_recall": float | None, "sample": int}
SECRETS = frozenset({"token"})  # keys of an index that are written nowhere


class VectorIndex(ABC):
    """Built once from a store of vectors, saved beside them, searched by row."""

    file: ClassVar[str] = ""  # the one file that holds it, in the folder of the index; empty if there is none
    carried: ClassVar[tuple[str, ...]] = ()  # files and folders of an index that its successor is built from
    exact: bool = False  # whether it compares with every vector
    search_param: str = ""  # the key that trades speed for recall; empty for exact search
    search_values: tuple[int, ...] = ()  # to choose from, ascending
    copies: Copies | None = None  # where passages have equal vectors, of which the index holds one
    structure: str = ""  # what was built, in a few words; it depends on the number of vectors

    @abstractmethod
    def build(self, store: VectorStore, progress: Advance | None = None) -> None:
        """Index all vectors of a complete store, each of which comes once; some write into its folder meanwhile."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the index, atomically."""

    @abstractmethod
    def load(self, folder: Path, similarity: Similarity) -> None:
        """Read what `save` wrote; a UserError if it is missing or damaged."""

    @abstractmethod
    def _search(self, q_BD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As `search`, with rows of the store that `build` was given."""

    def search(self, q_BD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores (B, k) float32, larger is nearer, best first, and rows (B, k) int64 of the nearest documents.

        ``q_BD`` is float32, prepared for the similarity. There are fewer columns if there are fewer documents; where an
        approximate index finds fewer, the last rows are -1, with score -inf. Of equal vectors the largest id is first.
        """
        scores, rows = self._search(q_BD, k)
        return (scores, rows) if self.copies is None else self.copies.expand(scores, rows, k)

    @property
    def search_value(self) -> int | None:
        """The value of `search_param`; None for exact search."""
        return getattr(self, self.search_param) if self.search_param else None

    def set_search_value(self, value: int) -> None:
        """Search with another value of `search_param`."""
        setattr(self, self.search_param, value)

    def size(self, folder: Path) -> int:
        """Bytes on disk."""
        return (folder / self.file).stat().st_size
