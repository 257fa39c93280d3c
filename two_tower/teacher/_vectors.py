"""A teacher's vectors of many texts: made once, kept in half precision, continued where they were interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from filelock import FileLock

from two_tower.cache import cache_folder, key_of
from two_tower.progress import counter
from two_tower.store import Manifest, VectorStore
from two_tower.teacher.base import Teacher

__all__ = ["TeacherVectors", "teacher_vectors"]

# Texts of a part: what an interruption costs at most, some minutes of a large model.
SHARD_ROWS = 4096
TEXTS = 256  # encoded between two moves of the progress bar


class TeacherVectors:
    """Vectors by row, memory-mapped.

    Args:
        shards: (rows, T) each, float16.
        dim: T.
    """

    def __init__(self, shards: Sequence[np.ndarray], dim: int) -> None:
        self._shards, self.dim = list(shards), dim
        self._starts = np.cumsum([0, *map(len, self._shards)])

    @classmethod
    def joined(cls, several: Sequence[TeacherVectors]) -> TeacherVectors:
        """The rows of several, one after another."""
        return cls([shard for each in several for shard in each._shards], several[0].dim)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The vectors of some rows, (B, T) float32.

        Args:
            rows: (B,) int64, in any order.
        """
        out = np.empty((len(rows), self.dim), np.float32)
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        for shard in np.unique(shards):
            of_it = shards == shard
            out[of_it] = self._shards[shard][rows[of_it] - self._starts[shard]]
        return out


def teacher_vectors(teacher: Teacher, texts: pa.Array | pa.ChunkedArray, what: str, fingerprint: str) -> TeacherVectors:
    """The teacher's vectors of texts, from the cache or made now; several processes make them once.

    Args:
        teacher: the model.
        texts: (N,) strings.
        what: they are, in the plural.
        fingerprint: of the texts: whatever changes them changes it.
    """
    key = key_of(teacher.fingerprint(), what, fingerprint)
    path = cache_folder() / "teacher" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{key}.lock")):
        manifest = path / "manifest.json"
        store = VectorStore.open(path) if manifest.exists() else _new(path, teacher, fingerprint)
        if not store.manifest.complete:
            store.verify()
            _complete(store, teacher, texts, what)
    return TeacherVectors(store.raw(), store.manifest.dim)


def _new(path: Path, teacher: Teacher, fingerprint: str) -> VectorStore:
    manifest = Manifest(teacher.fingerprint(), "", fingerprint, "cosine", teacher.dim, SHARD_ROWS, "float16")
    return VectorStore(path, manifest)


def _complete(store: VectorStore, teacher: Teacher, texts: pa.Array | pa.ChunkedArray, what: str) -> None:
    with counter(f"{teacher.name} encodes", what, len(texts)) as progress:
        for number, start in enumerate(range(0, len(texts), SHARD_ROWS)):
            part = texts.slice(start, SHARD_ROWS).to_pylist()
            if not store.has(number):
                # Texts of like length together: less padding inside the model.
                order = np.argsort([-len(text) for text in part], kind="stable")
                vectors = np.empty((len(part), store.manifest.dim), np.float32)
                for first in range(0, len(part), TEXTS):
                    rows = order[first : first + TEXTS]
                    vectors[rows] = teacher.encode([part[row] for row in rows])
                    progress(len(rows))
                store.write(number, vectors, pa.table({"id": [str(start + row) for row in range(len(part))]}))
            else:
                progress(len(part))
    store.finish()
