"""Vectors on disk: memory-mapped shards, the passages beside them, and a manifest that says what they are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from two_tower.errors import UserError, one_of
from two_tower.files import atomic_path, file_hash, write_json

FORMAT = 3
# float16 is half as large as float32 and changes cosines by 0.0001 at most; int8, with a scale for each vector, is a
# quarter as large and changes them by 0.0003 on average, 0.0024 at most.
DTYPES = ("float32", "float16", "int8")
_NAME = re.compile(r"vectors-(\d+)\.npy")


@dataclass(frozen=True)
class Shard:
    """A finished part of a store: its rows, and the checksums (`file_hash`) of its files."""

    rows: int
    checksum: str
    passages: str
    scales: str = ""  # int8 only


@dataclass(frozen=True)
class Numbers:
    """Vectors as they are stored."""

    values: np.ndarray  # (n, D)
    scales: np.ndarray | None = None  # (n,) float32, the factor of each vector; int8 only

    @classmethod
    def of(cls, vectors: np.ndarray, dtype: str) -> Numbers:
        """Those of (n, D) float32 vectors."""
        if dtype != "int8":
            return cls(vectors.astype(dtype, copy=False))
        scales = np.abs(vectors).max(1, initial=0) / np.float32(127)
        steps = np.divide(vectors, scales[:, None], out=np.zeros_like(vectors), where=scales[:, None] > 0)
        return cls(np.rint(steps).astype(np.int8), scales)

    @classmethod
    def concatenate(cls, parts: Sequence[Numbers]) -> Numbers:
        """One after the other."""
        scales = [part.scales for part in parts if part.scales is not None]
        return cls(np.concatenate([part.values for part in parts]), np.concatenate(scales) if scales else None)

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: np.ndarray) -> Numbers:
        """Those of some rows (m,), in their order."""
        return Numbers(self.values[rows], None if self.scales is None else self.scales[rows])

    def vectors(self) -> np.ndarray:
        """(n, D) float32; memory-mapped if they are stored so."""
        vectors = self.values.astype(np.float32, copy=False)
        return vectors if self.scales is None else vectors * self.scales[:, None]


@dataclass
class Manifest:
    """What the vectors of a store were made from; stores with equal sources hold equal vectors."""

    checkpoint: str  # checksum
    tokenizer: str  # fingerprint
    corpus: str  # fingerprint of the text
    similarity: str
    dim: int
    shard_rows: int  # the last shard may hold fewer
    dtype: str = "float32"
    words: str = ""  # digest of those known beside the run's own, if there are any
    shards: dict[str, Shard] = field(default_factory=dict)  # by the name of their vectors' file, in order
    complete: bool = False
    format: int = FORMAT

    def __post_init__(self) -> None:
        self.shards = {k: v if isinstance(v, Shard) else Shard(**v) for k, v in self.shards.items()}
        counts = self.dim, self.shard_rows, *(shard.rows for shard in self.shards.values())
        numbers = all(isinstance(count, int) and count >= 0 for count in counts)
        if not numbers or not all(map(_NAME.fullmatch, self.shards)):
            raise ValueError("its numbers, or the names of its shards, cannot be right")
        if self.dtype not in DTYPES:
            raise UserError(f"dtype={self.dtype} does not exist; {one_of(self.dtype, DTYPES)}.")

    @property
    def rows(self) -> int:  # of the finished shards
        return sum(shard.rows for shard in self.shards.values())

    def source(self) -> dict[str, Any]:
        """Everything that decides the vectors."""
        return {k: v for k, v in asdict(self).items() if k not in ("shards", "complete")}


@dataclass(frozen=True)
class Part:
    """The passages of a shard, by its number."""

    number: int
    passages: pa.Table

    def __reduce__(self) -> tuple[Any, ...]:
        # A table's own pickle holds all of the arrays that it is slices of.
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.passages.schema) as stream:
            stream.write_table(self.passages)
        return _unpickled_part, (self.number, sink.getvalue())


def _unpickled_part(number: int, passages: pa.Buffer) -> Part:
    return Part(number, pa.ipc.open_stream(passages).read_all())


def in_parts(
    batches: Callable[[], Iterator[pa.RecordBatch]], shard_rows: int, finished: Container[int] = ()
) -> Iterator[Part]:
    """The passages of a corpus by shards of ``shard_rows``, but for those that are ``finished``."""
    return (Part(n, _table(p)) for n, p in enumerate(_in_shards(batches(), shard_rows)) if n not in finished)


def _in_shards(batches: Iterator[pa.RecordBatch], shard_rows: int) -> Iterator[list[pa.RecordBatch]]:
    waiting, missing = list[pa.RecordBatch](), shard_rows
    for batch in batches:
        while len(batch) >= missing:
            yield [*waiting, batch.slice(0, missing)]
            batch, waiting, missing = batch.slice(missing), [], shard_rows
        if len(batch):
            waiting.append(batch)
            missing -= len(batch)
    if waiting:
        yield waiting


def _table(batches: Sequence[pa.RecordBatch]) -> pa.Table:
    """Batches of passages as a table, of which some may have fields and others not."""
    return pa.concat_tables([pa.Table.from_batches([batch]) for batch in batches], promote_options="default")


class VectorStore:
    """A folder of shards with the passages beside them, and ``manifest.json``.

    Shard n holds the rows from ``n * shard_rows`` on: ``vectors-0000n.npy``; ``passages-0000n.arrow`` with ids, titles,
    texts and, where the source gives some, fields; for int8 also ``scales-0000n.npy``, (rows,) float32, the factor of
    each vector.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest

    @classmethod
    def open(cls, path: Path) -> VectorStore:
        """A store on disk, complete or not."""
        file = path / "manifest.json"
        try:
            return cls(path, Manifest(**json.loads(file.read_text(encoding="utf-8"))))
        except FileNotFoundError as error:
            raise UserError(f"{path} holds no vectors: {file.name} is missing.") from error
        except (ValueError, TypeError) as error:
            raise UserError(f"{file} cannot be read ({error}): delete {path} and embed again.") from error

    @property
    def rows(self) -> int:  # of the finished shards
        return self.manifest.rows

    @property
    def shards(self) -> dict[int, Shard]:
        """The finished shards by their numbers, ascending; without gaps once all are finished."""
        return {int(_NAME.sub(r"\1", name)): shard for name, shard in self.manifest.shards.items()}

    def write(self, number: int, vectors: np.ndarray | Numbers, passages: pa.Table) -> None:
        """Add a finished shard: its (rows, D) float32 vectors and the passages, as their source gives them."""
        self.add(number, self.save(number, vectors, passages))

    def save(self, number: int, vectors: np.ndarray | Numbers, passages: pa.Table) -> Shard:
        """Write the files of a shard, which is finished once it is added to the manifest."""
        texts = self.path / _name("passages", number)
        # Not compressed, so that it can be mapped.
        with atomic_path(texts) as temporary, pa.ipc.new_file(temporary, passages.schema) as file:
            file.write_table(passages)
        numbers = vectors if isinstance(vectors, Numbers) else Numbers.of(vectors, self.manifest.dtype)
        checksum = self._save(_name("vectors", number), numbers.values)
        scales_checksum = "" if numbers.scales is None else self._save(_name("scales", number), numbers.scales)
        return Shard(len(vectors), checksum, file_hash(texts), scales_checksum)

    def add(self, number: int, shard: Shard) -> None:
        """Name a shard in the manifest, now that its files are whole; they may come in any order."""
        shards = self.shards | {number: shard}
        self.manifest.shards = {_name("vectors", each): shards[each] for each in sorted(shards)}
        write_json(self.path / "manifest.json", asdict(self.manifest))

    def _save(self, name: str, array: np.ndarray) -> str:
        with atomic_path(self.path / name) as temporary, temporary.open("wb") as file:
            np.save(file, array)
        return file_hash(self.path / name)

    def finish(self) -> None:
        """Write ``ids.txt`` (one id a line, in row order) and mark the store as complete."""
        with atomic_path(self.path / "ids.txt") as temporary, temporary.open("w", encoding="utf-8") as file:
            for passages in self.texts():
                file.writelines(f"{i}\n" for i in passages["id"].to_pylist())
        self.manifest.complete = True
        write_json(self.path / "manifest.json", asdict(self.manifest))

    def vectors(self) -> Iterator[np.ndarray]:
        """The vectors of each shard, (rows, D) float32; memory-mapped if they are stored so."""
        return (numbers.vectors() for numbers in self.numbers())

    def numbers(self) -> list[Numbers]:
        """The vectors of each shard as they are stored, memory-mapped."""
        found, with_scales = [], self.manifest.dtype == "int8"
        for number, shard in self.shards.items():
            values = self._load(_name("vectors", number), (shard.rows, self.manifest.dim))
            found.append(Numbers(values, self._load(_name("scales", number), (shard.rows,)) if with_scales else None))
        return found

    def _load(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        try:
            array: np.ndarray = np.load(self.path / name, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{self.path / name} is missing or damaged ({error}): embed again.") from error
        if array.shape != shape:
            raise UserError(f"{self.path / name} does not hold its {shape[0]} vectors: embed again.")
        return array

    def sample(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """(count, D) float32 vectors from all shards and their rows, ascending."""
        chosen = np.sort(np.random.default_rng(seed).choice(self.rows, count, replace=False))
        return self.take(chosen), chosen

    def verify(self) -> None:
        """Compare all files with their checksums, 2 GB a second on two cores; a UserError names the first changed."""
        checksums: dict[Path, str] = {}
        for number, shard in self.shards.items():
            sums = {"vectors": shard.checksum, "passages": shard.passages, "scales": shard.scales}
            checksums |= {self.path / _name(kind, number): value for kind, value in sums.items() if value}

        with ThreadPoolExecutor(2) as pool:  # hashing releases the GIL
            found = pool.map(lambda path: path.exists() and file_hash(path), checksums)
            for (path, expected), checksum in zip(checksums.items(), found, strict=True):
                if checksum != expected:
                    raise UserError(f"{path} is not as it was written: delete {self.path} and embed again.")

    def passages(self, rows: Sequence[int]) -> list[dict[str, str]]:
        """``id``, ``title``, ``text`` and perhaps ``fields`` of the given rows."""
        step = self.manifest.shard_rows
        return [self._passages(row // step).slice(row % step, 1).to_pylist()[0] for row in rows]

    def take(self, rows: np.ndarray) -> np.ndarray:
        """(n, D) float32 vectors of some rows, (n,) int64, ascending."""
        return np.concatenate([vectors[own] for vectors, own in split_rows(self.vectors(), rows)])

    def ids(self) -> pa.ChunkedArray:
        """(N,) the passages' ids."""
        return pa.chunked_array([chunk for table in self.texts() for chunk in table["id"].chunks], pa.string())

    def texts(self) -> Iterator[pa.Table]:
        """The passages of each shard."""
        return map(self._passages, self.shards)

    @cache  # noqa: B019 - memory-mapped: costs no memory, lives as long as the store
    def _passages(self, number: int) -> pa.Table:
        path = self.path / _name("passages", number)
        try:
            return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(f"{path} is missing or damaged: embed again.") from error


def _name(kind: str, number: int) -> str:
    return f"{kind}-{number:05d}.{'arrow' if kind == 'passages' else 'npy'}"


def split_rows(pieces: Iterable[Any], rows: np.ndarray) -> Iterator[tuple[Any, np.ndarray]]:
    """Pieces in turn, each with those of the ascending ``rows`` (n,) int64 that lie in it, counted from its start."""
    start = 0
    for piece in pieces:
        first, last = np.searchsorted(rows, (start, start + len(piece)))
        yield piece, rows[first:last] - start
        start += len(piece)
