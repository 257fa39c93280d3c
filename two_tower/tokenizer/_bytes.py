"""What compiled loops over bytes share."""

from __future__ import annotations

from typing import TypeAlias

import numba
import numpy as np

Array: TypeAlias = np.ndarray

REPLACEMENT = 0xFFFD  # stands for bytes that are not UTF-8


@numba.njit(nogil=True, cache=True)
def decode(text: Array, p: int) -> tuple[int, int]:
    """The code point at ``p``, a byte >= 0x80, and its length; in broken UTF-8 it never reads past the end."""
    lead = int(text[p])
    size = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    if p + size > len(text):
        return REPLACEMENT, len(text) - p
    code = lead & (0x7F >> size)
    for k in range(1, size):
        code = (code << 6) | (int(text[p + k]) & 0x3F)
    return (code if code <= 0x10FFFF else REPLACEMENT), size


@numba.njit(nogil=True, cache=True)
def equal(a: Array, b: Array) -> bool:
    if len(a) != len(b):
        return False
    for k in range(len(a)):  # noqa: SIM110  (numba takes no generator)
        if a[k] != b[k]:
            return False
    return True


@numba.njit(nogil=True, cache=True)
def put(array: Array, out: Array, n: int) -> int:
    """Copy to place ``n`` of ``out``, return where the copy ends; numba takes seconds to compile it with a slice."""
    for element in array:
        out[n] = element
        n += 1
    return n
