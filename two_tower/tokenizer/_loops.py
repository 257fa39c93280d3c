"""Compiled loops over the bytes of texts: fold what the library was asked about, and find what it must be asked.

Every function releases the GIL and uses one thread; callers spread a corpus over Python threads. A batch of texts is
UTF-8 bytes, one text after another: text ``i`` is ``text[starts[i]:starts[i + 1]]``. Loops run over slices from 0: of
an index that may be negative numba must check the sign, which keeps loops from becoming vector instructions (31,000
passages: 30 ms with offsets, 9 with slices).
"""

from __future__ import annotations

from typing import TypeAlias

import numba
import numpy as np

from two_tower.tokenizer import _pairs as pairs
from two_tower.tokenizer._bytes import decode, equal, put

Array: TypeAlias = np.ndarray

#: What becomes of each ASCII character: a letter in lower case, a digit as it is, anything else 0. So do all rules.
ASCII = np.array([ord(chr(c).lower()) if chr(c).isalnum() else 0 for c in range(128)], np.uint8)

#: What becomes of some strings: (slots, keys, starts, folded, folded_starts). String ``i`` is
#: ``keys[starts[i]:starts[i + 1]]``, its folded bytes likewise; ``slots`` hold i + 1 in an open-addressing table.
Strings: TypeAlias = tuple[Array, Array, Array, Array, Array]
#: What the loops know of Unicode: (expansions, entries, clusters, symbols, growth). ``entries`` (0x110000,) uint32
#: hold ``position << 8 | length + 1`` of each code point's folded bytes in ``expansions``, 0 where they are not known
#: yet (ASCII needs none), `EXTENDS` for what belongs to the letter before it; ``clusters`` are letters with such marks,
#: ``symbols`` texts without a word; ``growth`` is the maximum number of folded bytes per byte that is not ASCII.
Table: TypeAlias = tuple[Array, Array, Strings, Strings, int]
EXTENDS = 1 << 8


@numba.njit(nogil=True, cache=True)
def _is_upper(byte: int) -> bool:
    return 65 <= byte <= 90


@numba.njit(nogil=True, cache=True)
def _is_lower(byte: int) -> bool:
    return 97 <= byte <= 122


@numba.njit(nogil=True, cache=True)
def _starts_camel_word(text: Array, p: int) -> bool:
    """Whether a word of an identifier starts at the capital ``p``; the same rule as `CAMEL`."""
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
    """As `ASCII`, in vector instructions."""
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
def _hash(key: Array) -> np.uint64:
    h = np.uint64(len(key))
    for byte in key:
        h = (h ^ np.uint64(byte)) * np.uint64(0x100000001B3)
        h ^= h >> np.uint64(29)
    return h


@numba.njit(nogil=True, cache=True)
def _find(key: Array, slots: Array, keys: Array, starts: Array) -> tuple[int, int]:
    """The number of a string, -1 if it is not known, and the slot where it is or would be."""
    mask = np.uint64(len(slots) - 1)
    s = _hash(key) & mask
    while slots[s] != 0:
        i = int(slots[s]) - 1
        if equal(keys[starts[i] : starts[i + 1]], key):
            return i, int(s)
        s = (s + np.uint64(1)) & mask
    return -1, int(s)


@numba.njit(nogil=True, cache=True)
def filled(keys: Array, starts: Array) -> Array:
    """The slots of strings that are all different."""
    size = 16
    while size < 2 * len(starts):
        size *= 2
    slots = np.zeros(size, np.int32)
    for i in range(len(starts) - 1):
        slots[_find(keys[starts[i] : starts[i + 1]], slots, keys, starts)[1]] = i + 1
    return slots


@numba.njit(nogil=True, cache=True)
def _put_string(key: Array, strings: Strings, out: Array, n: int) -> int:
    """Append the folded bytes of a string; -1 if it is not known."""
    slots, keys, starts, folded, folded_starts = strings
    i = _find(key, slots, keys, starts)[0]
    return -1 if i < 0 else put(folded[folded_starts[i] : folded_starts[i + 1]], out, n)


@numba.njit(nogil=True, cache=True)
def _cluster_end(text: Array, p: int, entries: Array) -> int:
    """Where the marks end that stand at ``p``."""
    while p < len(text) and text[p] >= 128:
        code, size = decode(text, p)
        if entries[code] != EXTENDS:
            break
        p += size
    return p


