"""The word rules of `tokenizer.json`, and compiled loops that follow them exactly.

    text bytes ─► fold_bytes ─► words with 0 bytes between them ─┬─► _hash_table.count    (training)
                                                                 └─► _hash_table.look_up  (encoding)

A text is normalized (compatibility forms, accents and case folded away), then cut into runs of letters and
digits of any script. With these rules what becomes of a code point never depends on its neighbours, except
for the camel-case rule, which sees only ASCII. So the library is asked once per code point, on first sight,
and its answers are all that the loops need to give the library's words for every text.
"""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numba
import numpy as np
import tokenizers

Array: TypeAlias = np.ndarray

#: ReduceLROnPlateau → Reduce LR On Plateau, HTTPServer → HTTP Server, but neither URLs nor Conv2D is split.
CAMEL = "(?<=[a-z])(?=[A-Z])|(?<=[A-Z0-9])(?=[A-Z](?:[a-rt-z]|s[a-z]))"


def _replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def _split(pattern: str, behavior: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False}


def normalizer(split_camel_case: bool, strip_accents: bool) -> dict[str, Any]:
    """The normalizer; ``strip_accents`` folds compatibility forms too (ﬁ → fi, ２ → 2, ½ → 1 2), else letters stay."""
    steps = [_replace(CAMEL, " ")] if split_camel_case else []
    # Soft hyphens, joiners and byte order marks are invisible and stand inside words of scraped text.
    steps.append(_replace("[\u00ad\u200c\u200d\u2060\ufeff]", ""))
    if strip_accents:
        # NFKD would glue the sign to the name before it: Tylenol™ → tylenoltm.
        steps += [_replace("[™℠]", " "), {"type": "NFKD"}, {"type": "StripAccents"}]
    return {"type": "Sequence", "normalizers": [*steps, {"type": "Lowercase"}]}


#: Both apostrophes separate (don't → don t): "world's" then finds "world". BM25 on 3,000 MS MARCO queries,
#: MRR@10: .661; joined (dont, worlds) .655; possessive s dropped .661, which is not worth a rule.
#: Chinese and Japanese write no blanks: each character is a word.
PRE_TOKENIZER: dict[str, Any] = {
    "type": "Sequence",
    "pretokenizers": [
        _split(r"[^\p{L}\p{N}\p{M}]+", "Removed"),
        _split(r"[\p{Han}\p{Hiragana}\p{Katakana}]", "Isolated"),
    ],
}


def splits_camel_case(definition: Mapping[str, Any]) -> bool:
    """Whether a parsed `tokenizer.json` separates the words of identifiers with `CAMEL`."""
    return definition.get("normalizer") in [normalizer(True, strip) for strip in (False, True)]


