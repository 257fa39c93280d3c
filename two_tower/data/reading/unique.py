"""Rows that came before, known by 64-bit hashes of their text: 10 to 20 bytes each, however long the texts are.

Two of 8.8 million different texts share a hash in one of 500,000 collections.
"""

from __future__ import annotations

from pathlib import Path

import numba
import numpy as np
import pyarrow as pa

from two_tower.data.reading.archive import Member
from two_tower.data.reading.rows import BadRows

__all__ = ["HashSet", "OneText", "Unique", "hash_rows", "keep_known"]

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
    """Mix the texts into ``hashes`` (N,) uint64, eight bytes at a time (MurmurHash64A)."""
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


def hash_rows(*columns: pa.ChunkedArray) -> np.ndarray:
    """(N,) uint64: a hash of each row; the same in every process.

    Args:
        columns: (N,) strings, or what has a text form, without nulls; where one column's text ends and the next
            one's begins matters.
    """
    hashes = np.full(len(columns[0]), _SEED)
    for column in columns:
        row = 0
        for chunk in column.cast(pa.string()).chunks:
            _, offsets, data = chunk.buffers()
            if len(chunk):
                _hash_column(
                    np.frombuffer(data or b"", np.uint8),
                    np.frombuffer(offsets, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1],
                    hashes[row : row + len(chunk)],
                )
            row += len(chunk)
    return hashes


@numba.njit(nogil=True, cache=True)
def _place(table: np.ndarray, key: np.uint64) -> np.uint64:
    """Where ``key`` is, or the free slot (0) where it belongs."""
    mask = np.uint64(len(table) - 1)
    slot = key & mask
    while table[slot] != 0 and table[slot] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


@numba.njit(nogil=True, cache=True)
def _insert(table: np.ndarray, keys: np.ndarray, known: np.ndarray) -> int:
    added = 0
    for row in range(len(keys)):
        slot = _place(table, keys[row])
        known[row] = table[slot] != 0
        if not known[row]:
            table[slot] = keys[row]
            added += 1
    return added


@numba.njit(nogil=True, cache=True)
def _look_up(table: np.ndarray, keys: np.ndarray, known: np.ndarray) -> None:
    for row in range(len(keys)):
        known[row] = table[_place(table, keys[row])] != 0


class HashSet:
    """A growing set of 64-bit hashes: a table with open addressing, at most 5/8 full.

    The 8.8 million hashes of a large collection take 1.8 s and 134 MB.
    """

    def __init__(self) -> None:
        self._table = np.zeros(1024, np.uint64)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def contains(self, keys: np.ndarray) -> np.ndarray:
        """Which of ``keys`` (K,) uint64 are in the set: (K,) bool."""
        known = np.empty(len(keys), bool)
        _look_up(self._table, _nonzero(keys), known)
        return known

    def add(self, keys: np.ndarray) -> np.ndarray:
        """Put ``keys`` (K,) uint64 in; returns (K,) bool: which were there before, or earlier among them."""
        while (self._size + len(keys)) * 8 > len(self._table) * 5:
            self._grow()
        known = np.empty(len(keys), bool)
        self._size += _insert(self._table, _nonzero(keys), known)
        return known

    def _grow(self) -> None:
        old, self._table = self._table, np.zeros(2 * len(self._table), np.uint64)
        _insert(self._table, old[old != 0], np.empty(len(old), bool))


def _nonzero(keys: np.ndarray) -> np.ndarray:
    return np.maximum(keys, np.uint64(1))  # 0 marks a free slot


class Unique:
    """Lets the first row of each key pass.

    Args:
        key: the key is the first ``key`` columns.

    Attributes:
        keys: hashes of the keys that passed.
    """

    def __init__(self, key: int) -> None:
        self.key, self.keys, self._rows = key, HashSet(), HashSet()

    def filter(self, table: pa.Table, rows: np.ndarray, bad: BadRows, path: Path | Member | str, kind: str) -> pa.Table:
        """Leave out rows whose key came before; those that differ in another column from all before are bad.

        Args:
            table: (N,) rows of text columns.
            rows: (N,) their line numbers.
            bad: takes the bad rows.
            path: their file.
            kind: what to count them as.
        """
        again = self.keys.add(hash_rows(*table.columns[: self.key]))
        different = again & ~self._rows.add(hash_rows(*table.columns))
        for row in np.flatnonzero(different):
            bad.add(kind, path, int(rows[row]), table[0][int(row)].as_py())
        return table.filter(pa.array(~again)) if again.any() else table


class OneText:
    """Finds rows whose id came before with another text; unlike with `Unique`, repeated rows are good."""

    def __init__(self) -> None:
        self._ids, self._rows, self._contradictions = HashSet(), HashSet(), HashSet()

    def contradictions(self, ids: pa.ChunkedArray, *texts: pa.ChunkedArray) -> np.ndarray:
        """Which rows differ from the first one with their id, (N,) bool.

        Args:
            ids: (N,) ids.
            texts: (N,) columns in which rows with the same id must be equal.
        """
        rows = hash_rows(ids, *texts)
        again = self._ids.add(hash_rows(ids))
        self._contradictions.add(rows[again & ~self._rows.add(rows)])
        return self._contradictions.contains(rows)


def keep_known(
    table: pa.Table, rows: np.ndarray, column: str, ids: HashSet | None, bad: BadRows, path: Path | Member | str
) -> tuple[pa.Table, np.ndarray]:
    """The rows (N,) whose id in ``column`` is among ``ids``; the others are bad. All where ``ids`` is None."""
    known = np.ones(len(table), bool) if ids is None else ids.contains(hash_rows(table[column]))
    for row in np.flatnonzero(~known):
        bad.add(f"unknown {column}", path, int(rows[row]), table[column][int(row)].as_py())
    return (table, rows) if known.all() else (table.filter(pa.array(known)), rows[known])
