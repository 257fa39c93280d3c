"""The hot loops of word tokenisation: fold text, count words, look words up. No Unicode rule lives here.

    text bytes ─► fold ─► folded bytes: words with 0 bytes between them ─┬─► count    (training)
                                                                         └─► look_up  (encoding)

Every function releases the GIL and uses one thread; callers spread a corpus over Python threads. A batch of
texts is UTF-8 bytes, one text after another: text ``i`` is ``text[starts[i]:starts[i + 1]]``.
"""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["Table", "count", "empty_table", "fold", "look_up"]

#: Most missing code points that one call of `fold` reports: the first text in another script has many.
MISSING = 1 << 16
#: Stands for bytes that are not UTF-8.
REPLACEMENT = 0xFFFD
#: ASCII bytes folded at once.
BLOCK = 16

#: A set of words, numbered as they came: (slots, words, word_starts, counts, size). Word ``i`` is
#: ``words[word_starts[i]:word_starts[i + 1]]``. ``slots`` is an open-addressing table with two uint64 a slot,
#: side by side for one cache miss: the word's hash, and twice its number + 1, plus one if it is longer than
#: 8 bytes (0: the slot is free).
Table = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]


def empty_table(bits: int = 12) -> Table:
    """A table of no words with ``2 ** bits`` slots; it grows by itself."""
    slots, words = np.zeros(2 << bits, np.uint64), np.zeros(8 << bits, np.uint8)
    return slots, words, np.zeros((1 << bits) + 1, np.int64), np.zeros(1 << bits, np.int64), 0


@numba.njit(nogil=True, cache=True)
def _grown(array: np.ndarray, size: int) -> np.ndarray:
    """The array if it has room for ``size`` elements, else a copy with twice that room."""
    if size <= len(array):
        return array
    result = np.empty(2 * size, array.dtype)
    result[: len(array)] = array
    return result


@numba.njit(nogil=True, cache=True)
def _decode(text: np.ndarray, p: int, end: int) -> tuple[int, int]:
    """The code point at ``p``, a byte >= 0x80, and its length; whatever the bytes, never reads past ``end``."""
    lead = int(text[p])
    size = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    if p + size > end:
        return REPLACEMENT, end - p
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
def _starts_camel_word(text: np.ndarray, p: int, start: int, end: int) -> bool:
    """Whether a word of an identifier starts at the capital ``p``; the same rule as `folding.CAMEL`."""
    if p == start:
        return False
    before = text[p - 1]
    if _is_lower(before):
        return True
    if not (_is_upper(before) or 48 <= before <= 57) or p + 1 == end or not _is_lower(text[p + 1]):
        return False
    return text[p + 1] != 115 or (p + 2 < end and _is_lower(text[p + 2]))


@numba.njit(nogil=True, cache=True)
def _fold_ascii(byte: np.uint8) -> np.uint8:
    """A letter in lower case, a digit as it is, anything else 0: so do all rules of `folding`."""
    lower = byte | np.uint8(32)
    if np.uint8(lower - np.uint8(97)) < np.uint8(26):
        return lower
    return byte if np.uint8(byte - np.uint8(48)) < np.uint8(10) else np.uint8(0)


@numba.njit(nogil=True, cache=True)
def _fold_block(text: np.ndarray, p: int, out: np.ndarray, n: int, split_camel_case: bool) -> bool:
    """Fold `BLOCK` bytes at once if all are ASCII and no capital could start a word inside an identifier.

    Loops of a fixed length without branches become vector instructions: folding takes 26 ms for 31,000
    passages instead of 65.
    """
    high, capitals = np.uint8(0), np.uint8(0)
    for k in range(BLOCK):
        high |= text[p + k]
        capitals |= np.uint8(np.uint8(text[p + k] - np.uint8(65)) < np.uint8(26))
    if high >= 128 or (split_camel_case and capitals != 0):
        return False
    for k in range(BLOCK):
        out[n + k] = _fold_ascii(text[p + k])
    return True


