"""Numbers for distinct things in the order in which they first come, known by 64-bit hashes."""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["Numbering"]


@numba.njit(nogil=True, cache=True)
def _free_or_equal(slots: np.ndarray, keys: np.ndarray, key: np.uint64) -> np.uint64:
    mask = np.uint64(len(slots) - 1)
    slot = key & mask
    while slots[slot] >= 0 and keys[slots[slot]] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


@numba.njit(nogil=True, cache=True)
def _number(slots: np.ndarray, keys: np.ndarray, size: int, asked: np.ndarray, numbers: np.ndarray) -> int:
    for row in range(len(asked)):
        slot = _free_or_equal(slots, keys, asked[row])
        if slots[slot] < 0:
            keys[size] = asked[row]
            slots[slot] = size
            size += 1
        numbers[row] = slots[slot]
    return size


@numba.njit(nogil=True, cache=True)
def _find(slots: np.ndarray, keys: np.ndarray, asked: np.ndarray, numbers: np.ndarray) -> None:
    for row in range(len(asked)):
        numbers[row] = slots[_free_or_equal(slots, keys, asked[row])]


@numba.njit(nogil=True, cache=True)
def _place_all(slots: np.ndarray, keys: np.ndarray, size: int) -> None:
    for row in range(size):
        slots[_free_or_equal(slots, keys, keys[row])] = row


class Numbering:
    """Numbers keys 0, 1, 2 … as they come; at most 24 bytes a key (an open-addressing table, up to 2/3 full)."""

    def __init__(self) -> None:
        self._slots = np.full(1024, -1, np.int32)
        self._keys = np.empty(0, np.uint64)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number the keys that are new.

        Args:
            keys: (K,) uint64.

        Returns:
            The number of each key, (K,) int32, and whether it came here for the first time, (K,) bool.
        """
        before = self._size
        self._reserve(before + len(keys))
        numbers = np.empty(len(keys), np.int32)
        self._size = _number(self._slots, self._keys, before, keys, numbers)
        new = np.zeros(len(keys), bool)
        distinct, first = np.unique(numbers, return_index=True)
        new[first[distinct >= before]] = True
        return numbers, new

    def find(self, keys: np.ndarray) -> np.ndarray:
        """The number of each key, (K,) int32; -1 for those that never came."""
        numbers = np.empty(len(keys), np.int32)
        _find(self._slots, self._keys, keys, numbers)
        return numbers

    def _reserve(self, size: int) -> None:
        if size > len(self._keys):
            room = np.empty(max(size, len(self._keys) * 3 // 2), np.uint64)
            room[: self._size] = self._keys[: self._size]
            self._keys = room
        if size * 3 > len(self._slots) * 2:
            slots = len(self._slots)
            while size * 3 > slots * 2:
                slots *= 2
            self._slots = np.full(slots, -1, np.int32)
            _place_all(self._slots, self._keys, self._size)
