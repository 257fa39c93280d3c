"""Tokens on disk: written once as they stream by, then memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import ClassVar, TypeVar

import numba
import numpy as np

from two_tower.ragged import Ragged

__all__ = ["TokenWriter", "ahead", "read_tokens", "text_hashes"]

T = TypeVar("T")


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


def text_hashes(tokens: Ragged) -> np.ndarray:
    """(B,) uint64: equal for texts of equal tokens, which is what a tower can tell apart."""
    return _hash_texts(tokens.ids.numpy(), tokens.offsets.numpy())


class TokenWriter:
    """Appends token batches to files; memory does not grow with them.

    Args:
        folder: an existing folder.
        name: the files are ``NAME.ids``, ``NAME.offsets`` and ``NAME.hashes``.

    Attributes:
        written: texts that this process has written to any store: those that it had to parse and tokenise.
        texts: texts written to this one.
    """

    written: ClassVar[int] = 0

    def __init__(self, folder: Path, name: str) -> None:
        self._files = [(folder / f"{name}.{part}").open("wb") for part in ("ids", "offsets", "hashes")]
        self._files[1].write(np.zeros(1, np.int64).data)
        self._end = 0
        self.texts = 0

    def append(self, tokens: Ragged) -> None:
        """Add the texts of a batch."""
        ids, offsets, hashes = self._files
        ids.write(tokens.ids.numpy().astype(np.int32, copy=False).data)
        offsets.write((tokens.offsets[1:].numpy() + self._end).data)
        hashes.write(text_hashes(tokens).data)
        self._end += int(tokens.offsets[-1])
        self.texts += len(tokens)
        TokenWriter.written += len(tokens)

    def __enter__(self) -> TokenWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()


def read_tokens(folder: Path, name: str) -> tuple[Ragged, np.ndarray]:
    """What a `TokenWriter` wrote, memory-mapped: the texts and their (B,) uint64 hashes."""
    ids, offsets = _mapped(folder / f"{name}.ids", np.int32), _mapped(folder / f"{name}.offsets", np.int64)
    return Ragged.from_numpy(ids, offsets), _mapped(folder / f"{name}.hashes", np.uint64)


def _mapped(path: Path, dtype: type[np.generic]) -> np.ndarray:
    if path.stat().st_size == 0:  # nothing to map
        return np.empty(0, dtype)
    # Copy on write: torch wants writable arrays, and nothing that is written would reach the file.
    return np.memmap(path, dtype, mode="c")


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, the next one being made in a thread while the caller works on this one."""
    context = copy_context()  # notices belong to the cache entry that this thread is making

    def following() -> list[T]:
        return list(islice(items, 1))

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(context.run, following)
        while item := waiting.result():
            waiting = pool.submit(context.run, following)
            yield item[0]
