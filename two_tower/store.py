"""Vectors on disk: memory-mapped shards, the ids beside them, and a manifest that says what they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from two_tower.errors import UserError, one_of
from two_tower.files import atomic_path, write_json

__all__ = ["DTYPES", "Manifest", "Shard", "VectorStore", "checksum"]

FORMAT = 3
# What a number of a vector is kept as.
DTYPES = ("float32", "float16", "int8")


def checksum(path: Path) -> str:
    """XXH3 of a file's bytes, 32 hexadecimal digits: it is to find damage, at four times the speed of BLAKE2."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


@dataclass(frozen=True)
class Shard:
    """A finished part of a store.

    Attributes:
        rows: vectors.
        checksum: of their file.
        passages: checksum of the file with the passages.
        scales: checksum of the file with the scales of int8 vectors; empty for others.
    """

    rows: int
    checksum: str
    passages: str = ""
    scales: str = ""


@dataclass
class Manifest:
    """What the vectors of a store are made of; two stores of equal sources hold equal vectors.

    Attributes:
        checkpoint: checksum of the checkpoint that made them.
        tokenizer: fingerprint of the tokenizer.
        corpus: fingerprint of the text.
        similarity: how they are compared.
        dim: D.
        shard_rows: rows per shard; the last one may hold fewer.
        dtype: what a number is kept as: ``float32``; ``float16``, half as large, cosines change by 0.0001 at most;
            ``int8``, a quarter, each vector with a scale of its own, cosines change by 0.0003, 0.0024 at most.
        shards: file name → shard, in order; finished ones only.
        complete: every row is there.
        format: version of this layout.
    """

    checkpoint: str
    tokenizer: str
    corpus: str
    similarity: str
    dim: int
    shard_rows: int
    dtype: str = "float32"
    shards: dict[str, Shard] = field(default_factory=dict)
    complete: bool = False
    format: int = FORMAT

    def __post_init__(self) -> None:
        self.shards = {k: v if isinstance(v, Shard) else Shard(**v) for k, v in self.shards.items()}
        if self.dtype not in DTYPES:
            raise UserError(f"dtype={self.dtype} does not exist; {one_of(self.dtype, DTYPES)}.")

    @property
    def rows(self) -> int:
        """Vectors in the finished shards."""
        return sum(shard.rows for shard in self.shards.values())

    def source(self) -> dict[str, Any]:
        """Everything that decides the vectors; progress aside."""
        return {k: v for k, v in asdict(self).items() if k not in ("shards", "complete")}