@numba.njit(nogil=True, cache=True)
def fold(
    text: np.ndarray, starts: np.ndarray, entries: np.ndarray, expansions: np.ndarray, split_camel_case: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower-case, strip and segment texts: each code point becomes 0 or more folded bytes.

    Args:
        text: uint8, UTF-8; bytes that are not valid UTF-8 give arbitrary words, never a read out of bounds.
        starts: (B + 1,) int64, where each text starts in ``text``.
        entries: (0x110000,) uint32, per code point ``position << 8 | length + 1`` of its folded bytes; 0
            where they are not known yet; not used for ASCII.
        expansions: uint8, the folded bytes of all known code points; 0 separates words.
        split_camel_case: also separate the words of an identifier.

    Returns:
        The folded bytes, a 0 after each text; (B + 1,) int64, where each text starts in them; code points
        that ``entries`` lacks (int32, with repetitions): if there are any, the rest is useless.
    """
    missing, n_missing = np.empty(MISSING, np.int32), 0
    widest = 2 if split_camel_case else 1  # folded bytes per ASCII byte; expansions make room for themselves
    out, n = np.empty(widest * (starts[-1] - starts[0]) + len(starts), np.uint8), 0
    out_starts = np.zeros(len(starts), np.int64)
    for i in range(len(starts) - 1):
        start, end = starts[i], starts[i + 1]
        p = start
        out = _grown(out, n + widest * (end - p) + 1)
        while p < end:
            if p + BLOCK <= end and _fold_block(text, p, out, n, split_camel_case):
                p += BLOCK
                n += BLOCK
                continue
            byte = text[p]
            if byte < 128:
                if split_camel_case and _is_upper(byte) and _starts_camel_word(text, p, start, end):
                    out[n] = 0
                    n += 1
                out[n] = _fold_ascii(byte)
                n += 1
                p += 1
                continue
            code, size = _decode(text, p, end)
            p += size
            entry = np.int64(entries[code])
            if entry == 0:
                missing[min(n_missing, MISSING - 1)] = code
                n_missing += 1
                continue
            first, stop = entry >> 8, (entry >> 8) + (entry & 0xFF) - 1
            out = _grown(out, n + stop - first + widest * (end - p) + 1)
            out[n : n + stop - first] = expansions[first:stop]
            n += stop - first
        out[n] = 0
        n += 1
        out_starts[i + 1] = n
    return out[:n], out_starts, missing[: min(n_missing, MISSING)]


@numba.njit(nogil=True, cache=True)
def _mixed(h: np.uint64) -> np.uint64:
    """A bijection of 64 bits (each step can be undone) in which every bit depends on every other."""
    h ^= h >> np.uint64(32)
    h *= np.uint64(0x9E3779B97F4A7C15)
    h ^= h >> np.uint64(29)
    h *= np.uint64(0xBF58476D1CE4E5B9)
    return h ^ (h >> np.uint64(32))


@numba.njit(nogil=True, cache=True)
def _hash(folded: np.ndarray, start: int) -> tuple[np.uint64, int]:
    """The hash of the word that starts here, and where it stops.

    Bytes are gathered into blocks of 8, so that mixing costs little per byte, and a word of one block has a
    hash of its own: equal hashes of two short words prove that the words are equal.
    """
    h, block, p = np.uint64(0), np.uint64(0), start
    while folded[p] != 0:
        if p > start and (p - start) & 7 == 0:
            h, block = _mixed(h ^ block), np.uint64(0)
        block = (block << np.uint64(8)) | np.uint64(folded[p])
        p += 1
    return _mixed(h ^ block), p


@numba.njit(nogil=True, cache=True)
def _equal(words: np.ndarray, first: int, last: int, folded: np.ndarray, start: int, stop: int) -> bool:
    k = 0
    while first + k < last and start + k < stop and words[first + k] == folded[start + k]:
        k += 1
    return first + k == last and start + k == stop


@numba.njit(nogil=True, cache=True)
def _find(table: Table, folded: np.ndarray, start: int, stop: int, h: np.uint64) -> int:
    """Where in ``slots`` the word ``folded[start:stop]`` of hash ``h`` is, or the free slot to put it in."""
    slots, words, word_starts = table[0], table[1], table[2]
    mask = len(slots) - 2
    is_long = np.uint64(stop - start > 8)
    s = int(h << np.uint64(1)) & mask
    while slots[s + 1] != 0:
        if slots[s] == h and slots[s + 1] & np.uint64(1) == is_long:
            i = int(slots[s + 1] >> np.uint64(1)) - 1
            if is_long == 0 or _equal(words, word_starts[i], word_starts[i + 1], folded, start, stop):
                return s
        s = (s + 2) & mask
    return s


@numba.njit(nogil=True, cache=True)
def _with_twice_the_slots(slots: np.ndarray) -> np.ndarray:
    result = np.zeros(2 * len(slots), slots.dtype)
    mask = len(result) - 2
    for old in range(0, len(slots), 2):
        if slots[old + 1] != 0:
            s = int(slots[old] << np.uint64(1)) & mask
            while result[s + 1] != 0:
                s = (s + 2) & mask
            result[s], result[s + 1] = slots[old], slots[old + 1]
    return result


@numba.njit(nogil=True, cache=True)
def count(folded: np.ndarray, table: Table) -> Table:
    """Count the words of folded texts into a table; a new word gets the next number.

    Args:
        folded: uint8, as `fold` gives them.
        table: from `empty_table` or an earlier call; its arrays change, use only the result afterwards.
    """
    slots, words, word_starts, counts, size = table
    p = 0
    while p < len(folded):
        if folded[p] == 0:
            p += 1
            continue
        start = p
        h, p = _hash(folded, start)
        s = _find((slots, words, word_starts, counts, size), folded, start, p, h)
        if slots[s + 1] != 0:
            counts[int(slots[s + 1] >> np.uint64(1)) - 1] += 1
            continue
        slots[s], slots[s + 1] = h, np.uint64(2 * (size + 1) + (p - start > 8))
        first, last = word_starts[size], word_starts[size] + p - start
        words = _grown(words, last)
        words[first:last] = folded[start:p]
        word_starts, counts = _grown(word_starts, size + 2), _grown(counts, size + 1)
        word_starts[size + 1], counts[size] = last, 1
        size += 1
        if 4 * size > len(slots):  # half of the slots are taken
            slots = _with_twice_the_slots(slots)
    return slots, words, word_starts, counts, size


@numba.njit(nogil=True, cache=True)
def look_up(
    folded: np.ndarray, starts: np.ndarray, table: Table, unknown: int, max_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """The number of every word of folded texts.

    Args:
        folded: uint8, as `fold` gives them.
        starts: (B + 1,) int64, where each text starts in ``folded``.
        table: the words; a word's number is its id.
        unknown: id of the words that are not in the table.
        max_tokens: words kept per text.

    Returns:
        ids (T,) int32 and offsets (B + 1,) int64, as in `two_tower.ragged.Ragged`.
    """
    slots = table[0]
    ids, n = np.empty(len(folded) // 2 + 1, np.int32), 0
    offsets = np.zeros(len(starts), np.int64)
    for i in range(len(starts) - 1):
        p, last = starts[i], n + min(max_tokens, len(ids))
        while p < starts[i + 1] and n < last:
            if folded[p] == 0:
                p += 1
                continue
            start = p
            h, p = _hash(folded, start)
            s = _find(table, folded, start, p, h)
            ids[n] = int(slots[s + 1] >> np.uint64(1)) - 1 if slots[s + 1] != 0 else unknown
            n += 1
        offsets[i + 1] = n
    return ids[:n].copy(), offsets
