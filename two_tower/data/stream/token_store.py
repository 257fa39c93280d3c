"""Tokens on disk: written once from a stream, then memory-mapped."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, NamedTuple

import numba
import numpy as np
import pyarrow as pa

from two_tower.data.reading.unique import hash_rows
from two_tower.ragged import Ragged

_PARTS = ("ids", "offsets", "hashes", "texts")


@numba.njit(nogil=True, cache=True)
def _hash_texts(ids: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    out = np.empty(len(offsets) - 1, np.uint64)
    for b in range(len(out)):
        h = np.uint64(0xCBF29CE484222325)
        for t in range(offsets[b], offsets[b + 1]):
            h = (h ^ np.uint64(ids[t])) * np.uint64(0x9E3779B97F4A7C15)
            h ^= h >> np.uint64(29)
        out[b] = h
    return out


def token_hashes(tokens: Ragged) -> np.ndarray:
    """(B,) uint64: equal for texts of equal tokens, which no tower can tell apart."""
    return _hash_texts(tokens.ids.numpy(), tokens.offsets.numpy())


def written_hashes(texts: pa.Array | pa.ChunkedArray, tokens: Ragged) -> np.ndarray:
    """(B,) uint64: equal for texts that are equal letter by letter; 0 for those without a word, which say nothing."""
    return np.where(tokens.lengths.numpy() > 0, hash_rows(texts), np.uint64(0))


class TokenWriter:
    """Appends token batches to the files ``NAME.PART`` of an existing folder, with each of `_PARTS`."""

    written: ClassVar[int] = 0  # texts that this process has tokenized, for any store

    def __init__(self, folder: Path, name: str) -> None:
        self._files = [(folder / f"{name}.{part}").open("wb") for part in _PARTS]
        self._files[1].write(np.zeros(1, np.int64).data)
        self._end = 0
        self.texts = 0

    def append(self, tokens: Ragged, texts: pa.Array | pa.ChunkedArray | None = None) -> None:
        """Add some texts; without ``texts`` it is not known which of them are equal letter by letter."""
        ids, offsets, hashes, originals = self._files
        ids.write(tokens.ids.numpy().astype(np.int32, copy=False).data)
        offsets.write((tokens.offsets[1:].numpy() + self._end).data)
        hashes.write(token_hashes(tokens).data)
        if texts is not None:
            originals.write(written_hashes(texts, tokens).data)
        self._end += int(tokens.offsets[-1])
        self.texts += len(tokens)
        TokenWriter.written += len(tokens)

    def __enter__(self) -> TokenWriter:
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files:
            file.close()


class StoredTokens(NamedTuple):
    """Texts that a `TokenWriter` wrote, memory-mapped."""

    tokens: Ragged  # of B texts
    hashes: np.ndarray  # (B,) uint64, `token_hashes`
    texts: np.ndarray  # (B,) uint64, `written_hashes`; empty if they were not written


def read_tokens(folder: Path, name: str) -> StoredTokens:
    """What a `TokenWriter` wrote."""
    ids, offsets = _memory_map(folder / f"{name}.ids", np.int32), _memory_map(folder / f"{name}.offsets", np.int64)
    hashes = (_memory_map(folder / f"{name}.{part}", np.uint64) for part in _PARTS[2:])
    return StoredTokens(Ragged.from_numpy(ids, offsets), *hashes)


def _memory_map(path: Path, dtype: type[np.generic]) -> np.ndarray:
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.empty(0, dtype)
    return np.memmap(path, dtype, mode="c")  # copy on write, because torch wants writable arrays
