"""A hash table of words: count the words of folded texts, look their numbers up.

Works on what `_loops.fold` gives, under its rules: words with 0 bytes between them, a 0 after each text.
"""

from __future__ import annotations

from typing import TypeAlias

import numba
import numpy as np

from two_tower.tokenizer._bytes import equal, put

Array: TypeAlias = np.ndarray
ONE = np.uint64(1)

#: Words numbered in the order of their first occurrence: (slots, words, word_starts, counts, size). Word ``i`` is
#: ``words[word_starts[i]:word_starts[i + 1]]``. ``slots`` is an open-addressing table with two uint64 a slot,
#: side by side for one cache miss: the word's hash, and twice its number + 1, plus one if it is longer than
#: 8 bytes (0: the slot is free).
HashTable: TypeAlias = tuple[Array, Array, Array, Array, int]


def empty(bits: int = 12) -> HashTable:
    """A table of no words with ``2 ** bits`` slots; it grows by itself."""
    slots, words = np.zeros(2 << bits, np.uint64), np.zeros(8 << bits, np.uint8)
    return slots, words, np.zeros((1 << bits) + 1, np.int64), np.zeros(1 << bits, np.int64), 0


@numba.njit(nogil=True, cache=True)
def _grown(array: Array, size: int) -> Array:
    """The array if it has room for ``size`` elements, else a copy with twice that room."""
    if size <= len(array):
        return array
    result = np.empty(2 * size, array.dtype)
    put(array, result, 0)
    return result


@numba.njit(nogil=True, cache=True)
def _mixed(h: np.uint64) -> np.uint64:
    """A bijection of 64 bits (each step can be undone) in which every bit depends on every other."""
    h ^= h >> np.uint64(32)
    h *= np.uint64(0x9E3779B97F4A7C15)
    h ^= h >> np.uint64(29)
    h *= np.uint64(0xBF58476D1CE4E5B9)
    return h ^ (h >> np.uint64(32))


@numba.njit(nogil=True, cache=True)
def _scan(folded: Array, hashes: Array, ends: Array, lengths: Array) -> int:
    """Find the words of a folded text, as many as ``hashes`` (uint64), ``ends``, ``lengths`` (int64) can hold.

    Bytes are gathered into blocks of 8, so that mixing costs little per byte, and a word of one block has a
    hash of its own: equal hashes of two short words prove that the words are equal. Returns the number of words.
    """
    n, h, block, size = 0, np.uint64(0), np.uint64(0), 0
    for p in range(len(folded)):
        byte = folded[p]
        if byte != 0:
            if size != 0 and size & 7 == 0:
                h, block = _mixed(h ^ block), np.uint64(0)
            block = (block << np.uint64(8)) | np.uint64(byte)
            size += 1
        elif size != 0:
            if n == len(hashes):
                break
            hashes[n], ends[n], lengths[n] = _mixed(h ^ block), p, size
            n, h, block, size = n + 1, np.uint64(0), np.uint64(0), 0
    return n


@numba.njit(nogil=True, cache=True)
def _scratch(max_words: int) -> tuple[Array, Array, Array]:
    return np.empty(max_words, np.uint64), np.empty(max_words, np.int64), np.empty(max_words, np.int64)


@numba.njit(nogil=True, cache=True)
def _find(slots: Array, words: Array, word_starts: Array, word: Array, h: np.uint64) -> int:
    """Where in ``slots`` a word of hash ``h`` is, or the free slot to put it in."""
    mask = np.uint64(len(slots) - 2)
    is_long = np.uint64(len(word) > 8)
    s = (h << ONE) & mask
    while slots[s + ONE] != 0:
        if slots[s] == h and slots[s + ONE] & ONE == is_long:
            i = int(slots[s + ONE] >> ONE) - 1
            if is_long == 0 or equal(words[word_starts[i] : word_starts[i + 1]], word):
                break
        s = (s + ONE + ONE) & mask
    return int(s)


@numba.njit(nogil=True, cache=True)
def _with_twice_the_slots(slots: Array) -> Array:
    result = np.zeros(2 * len(slots), slots.dtype)
    mask = np.uint64(len(result) - 2)
    for old in range(0, len(slots), 2):
        if slots[old + 1] != 0:
            s = (slots[old] << ONE) & mask
            while result[s + ONE] != 0:
                s = (s + ONE + ONE) & mask
            result[s], result[s + ONE] = slots[old], slots[old + 1]
    return result


@numba.njit(nogil=True, cache=True)
def count(folded: Array, table: HashTable) -> HashTable:
    """Count the words of folded texts; a new word gets the next number. ``table`` must not be used afterwards."""
    slots, words, word_starts, counts, size = table
    hashes, ends, lengths = _scratch(len(folded) // 2)
    for j in range(_scan(folded, hashes, ends, lengths)):
        word = folded[ends[j] - lengths[j] : ends[j]]
        s = _find(slots, words, word_starts, word, hashes[j])
        if slots[s + 1] != 0:
            counts[int(slots[s + 1] >> ONE) - 1] += 1
            continue
        slots[s], slots[s + 1] = hashes[j], np.uint64(2 * (size + 1) + (len(word) > 8))
        first, last = word_starts[size], word_starts[size] + len(word)
        words = _grown(words, last)
        put(word, words, first)
        word_starts, counts = _grown(word_starts, size + 2), _grown(counts, size + 1)
        word_starts[size + 1], counts[size] = last, 1
        size += 1
        if 4 * size > len(slots):  # half of the slots are taken
            slots = _with_twice_the_slots(slots)
    return slots, words, word_starts, counts, size


def spelled(table: HashTable, min_count: int = 1) -> dict[str, int]:
    """The words of a table that were counted at least ``min_count`` times, with their counts."""
    _, words, starts, counts, size = table
    data = words.tobytes()
    frequent = np.flatnonzero(counts[:size] >= min_count)
    return {data[starts[i] : starts[i + 1]].decode(): int(counts[i]) for i in frequent}


@numba.njit(nogil=True, cache=True)
def look_up(folded: Array, starts: Array, table: HashTable, unknown: int, max_tokens: int) -> tuple[Array, Array]:
    """The number of every word of folded texts, ``unknown`` for words that are not in the table.

    Text ``i`` starts at ``starts[i]`` (B + 1,) of ``folded``; its first ``max_tokens`` words are kept. Returns ids and
    offsets as in `Ragged`.
    """
    slots, words, word_starts = table[0], table[1], table[2]
    mask = np.uint64(len(slots) - 2)
    ids, n, offsets = np.empty(len(folded) // 2, np.int32), 0, np.zeros(len(starts), np.int64)
    hashes, ends, lengths = _scratch(min(max_tokens, len(ids)))
    for i in range(len(starts) - 1):
        text = folded[starts[i] : starts[i + 1]]
        n_words = _scan(text, hashes, ends, lengths)
        out = ids[n : n + n_words]
        for j in range(n_words):
            s = (hashes[j] << ONE) & mask
            # Most words are short and in their first slot; `_find` would take a third more time.
            if lengths[j] > 8 or slots[s] != hashes[j] or slots[s + ONE] & ONE != 0:
                word = text[ends[j] - lengths[j] : ends[j]]
                s = np.uint64(_find(slots, words, word_starts, word, hashes[j]))
            entry = slots[s + ONE]
            out[j] = int(entry >> ONE) - 1 if entry != 0 else unknown
        n += n_words
        offsets[i + 1] = n
    return ids[:n].copy(), offsets