@numba.njit(nogil=True, cache=True)
def _fold_any(text: Array, out: Array, table: Table, split_camel_case: bool) -> int:
    """Fold one text byte by byte; returns how many folded bytes it has, or -1 if the table lacks something."""
    expansions, entries, clusters = table[0], table[1], table[2]
    p, n, complete = 0, 0, True
    base, base_n = 0, 0  # where the last code point that is no mark begins, and its folded bytes
    while p < len(text):
        byte = text[p]
        if byte < 128:
            if split_camel_case and _is_upper(byte) and _starts_camel_word(text, p):
                out[n] = 0
                n += 1
            base, base_n = p, n
            out[n] = ASCII[byte]
            n += 1
            p += 1
            continue
        code, size = decode(text, p)
        entry = int(entries[code])
        if entry == EXTENDS:
            p = _cluster_end(text, p, entries)
            n = _put_string(text[base:p], clusters, out, base_n)
            complete &= n >= 0
            n = max(n, base_n)
        else:
            base, base_n = p, n
            if entry == 0:
                complete = False
            else:
                n = put(expansions[entry >> 8 : (entry >> 8) + (entry & 0xFF) - 1], out, n)
            p += size
    return n if complete else -1


@numba.njit(nogil=True, cache=True)
def _has_words(folded: Array) -> bool:
    for byte in folded:  # noqa: SIM110  (numba takes no generator)
        if byte != 0:
            return True
    return False


@numba.njit(nogil=True, cache=True)
def fold(text: Array, starts: Array, table: Table, split_camel_case: bool, kinds: Array) -> tuple[Array, Array, Array]:
    """Fold and segment texts: each code point becomes 0 or more folded bytes; 0 separates words.

    ``kinds`` are those of `_pairs`, empty if the rule makes no pairs. Bytes that are not valid UTF-8 give arbitrary
    words, never a read out of bounds.

    Returns:
        The folded bytes, a 0 after each text; (B + 1,) int64, where each text starts in them; (B,) bool, of which texts
        the table lacks something: they are empty in the result.
    """
    high = 0
    for byte in text[starts[0] : starts[-1]]:
        high += byte >= 128
    # After an ASCII character there may be a 0: in camel case, or where symbols are words.
    room = 2 * (int(starts[-1] - starts[0]) - high) + high * table[4] + len(starts)
    in_pairs = len(kinds) > 0
    out, out_starts = np.empty(4 * room if in_pairs else room, np.uint8), np.zeros(len(starts), np.int64)
    scratch, lacking = np.empty(room if in_pairs else 0, np.uint8), np.zeros(len(starts) - 1, np.bool_)
    n = 0
    for i in range(len(starts) - 1):
        one, place = text[starts[i] : starts[i + 1]], out[n:]
        if not split_camel_case and _is_ascii(one):
            _fold_ascii(one, place)
            size = len(one)
        elif in_pairs:
            size = _fold_any(one, scratch, table, split_camel_case)
            size = pairs.cut(scratch[:size], place, kinds) if size >= 0 else size
        else:
            size = _fold_any(one, place, table, split_camel_case)
        if size > 0 and not _has_words(place[:size]):  # perhaps it has symbols
            size = _put_string(one, table[3], place, 0)
        lacking[i] = size < 0
        n += max(size, 0)
        out[n] = 0
        n += 1
        out_starts[i + 1] = n
    return out[:n], out_starts, lacking


@numba.njit(nogil=True, cache=True)
def code_points(text: Array) -> Array:
    codes, n, p = np.empty(len(text), np.int64), 0, 0
    while p < len(text):
        code, size = decode(text, p) if text[p] >= 128 else (int(text[p]), 1)
        codes[n] = code
        n += 1
        p += size
    return codes[:n]


@numba.njit(nogil=True, cache=True)
def clusters(text: Array, entries: Array) -> Array:
    """(C, 2) int64, where the letters with marks begin and end."""
    spans, n, p, base = np.empty((len(text), 2), np.int64), 0, 0, 0
    while p < len(text):
        end = _cluster_end(text, p, entries)
        if end > p:
            spans[n, 0], spans[n, 1] = base, end
            n, p = n + 1, end
        else:
            base = p
            p += decode(text, p)[1] if text[p] >= 128 else 1
    return spans[:n]
