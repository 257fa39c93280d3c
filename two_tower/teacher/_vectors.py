"""A teacher's vectors of many texts: computed once, stored in half precision, resumed after an interruption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from filelock import FileLock
from torch import Tensor

from two_tower.cache import cache_folder, key_of
from two_tower.console import counter
from two_tower.data.stream.module import TripletData
from two_tower.errors import UserError
from two_tower.loss.base import TeacherBatch
from two_tower.store import Manifest, VectorStore
from two_tower.teacher.base import Teacher

SHARD_ROWS = 4096  # texts of a shard: an interruption loses no more than that, some minutes of a large model
BLOCK = 256  # texts encoded between two moves of the progress bar


class TeacherVectors:
    """Vectors by row from memory-mapped shards, (rows, T) float16 each."""

    def __init__(self, shards: Sequence[np.ndarray], dim: int) -> None:
        self._shards, self.dim = shards, dim
        self._starts = np.cumsum([0, *map(len, self._shards)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """(B, T) float32 vectors of (B,) int64 rows, in any order."""
        out = np.empty((len(rows), self.dim), np.float32)
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        for shard in np.unique(shards):
            in_shard = shards == shard
            out[in_shard] = self._shards[shard][rows[in_shard] - self._starts[shard]]
        return out


@dataclass(frozen=True)
class TeacherStore:
    """The teacher's vectors of all training queries and passages, by their rows."""

    queries: TeacherVectors
    documents: TeacherVectors

    @classmethod
    def prepare(cls, teacher: Teacher, data: TripletData) -> TeacherStore:
        """The vectors of the corpus and the training queries, from the cache or computed now."""
        if data.trains_on_texts:
            raise UserError(
                f"A teacher's vectors belong to rows of queries and passages, and {data.source.name} trains on "
                "triplets of texts: use another negatives= than given, or loss=margin_mse."
            )
        corpus = teacher_vectors(teacher, data.corpus.texts(), "passages", data.learned.fingerprint())
        name = key_of(data.learned.fingerprint(), data.loader.train_split, data.train.texts.to_pylist())
        return cls(teacher_vectors(teacher, data.train.texts, "queries", name), corpus)

    def take(self, query_rows: Tensor, document_rows: Tensor) -> TeacherBatch:
        """The teacher's vectors of a batch with (B,) and (N,) int64 rows."""
        pairs = ((self.queries, query_rows), (self.documents, document_rows))
        return TeacherBatch(*(torch.from_numpy(v.take(rows.cpu().numpy())).to(rows.device) for v, rows in pairs))


def teacher_vectors(teacher: Teacher, texts: pa.Array | pa.ChunkedArray, what: str, fingerprint: str) -> TeacherVectors:
    """The teacher's vectors of (N,) texts, from the cache or computed now; of several processes one computes them."""
    key = key_of(teacher.fingerprint(), what, fingerprint)
    path = cache_folder() / "teacher" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{key}.lock")):
        if (path / "manifest.json").exists():
            store = VectorStore.open(path)
        else:
            manifest = Manifest(teacher.fingerprint(), "", fingerprint, "cosine", teacher.dim, SHARD_ROWS, "float16")
            store = VectorStore(path, manifest)
        if not store.manifest.complete:
            store.verify()
            _complete(store, teacher, texts, what)
    return TeacherVectors(store.raw(), store.manifest.dim)


def _complete(store: VectorStore, teacher: Teacher, texts: pa.Array | pa.ChunkedArray, what: str) -> None:
    with counter(f"{teacher.name} encodes", what, len(texts)) as progress:
        for number, start in enumerate(range(0, len(texts), SHARD_ROWS)):
            part = texts.slice(start, SHARD_ROWS).to_pylist()
            if store.has(number):
                progress(len(part))
                continue
            # Texts of similar length together: less padding inside the model.
            order = np.argsort([-len(text) for text in part], kind="stable")
            vectors = np.empty((len(part), store.manifest.dim), np.float32)
            for first in range(0, len(part), BLOCK):
                rows = order[first : first + BLOCK]
                vectors[rows] = teacher.encode([part[row] for row in rows])
                progress(len(rows))
            store.write(number, vectors, pa.table({"id": [str(start + row) for row in range(len(part))]}))
    store.finish()
