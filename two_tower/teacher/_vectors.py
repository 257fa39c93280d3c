"""A teacher's vectors of many texts, in half precision: each is encoded once, whichever collections hold it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
import xxhash
from filelock import FileLock
from torch import Tensor

from two_tower.cache import cache_folder, keep_limit, mark_used
from two_tower.console import Advance, counter
from two_tower.data.reading.unique import Numbering, hash_rows
from two_tower.engine.base import Engine, Work
from two_tower.engine.local import LOCAL
from two_tower.errors import UserError
from two_tower.files import atomic_path
from two_tower.loss.base import TeacherBatch
from two_tower.teacher.base import Teacher
from two_tower.tokenizer.base import Tokenizer

if TYPE_CHECKING:
    from two_tower.data.stream.module import TripletData

SHARD_ROWS = 4096  # texts of a shard: an interruption loses no more than that, some minutes of a large model
READ_TEXTS = 256  # of which it is told how the teacher reads them
BLOCK = 256  # texts encoded between two moves of the progress bar


class TeacherVectors:
    """Vectors by row from memory-mapped shards, (n, T) float16 each; ``places`` (N,) are the rows' own in these."""

    def __init__(self, shards: Sequence[np.ndarray], dim: int, places: np.ndarray | None = None) -> None:
        self._shards, self.dim, self._places = shards, dim, places
        self._starts = np.cumsum([0, *map(len, self._shards)])

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._places is None else len(self._places)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """(B, T) float32 vectors of (B,) int64 rows, in any order."""
        places = rows if self._places is None else self._places[rows]
        out = np.empty((len(rows), self.dim), np.float32)
        shards = np.searchsorted(self._starts, places, side="right") - 1
        for shard in np.unique(shards):
            in_shard = shards == shard
            out[in_shard] = self._shards[shard][places[in_shard] - self._starts[shard]]
        return out


@dataclass(frozen=True)
class TeacherStore:
    """The teacher's vectors of all training queries and passages, by their rows."""

    queries: TeacherVectors
    documents: TeacherVectors
    pieces: float = math.nan  # that a word of the passages is to it, on average; NaN if it does not tell
    unread: float = math.nan  # share of these that it does not know

    @classmethod
    def prepare(cls, teacher: Teacher, data: TripletData, engine: Engine = LOCAL) -> TeacherStore:
        """The vectors of the corpus and the training queries, from the cache or computed now."""
        if data.trains_on_texts:
            raise UserError(
                f"A teacher's vectors belong to rows of queries and passages, and {data.source.name} trains on "
                "triplets of texts: use another negatives= than given, or loss=margin_mse."
            )
        queries, passages = data.taught_rows
        texts = data.corpus.texts()
        of_queries = teacher_vectors(teacher, data.train.texts, "queries", queries, engine)
        of_passages = teacher_vectors(teacher, texts, "passages", passages, engine)
        return cls(of_queries, of_passages, *_reading(teacher, texts, data.tokenizer))

    def take(self, query_rows: Tensor, document_rows: Tensor) -> TeacherBatch:
        """The teacher's vectors of a batch with (B,) and (N,) int64 rows."""
        pairs = ((self.queries, query_rows), (self.documents, document_rows))
        return TeacherBatch(*(torch.from_numpy(v.take(rows.cpu().numpy())).to(rows.device) for v, rows in pairs))


def _reading(teacher: Teacher, texts: pa.ChunkedArray, tokenizer: Tokenizer) -> tuple[float, float]:
    """Into how many pieces the teacher cuts a word of some texts, and the share of these that it does not know."""
    rows = np.unique(np.linspace(0, len(texts) - 1, READ_TEXTS).astype(np.int64))
    some = texts.take(pa.array(rows))
    words, read = len(tokenizer.encode(some).ids), teacher.pieces(some.to_pylist())
    return (math.nan, math.nan) if read is None or not words else (read[0] / words, read[1] / max(1, read[0]))