class VectorStore:
    """A folder of shards ``vectors-00000.npy …`` with the passages beside them, and ``manifest.json``.

    Shard n holds the rows from ``n * shard_rows`` on; ``passages-n.arrow`` their ids, titles and texts; for int8
    ``scales-n.npy`` (rows,) float32, by which the numbers of each vector are multiplied.

    Args:
        path: the folder.
        manifest: what it holds.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest

    @classmethod
    def open(cls, path: Path) -> VectorStore:
        """A store on disk, complete or not.

        Raises:
            UserError: there is none, or its manifest cannot be read.
        """
        file = path / "manifest.json"
        try:
            return cls(path, Manifest(**json.loads(file.read_text(encoding="utf-8"))))
        except FileNotFoundError as error:
            raise UserError(f"{path} holds no vectors: {file.name} is missing.") from error
        except (ValueError, TypeError) as error:
            raise UserError(f"{file} cannot be read ({error}): delete {path} and embed again.") from error

    def save(self) -> None:
        """Write the manifest."""
        write_json(self.path / "manifest.json", asdict(self.manifest))

    def has(self, number: int) -> bool:
        """Whether a shard is finished."""
        return _vectors(number) in self.manifest.shards

    def write(self, number: int, vectors: np.ndarray, passages: pa.Table) -> None:
        """Add a finished shard: its (rows, D) float32 vectors and the passages' ids, titles and texts.

        The manifest names the shard only after all its files are whole.
        """
        with (
            atomic_path(self.path / _passages(number)) as temporary,
            pa.ipc.new_file(temporary, passages.schema) as file,  # not compressed, so that it can be mapped
        ):
            file.write_table(passages)
        kept, scales = _encoded(vectors, self.manifest.dtype)
        shard = Shard(
            len(vectors),
            self._save(_vectors(number), kept),
            checksum(self.path / _passages(number)),
            "" if scales is None else self._save(_scales(number), scales),
        )
        self.manifest.shards[_vectors(number)] = shard
        self.save()

    def _save(self, name: str, array: np.ndarray) -> str:
        """Write an array atomically; returns the checksum of the file."""
        with atomic_path(self.path / name) as temporary, temporary.open("wb") as file:
            np.save(file, array)
        return checksum(self.path / name)

    def finish(self) -> None:
        """Write ``ids.txt`` (one id per line, in row order) and mark the store as complete."""
        with atomic_path(self.path / "ids.txt") as temporary, temporary.open("w", encoding="utf-8") as file:
            for number in range(len(self.manifest.shards)):
                file.writelines(f"{i}\n" for i in self._passages(number)["id"].to_pylist())
        self.manifest.complete = True
        self.save()

    def vectors(self) -> Iterator[np.ndarray]:
        """The shards' vectors in order, float32: memory-mapped where they are kept so, else made of what is kept.

        Raises:
            UserError: a shard is missing or cut short.
        """
        for number, (name, shard) in enumerate(self.manifest.shards.items()):
            vectors = self._load(name, (shard.rows, self.manifest.dim))
            if self.manifest.dtype == "int8":
                scales = self._load(_scales(number), (shard.rows,))
                vectors = vectors.astype(np.float32) * scales[:, None]
            yield vectors if vectors.dtype == np.float32 else vectors.astype(np.float32)

    def raw(self) -> list[np.ndarray]:
        """The shards' numbers in order as they are kept, memory-mapped; for float16 and float32, these are the vectors.

        Raises:
            UserError: a shard is missing or cut short.
        """
        shards = self.manifest.shards.items()
        return [self._load(name, (shard.rows, self.manifest.dim)) for name, shard in shards]

    def _load(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        try:
            array: np.ndarray = np.load(self.path / name, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{self.path / name} is missing or damaged ({error}): embed again.") from error
        if array.shape != shape:
            raise UserError(f"{self.path / name} does not hold its {shape[0]} vectors: embed again.")
        return array

    def verify(self) -> None:
        """Compare every file with its checksum; some 2 GB a second on two cores.

        Raises:
            UserError: a file has changed; it names the first.
        """
        sums = [
            (self.path / name, wanted)
            for number, (vectors, shard) in enumerate(self.manifest.shards.items())
            for name, wanted in (
                (vectors, shard.checksum), (_passages(number), shard.passages), (_scales(number), shard.scales)
            )
            if wanted
        ]  # fmt: skip

        def whole(file: tuple[Path, str]) -> bool:
            return file[0].exists() and checksum(file[0]) == file[1]

        with ThreadPoolExecutor(2) as pool:  # hashing leaves the interpreter to others
            for (path, _), good in zip(sums, pool.map(whole, sums), strict=True):
                if not good:
                    raise UserError(f"{path} is not as it was written: delete {self.path} and embed again.")

    def passages(self, rows: Sequence[int]) -> list[dict[str, str]]:
        """``id``, ``title`` and ``text`` of the given rows."""
        step = self.manifest.shard_rows
        return [self._passages(row // step).slice(row % step, 1).to_pylist()[0] for row in rows]

    def texts(self) -> Iterator[pa.Table]:
        """The passages of every shard, in order."""
        return (self._passages(number) for number in range(len(self.manifest.shards)))

    @cache  # noqa: B019 - memory-mapped: costs no memory, lives as long as the store
    def _passages(self, number: int) -> pa.Table:
        return pa.ipc.open_file(pa.memory_map(str(self.path / _passages(number)))).read_all()


def _vectors(number: int) -> str:
    return f"vectors-{number:05d}.npy"


def _scales(number: int) -> str:
    return f"scales-{number:05d}.npy"


def _encoded(vectors: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    """What is kept of (rows, D) float32 vectors, and their scales (rows,) where they have some."""
    if dtype != "int8":
        return vectors.astype(dtype, copy=False), None
    scales = np.abs(vectors).max(1, initial=0) / np.float32(127)
    steps = np.divide(vectors, scales[:, None], out=np.zeros_like(vectors), where=scales[:, None] > 0)
    return np.rint(steps).astype(np.int8), scales


def _passages(number: int) -> str:
    return f"passages-{number:05d}.arrow"
