"""Rows that came before, known by 64-bit hashes of their text: 14 to 24 bytes each, however long the texts are.

Two of 8.8 million different texts share a hash in one of 500,000 collections.
"""

from __future__ import annotations

import numba
import numpy as np
import pyarrow as pa

from two_tower.data.reading.arrow import Column, kept
from two_tower.errors import BadRows

_SEED = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER = np.uint64(0xC6A4A7935BD1E995)
_SHIFT = np.uint64(47)


@numba.njit(nogil=True, cache=True)
def _mix(state: np.uint64, word: np.uint64) -> np.uint64:
    word *= _MULTIPLIER
    word = (word ^ (word >> _SHIFT)) * _MULTIPLIER
    return (state ^ word) * _MULTIPLIER


@numba.njit(nogil=True, cache=True)
def _hash_column(data: np.ndarray, offsets: np.ndarray, hashes: np.ndarray) -> None:
    """Mix the texts into ``hashes`` (N,) uint64, eight bytes at a time (MurmurHash64A).

    Compiled, because XXH3 called from Python takes 1.1 µs a row, this 0.01 to 0.5.
    """
    for row in range(len(hashes)):
        start, end = offsets[row], offsets[row + 1]
        state = hashes[row] ^ (np.uint64(end - start) * _MULTIPLIER)
        whole = start + (end - start) // 8 * 8
        for at in range(start, whole, 8):
            word = np.uint64(0)
            for byte in range(8):  # the compiler makes it one load
                word |= np.uint64(data[at + byte]) << np.uint64(8 * byte)
            state = _mix(state, word)
        word = np.uint64(0)
        for at in range(whole, end):
            word |= np.uint64(data[at]) << np.uint64(8 * (at - whole))
        state = _mix(state, word)
        state = (state ^ (state >> _SHIFT)) * _MULTIPLIER
        hashes[row] = state ^ (state >> _SHIFT)


def hash_rows(*columns: Column) -> np.ndarray:
    """(N,) uint64: a hash of each row of (N,) columns without nulls; the same in every process.

    They are read as strings. Where one column's text ends and the next one's begins matters.
    """
    hashes = np.full(len(columns[0]), _SEED)
    for column in columns:
        row, texts = 0, column.cast(pa.string())
        for chunk in getattr(texts, "chunks", [texts]):
            _, offsets, data = chunk.buffers()
            if len(chunk):
                ends = np.frombuffer(offsets, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
                _hash_column(np.frombuffer(data or b"", np.uint8), ends, hashes[row : row + len(chunk)])
            row += len(chunk)
    return hashes


def hexadecimal(hashes: np.ndarray) -> pa.StringArray:
    """(N,) uint64 as strings of 16 digits, the ids of what has none; the same in every version."""
    digits = hashes.astype(">u8").tobytes().hex().encode()
    offsets = np.arange(len(hashes) + 1, dtype=np.int32) * 16
    return pa.StringArray.from_buffers(len(hashes), pa.py_buffer(offsets), pa.py_buffer(digits))


@numba.njit(nogil=True, cache=True)
def _look_up(slots: np.ndarray, keys: np.ndarray, size: int, wanted: np.ndarray, numbers: np.ndarray, add: bool) -> int:
    """The numbers of ``wanted`` keys, -1 for those that are not there; perhaps they are added, -1 - number then."""
    mask = np.uint64(len(slots) - 1)
    for row in range(len(wanted)):
        slot = wanted[row] & mask
        while slots[slot] >= 0 and keys[slots[slot]] != wanted[row]:
            slot = (slot + np.uint64(1)) & mask
        numbers[row] = slots[slot]
        if add and numbers[row] < 0:
            keys[size], slots[slot], numbers[row] = wanted[row], size, -1 - size
            size += 1
    return size


class Numbering:
    """Numbers 64-bit keys 0, 1, 2 … as they come: a table with open addressing, up to 2/3 full.

    The 8.8 million keys of a large collection take 1.6 s and 170 MB.
    """

    def __init__(self) -> None:
        self._slots = np.full(1024, -1, np.int32)
        self._keys = np.empty(0, np.uint64)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The number of each of (K,) uint64 keys, (K,) int32, and whether this is its first time, (K,) bool."""
        self._reserve(self._size + len(keys))
        numbers = np.empty(len(keys), np.int32)
        self._size = _look_up(self._slots, self._keys, self._size, keys, numbers, True)
        new = numbers < 0
        return np.where(new, -1 - numbers, numbers), new

    def find(self, keys: np.ndarray) -> np.ndarray:
        """The number of each key, (K,) int32; -1 for those that never came."""
        numbers = np.empty(len(keys), np.int32)
        _look_up(self._slots, self._keys, self._size, keys, numbers, False)
        return numbers

    def _reserve(self, size: int) -> None:
        if size > len(self._keys):
            self._keys.resize(max(size, len(self._keys) * 3 // 2), refcheck=False)
        slots = 1 << (size * 3 // 2).bit_length()
        if slots > len(self._slots):
            self._slots = np.full(slots, -1, np.int32)
            _look_up(self._slots, self._keys, 0, self._keys[: self._size], np.empty(self._size, np.int32), True)


class OneText:
    """What the first row of each id holds: the id is in the first ``columns`` of a table, its text in the others."""

    def __init__(self, columns: int = 1) -> None:
        self._columns, self.ids = columns, Numbering()
        self._rows, self._contradictions = Numbering(), Numbering()

    def add(self, *columns: Column) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which rows are the first with their id, which contradict it for the first time, and which do at all.

        (N,) bool each.
        """
        new, rows = self.ids.add(hash_rows(*columns[: self._columns]))[1], hash_rows(*columns)
        wrong = self._rows.add(rows)[1] & ~new
        self._contradictions.add(rows[wrong])
        ever = self._contradictions.find(rows) >= 0 if len(self._contradictions) else wrong
        return new, wrong, ever

    def contradictions(self, *columns: Column) -> np.ndarray:
        """Which rows differ from the first one with their id, (N,) bool."""
        return self.add(*columns)[2]


def keep_known(
    table: pa.Table, rows: np.ndarray, column: str, ids: Numbering, bad: BadRows, place: object
) -> tuple[pa.Table, np.ndarray]:
    """The rows (N,) whose id in ``column`` is among ``ids``; the others are bad."""
    known = ids.find(hash_rows(table[column])) >= 0
    bad.add_where(~known, f"unknown {column}", place, rows, table[column])
    return kept(table, rows, known)
