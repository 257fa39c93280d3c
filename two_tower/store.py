"""Vectors on disk: memory-mapped shards, the ids beside them, and a manifest that says what they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from two_tower.errors import UserError
from two_tower.files import atomic_path, write_json

__all__ = ["Manifest", "Shard", "VectorStore", "checksum"]

FORMAT = 1


def checksum(path: Path) -> str:
    """BLAKE2 of a file's bytes, 32 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


@dataclass(frozen=True)
class Shard:
    """A finished part of a store: ``rows`` vectors whose file has this ``checksum``."""

    rows: int
    checksum: str


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
        dtype: NumPy name.
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

    @property
    def rows(self) -> int:
        """Vectors in the finished shards."""
        return sum(shard.rows for shard in self.shards.values())

    def source(self) -> dict[str, Any]:
        """Everything that decides the vectors; progress aside."""
        return {k: v for k, v in asdict(self).items() if k not in ("shards", "complete")}


class VectorStore:
    """A folder of shards ``vectors-00000.npy …`` with the passages beside them, and ``manifest.json``.

    Shard n holds the rows from ``n * shard_rows`` on; ``passages-n.arrow`` their ids, titles and texts.

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
        """Add a finished shard: its (rows, D) vectors and the passages' ids, titles and texts.

        The manifest names the shard only after both files are whole.
        """
        with (
            atomic_path(self.path / _passages(number)) as temporary,
            pa.ipc.new_file(temporary, passages.schema) as file,  # not compressed, so that it can be mapped
        ):
            file.write_table(passages)
        path = self.path / _vectors(number)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, vectors)
        self.manifest.shards[path.name] = Shard(len(vectors), checksum(path))
        self.save()

    def finish(self) -> None:
        """Write ``ids.txt`` (one id per line, in row order) and mark the store as complete."""
        with atomic_path(self.path / "ids.txt") as temporary, temporary.open("w", encoding="utf-8") as file:
            for number in range(len(self.manifest.shards)):
                file.writelines(f"{i}\n" for i in self._passages(number)["id"].to_pylist())
        self.manifest.complete = True
        self.save()

    def vectors(self) -> Iterator[np.ndarray]:
        """The shards' vectors, memory-mapped, in order.

        Raises:
            UserError: a shard is missing or cut short.
        """
        for name, shard in self.manifest.shards.items():
            try:
                vectors = np.load(self.path / name, mmap_mode="r")
            except (OSError, ValueError) as error:
                raise UserError(f"{self.path / name} is missing or damaged ({error}): embed again.") from error
            if vectors.shape != (shard.rows, self.manifest.dim):
                raise UserError(f"{self.path / name} does not hold its {shard.rows} vectors: embed again.")
            yield vectors

    def verify(self) -> None:
        """Compare every shard with its checksum.

        Raises:
            UserError: a shard has changed.
        """
        for name, shard in self.manifest.shards.items():
            if not (self.path / name).exists() or checksum(self.path / name) != shard.checksum:
                raise UserError(f"{self.path / name} is not as it was written: delete it and embed again.")

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


def _passages(number: int) -> str:
    return f"passages-{number:05d}.arrow"