def teacher_vectors(
    teacher: Teacher, texts: pa.Array | pa.ChunkedArray, what: str, rows: np.ndarray | None = None,
    engine: Engine = LOCAL,
) -> TeacherVectors:  # fmt: skip
    """The teacher's vectors of (N,) texts, called ``what`` in messages, from the cache or computed now.

    Given (n,) ``rows``, only these texts are sure to have one. Of several processes that need them one computes them.
    """
    folder = cache_folder() / "teacher" / teacher.fingerprint()
    folder.mkdir(parents=True, exist_ok=True)
    hashes = hash_rows(texts)
    with FileLock(folder / ".lock"):
        known = _KnownTexts(folder)
        wanted = np.arange(len(hashes)) if rows is None else rows
        wanted = wanted[np.unique(hashes[wanted], return_index=True)[1]]
        wanted = np.sort(wanted[known.find(hashes[wanted]) < 0])
        if len(wanted):
            known.add(teacher, texts.take(pa.array(wanted)), hashes[wanted], what, engine)
            keep_limit(folder)
    mark_used(folder)
    return TeacherVectors(known.vectors, teacher.dim, known.find(hashes))


class _KnownTexts:
    """What a teacher has encoded: shards of vectors, beside each the hashes of their texts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.vectors: list[np.ndarray] = []
        self._places = Numbering()  # of the texts in all shards, by their hashes
        self._number = 0  # of the next shard
        for path in sorted(folder.glob("texts-*.npy")):
            self._open(path.stem.partition("-")[2])

    def find(self, hashes: np.ndarray) -> np.ndarray:
        """(N,) int32 places of texts in all shards; -1 for those that are not there."""
        return self._places.find(hashes)

    def add(
        self, teacher: Teacher, texts: pa.Array | pa.ChunkedArray, hashes: np.ndarray, what: str, engine: Engine
    ) -> None:
        """Encode (N,) texts, a shard at a time."""
        before = self._number

        def keep(done: tuple[int, np.ndarray]) -> None:
            shard, start = done[0], done[0] * SHARD_ROWS
            self._write(f"{before + shard:05}", done[1], hashes[start : start + SHARD_ROWS])

        with counter(f"{teacher.name} encodes", what, len(texts)) as progress:
            engine.run(_Teaching(teacher, teacher.dim), partial(_in_shards, texts, SHARD_ROWS), keep, progress)

    def _write(self, number: str, vectors: np.ndarray, hashes: np.ndarray) -> None:
        """The vectors first: a shard is there once its texts are. A last hash is that of the vectors themselves."""
        check = np.array([xxhash.xxh3_64_intdigest(vectors.data)], np.uint64)
        for name, values in (("vectors", vectors), ("texts", np.append(hashes, check))):
            with atomic_path(self._folder / f"{name}-{number}.npy") as temporary, temporary.open("wb") as file:
                np.save(file, values)
        self._open(number)

    def _open(self, number: str) -> None:
        path = self._folder / f"vectors-{number}.npy"
        try:
            texts = np.load(self._folder / f"texts-{number}.npy")
            hashes, check = texts[:-1], texts[-1]
            vectors = np.load(path, mmap_mode="r")
            whole = (len(vectors), xxhash.xxh3_64_intdigest(np.ascontiguousarray(vectors).data)) == (len(hashes), check)
        except (OSError, ValueError, EOFError, IndexError):
            whole = False
        if not whole:
            raise UserError(f"{path} is not as it was written: delete the folder {self._folder}, and it is made anew")
        self._number = max(self._number, int(number) + 1)
        self.vectors.append(vectors)
        self._places.add(hashes)


class _Teaching(Work[tuple[int, list[str]], tuple[int, np.ndarray]]):
    """Gives the texts of a shard a teacher's vectors of ``dim`` numbers, (n, T) float16."""

    def __init__(self, teacher: Teacher, dim: int) -> None:
        self._teacher, self._dim = teacher, dim

    def __call__(self, item: tuple[int, list[str]], progress: Advance | None) -> Callable[[], tuple[int, np.ndarray]]:
        number, texts = item
        # Texts of similar length together: less padding inside the model.
        order = np.argsort([-len(text) for text in texts], kind="stable")
        vectors = np.empty((len(texts), self._dim), np.float16)
        for first in range(0, len(texts), BLOCK):
            rows = order[first : first + BLOCK]
            vectors[rows] = self._teacher.encode([texts[row] for row in rows])
            if progress:
                progress(len(rows))
        return lambda: (number, vectors)


def _in_shards(texts: pa.Array | pa.ChunkedArray, rows: int) -> Iterator[tuple[int, list[str]]]:
    for start in range(0, len(texts), rows):
        yield start // rows, texts.slice(start, rows).to_pylist()