def rules(definition: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """The library's tokenizer of a word definition without its words, which take 0.4 s to read when many."""
    no_words = {"type": "WordLevel", "vocab": {}, "unk_token": ""}
    return tokenizers.Tokenizer.from_str(json.dumps({**definition, "model": no_words}))


def is_word_definition(definition: Mapping[str, Any]) -> bool:
    """Whether a parsed `tokenizer.json` has exactly these rules, so that `Folding` gives the library's words.

    False for any other model, normalizer, pre-tokenizer, added token or post-processor: the library encodes.
    """
    model = definition.get("model")
    return (
        isinstance(model, dict)
        and model.get("type") == "WordLevel"
        and definition.get("normalizer") in [normalizer(c, s) for c in (False, True) for s in (False, True)]
        and definition.get("pre_tokenizer") == PRE_TOKENIZER
        and not definition.get("added_tokens")
        and definition.get("post_processor") is None
        and _is_dense(model.get("vocab"))
        and model.get("unk_token") in model["vocab"]
    )


def _is_dense(vocabulary: Any) -> bool:  # noqa: ANN401
    """Whether the ids are 0, 1, 2 … in order and every word can stand between 0 bytes."""
    if not isinstance(vocabulary, dict) or list(vocabulary.values()) != list(range(len(vocabulary))):
        return False
    return "" not in vocabulary and "\0" not in "".join(vocabulary)


def words(library: tokenizers.Tokenizer, text: str) -> list[str]:
    """The library's words (pre-tokens) of a text."""
    split = tokenizers.PreTokenizedString(text)
    if library.normalizer is not None:
        split.normalize(library.normalizer.normalize)
    if library.pre_tokenizer is not None:
        library.pre_tokenizer.pre_tokenize(split)
    return [word for word, _, _ in split.get_splits()]


# The hot loop before word look-up. Every function releases the GIL and uses one thread; callers spread a corpus over
# Python threads. A batch of texts is UTF-8 bytes, one text after another: text ``i`` is
# ``text[starts[i]:starts[i + 1]]``. Loops run over slices from 0: of an index that may be negative numba must check
# the sign, which keeps loops from becoming vector instructions (31,000 passages: 30 ms with offsets, 9 with slices).

REPLACEMENT = 0xFFFD  # stands for bytes that are not UTF-8
#: What becomes of each ASCII character: a letter in lower case, a digit as it is, anything else 0. So do all rules.
ASCII = np.array([ord(chr(c).lower()) if chr(c).isalnum() else 0 for c in range(128)], np.uint8)


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
def _fold_any(text: Array, out: Array, entries: Array, expansions: Array, split_camel_case: bool) -> int:
    """Fold one text byte by byte; returns how many folded bytes it has, or -1 if `entries` lacks something."""
    p, n, complete = 0, 0, True
    while p < len(text):
        byte = text[p]
        if byte < 128:
            if split_camel_case and _is_upper(byte) and _starts_camel_word(text, p):
                out[n] = 0
                n += 1
            out[n] = ASCII[byte]
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
def fold_bytes(
    text: Array, starts: Array, entries: Array, expansions: Array, growth: int, split_camel_case: bool
) -> tuple[Array, Array, bool]:
    """Lower-case, strip and segment texts: each code point becomes 0 or more folded bytes; 0 separates words.

    ``entries`` (0x110000,) uint32 hold ``position << 8 | length + 1`` of each code point's folded bytes in
    ``expansions``, 0 where they are not known yet (ASCII needs none); ``growth`` is the maximum number of folded bytes
    per byte of such a code point. Bytes that are not valid UTF-8 give arbitrary words, never a read out of bounds.

    Returns:
        The folded bytes, a 0 after each text; (B + 1,) int64, where each text starts in them; whether
        ``entries`` has all code points (otherwise the rest is useless, see `_missing`).
    """
    room = _room(text[starts[0] : starts[-1]], growth, split_camel_case)
    out, out_starts = np.empty(room + len(starts), np.uint8), np.zeros(len(starts), np.int64)
    n, complete = 0, True
    for i in range(len(starts) - 1):
        one = text[starts[i] : starts[i + 1]]
        if not split_camel_case and _is_ascii(one):
            _fold_ascii(one, out[n:])
            n += len(one)
        else:
            size = _fold_any(one, out[n:], entries, expansions, split_camel_case)
            complete &= size >= 0
            n += max(size, 0)
        out[n] = 0
        n += 1
        out_starts[i + 1] = n
    return out[:n], out_starts, complete


@numba.njit(nogil=True, cache=True)
def _missing(text: Array, starts: Array, entries: Array) -> Array:
    """(0x110000,) bool: the code points of texts that ``entries`` lacks; arguments as for `fold_bytes`."""
    lacks = np.zeros(len(entries), np.bool_)
    for i in range(len(starts) - 1):
        one, p = text[starts[i] : starts[i + 1]], 0
        while p < len(one):
            code, size = _decode(one, p) if one[p] >= 128 else (0, 1)
            lacks[code] = entries[code] == 0
            p += size
    return lacks


def shared(definition: Mapping[str, Any]) -> Folding:
    """That of the rules of a parsed `tokenizer.json`; tokenizers of the same rules share what was asked already."""
    return _shared(json.dumps({**definition, "model": None}))


@functools.cache
def _shared(definition: str) -> Folding:
    parsed = json.loads(definition)
    return Folding(rules(parsed), splits_camel_case(parsed))


class Folding:
    """What the loops must know of Unicode, asked of a word definition's ``library``: the code points seen so far."""

    # Latin letters, punctuation, currency, arrows: all that most English text ever needs (11 ms).
    _AT_FIRST = (range(0x250), range(0x2000, 0x2200))

    def __init__(self, library: tokenizers.Tokenizer, split_camel_case: bool) -> None:
        self._library, self._split_camel_case = library, split_camel_case
        self._lock = threading.Lock()
        # Replaced as one tuple, never changed in place: other threads may be folding with it.
        self._table = np.zeros(0x110000, np.uint32), np.zeros(0, np.uint8), 1
        for codes in self._AT_FIRST:
            self._learn(codes)

    def __call__(self, text: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The folded bytes of texts, and (B + 1,) int64, where each text starts in them; see `fold_bytes`."""
        while True:
            table = self._table
            folded, folded_starts, complete = fold_bytes(text, starts, *table, self._split_camel_case)
            if complete:
                return folded, folded_starts
            self._learn(np.flatnonzero(_missing(text, starts, table[0])).tolist())

    def _learn(self, codes: Iterable[int]) -> None:
        with self._lock:
            entries, expansions, growth = self._table[0].copy(), [self._table[1].tobytes()], self._table[2]
            position = len(expansions[0])
            for code in codes:
                folded = self._fold_one(code)
                entries[code] = position << 8 | (len(folded) + 1)
                expansions.append(folded)
                position += len(folded)
                # Two bytes is the shortest that a code point beyond ASCII can be.
                growth = max(growth, -(-len(folded) // (2 if code < 0x800 else 3)))
            self._table = entries, np.frombuffer(b"".join(expansions), np.uint8), growth

    def _fold_one(self, code: int) -> bytes:
        """What the library makes of one code point between two digits, which never change or combine."""
        if 0xD800 <= code < 0xE000:  # half of a surrogate pair: only in bytes that are not UTF-8
            return b"\0"
        return "\0".join(words(self._library, f"0{chr(code)}0"))[1:-1].encode()
