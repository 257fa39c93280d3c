"""The hot loop before word look-up: fold texts by the rules that `_folding` has read off the library.

    text bytes ─► fold ─► folded bytes: words with 0 bytes between them ─┬─► _hash_table.count    (training)
                                                                         └─► _hash_table.look_up  (encoding)

Every function releases the GIL and uses one thread; callers spread a corpus over Python threads. A batch of
texts is UTF-8 bytes, one text after another: text ``i`` is ``text[starts[i]:starts[i + 1]]``.

Loops run over slices from 0: of an index that may be negative numba must check the sign, which keeps loops from
becoming vector instructions (folding 31,000 passages: 30 ms with offsets, 9 with slices).
"""

from __future__ import annotations

from typing import TypeAlias

import numba
import numpy as np

Array: TypeAlias = np.ndarray

#: Stands for bytes that are not UTF-8.
REPLACEMENT = 0xFFFD


@numba.njit(nogil=True, cache=True)
def _decode(text: Array, p: int) -> tuple[int, int]:
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
def _is_upper(byte: int) -> bool:
    return 65 <= byte <= 90


@numba.njit(nogil=True, cache=True)
def _is_lower(byte: int) -> bool:
    return 97 <= byte <= 122


@numba.njit(nogil=True, cache=True)
def _starts_camel_word(text: Array, p: int) -> bool:
    """Whether a word of an identifier starts at the capital ``p``; the same rule as `_folding.CAMEL`."""
    if p == 0:
        return False
    before = text[p - 1]
    if _is_lower(before):
        return True
    if not (_is_upper(before) or 48 <= before <= 57) or p + 1 == len(text) or not _is_lower(text[p + 1]):
        return False
    return text[p + 1] != 115 or (p + 2 < len(text) and _is_lower(text[p + 2]))


@numba.njit(nogil=True, cache=True)
def _is_ascii(text: Array) -> bool:
    union = np.uint8(0)
    for p in range(len(text)):
        union |= text[p]
    return bool(union < 128)


@numba.njit(nogil=True, cache=True)
def _fold_ascii(text: Array, out: Array) -> None:
    """A letter in lower case, a digit as it is, anything else 0: so do all rules of `_folding`."""
    for p in range(len(text)):
        byte = text[p]
        lower = byte | np.uint8(32)
        if np.uint8(lower - np.uint8(97)) < np.uint8(26):
            out[p] = lower
        elif np.uint8(byte - np.uint8(48)) < np.uint8(10):
            out[p] = byte
        else:
            out[p] = 0


@numba.njit(nogil=True, cache=True)
def _fold_any(text: Array, out: Array, ascii: Array, entries: Array, expansions: Array, split_camel_case: bool) -> int:
    """Fold one text byte by byte; returns how many folded bytes it has, or -1 if `entries` lacks something."""
    p, n, complete = 0, 0, True
    while p < len(text):
        byte = text[p]
        if byte < 128:
            if split_camel_case and _is_upper(byte) and _starts_camel_word(text, p):
                out[n] = 0
                n += 1
            out[n] = ascii[byte]
            n += 1
            p += 1
            continue
        code, size = _decode(text, p)
        p += size
        entry = int(entries[code])
        complete &= entry != 0
        for k in range(entry >> 8, (entry >> 8) + (entry & 0xFF) - 1):
            out[n] = expansions[k]
            n += 1
    return n if complete else -1


@numba.njit(nogil=True, cache=True)
def _room(text: Array, growth: int, split_camel_case: bool) -> int:
    """Bytes that hold any folding of these texts."""
    high = 0
    for p in range(len(text)):
        high += text[p] >= 128
    return (len(text) - high) * (2 if split_camel_case else 1) + high * growth


@numba.njit(nogil=True, cache=True)
def fold(
    text: Array, starts: Array, entries: Array, expansions: Array, growth: int, split_camel_case: bool
) -> tuple[Array, Array, bool]:
    """Lower-case, strip and segment texts: each code point becomes 0 or more folded bytes.

    Args:
        text: uint8, UTF-8; bytes that are not valid UTF-8 give arbitrary words, never a read out of bounds.
        starts: (B + 1,) int64, where each text starts in ``text``.
        entries: (0x110000,) uint32, per code point ``position << 8 | length + 1`` of its folded bytes; 0
            where they are not known yet; not used for ASCII.
        expansions: uint8, the folded bytes of all known code points; 0 separates words.
        growth: maximum number of folded bytes per byte of a code point in ``entries``.
        split_camel_case: also separate the words of an identifier.

    Returns:
        The folded bytes, a 0 after each text; (B + 1,) int64, where each text starts in them; whether
        ``entries`` has all code points (otherwise the rest is useless, see `missing`).
    """
    ascii = np.empty(128, np.uint8)
    _fold_ascii(np.arange(128).astype(np.uint8), ascii)
    room = _room(text[starts[0] : starts[-1]], growth, split_camel_case)
    out, out_starts = np.empty(room + len(starts), np.uint8), np.zeros(len(starts), np.int64)
    n, complete = 0, True
    for i in range(len(starts) - 1):
        one = text[starts[i] : starts[i + 1]]
        if not split_camel_case and _is_ascii(one):
            _fold_ascii(one, out[n:])
            n += len(one)
        else:
            size = _fold_any(one, out[n:], ascii, entries, expansions, split_camel_case)
            complete &= size >= 0
            n += max(size, 0)
        out[n] = 0
        n += 1
        out_starts[i + 1] = n
    return out[:n], out_starts, complete


@numba.njit(nogil=True, cache=True)
def missing(text: Array, starts: Array, entries: Array) -> Array:
    """(0x110000,) bool: the code points of texts that ``entries`` lacks; arguments as for `fold`."""
    lacks = np.zeros(len(entries), np.bool_)
    for i in range(len(starts) - 1):
        one, p = text[starts[i] : starts[i + 1]], 0
        while p < len(one):
            code, size = _decode(one, p) if one[p] >= 128 else (0, 1)
            lacks[code] = entries[code] == 0
            p += size
    return lacks
