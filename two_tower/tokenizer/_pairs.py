"""Words of scripts that are written without blanks: each letter, with its marks, and the letter after it.

Overlapping pairs need no dictionary, are the same in a query and in a passage, and find a word within a longer one;
Chinese, Japanese and Korean search engines have used them for decades (Lucene's `CJKBigramFilter`). A Han or Hangul
letter is often a word, so it is one as well: 猫が好き → 猫, 猫が, が好, 好, 好き; ข้าว → ข้า, าว.

`tokenizers` has no step that gives a letter twice, except the tables of normal forms of SentencePiece models
(``Precompiled``). With one, 猫 becomes 猫|猫|猫, and が becomes が|が; what remains is to delete the halves of pairs at
both ends of a run. The compiled loop does the same with less ado; a test holds them equal.
"""

from __future__ import annotations

import base64
import functools
import struct
from typing import Any, TypeAlias

import numba
import numpy as np
import tokenizers

from two_tower.tokenizer._bytes import decode, put

Array: TypeAlias = np.ndarray

HALVES, JOINT = "\ue000", "\ue001"  # stand between copies of a letter, and between letters of a run
# Letters in pairs; Thai, Lao, Khmer, Burmese, kana.
_PAIRED = (
    (0xE01, 0xE30), (0xE32, 0xE32), (0xE40, 0xE46), (0xE81, 0xEB0), (0xEB2, 0xEB2), (0xEBD, 0xEBD), (0xEC0, 0xEC6),
    (0xEDC, 0xEDF), (0x1000, 0x102A), (0x103F, 0x103F), (0x1050, 0x1055), (0x105A, 0x105D), (0x1061, 0x1061),
    (0x1065, 0x1066), (0x106E, 0x1070), (0x1075, 0x1081), (0x108E, 0x108E), (0x1780, 0x17B3), (0x17D7, 0x17D7),
    (0x17DC, 0x17DC), (0x3041, 0x3096), (0x309D, 0x309E), (0x30A1, 0x30FA), (0x30FC, 0x30FE), (0x31F0, 0x31FF),
)  # fmt: skip
# Letters that are words, too: Han, Hangul.
_WORDS = ((0x3005, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3))
_LETTER = "[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in (*_PAIRED, *_WORDS)) + "]"
WORD = rf"{_LETTER}\p{{M}}*{_LETTER}?"
#: Marks of two bytes belong to other scripts, and the library's table loses them behind letters of three.
FOREIGN_MARKS = rf"(?<={_LETTER})[\u0300-\u07ff&&\p{{M}}]+"


@functools.cache
def normalizers() -> list[dict[str, Any]]:
    """The steps of a `tokenizer.json` after which every pair is a word of its own."""
    steps = (
        (rf"{_LETTER}\p{{M}}*\K(?={_LETTER})", JOINT),
        (f"(?<![{JOINT}{HALVES}]){_LETTER}{HALVES}", " "),
        (rf"{HALVES}{_LETTER}\p{{M}}*+(?![{JOINT}{HALVES}])", " "),
        (JOINT, ""),
    )
    joined, *cleaned = ({"type": "Replace", "pattern": {"Regex": p}, "content": content} for p, content in steps)
    return [joined, {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(_copies()).decode()}, *cleaned]


def _copies() -> bytes:
    """SentencePiece's table of what replaces each letter: a double array of the letters' bytes, then the texts.

    The layout is Darts-clone's: a unit holds a byte and the way to the block of units of the next one. Where a word
    ends, the way leads to one more unit with the word's value, here the place of its text.
    """
    texts, units, ends = bytearray(), [0] * 256, []
    blocks = {b"": 0}  # where the units begin of the bytes that follow others; all but the first are 0x80 … 0xBF
    for ranges, copies in ((_PAIRED, 2), (_WORDS, 3)):
        for letter in (chr(code) for first, last in ranges for code in range(first, last + 1)):
            key = letter.encode()
            for start in (key[:1], key[:2]):
                if start not in blocks:
                    blocks[start] = len(units) ^ 0x80
                    units += [0] * 64
            ends.append((key, len(texts)))
            texts += HALVES.join([letter] * copies).encode() + b"\0"
    for key, block in blocks.items():
        if key:
            place = blocks[key[:-1]] ^ key[-1]
            units[place] = key[-1] | (place ^ block) << 10
    for key, value in ends:
        place = blocks[key[:-1]] ^ key[-1]
        units[place] = key[-1] | 1 << 8 | (place ^ len(units)) << 10
        units.append(value | 1 << 31)
    packed = struct.pack(f"<{len(units)}I", *units)
    return struct.pack("<I", len(packed)) + packed + bytes(texts)


# What the loop must know of a code point, besides 0.
MARK, PAIRED, ALSO_WORD = 1, 2, 3


@functools.cache
def marks() -> Array:
    """(0x110000,) bool: the marks of the library, whose Unicode may be newer than Python's."""
    result = np.zeros(0x110000, np.bool_)
    codes = [c for c in (*range(0x20000), *range(0xE0000, 0xE0200)) if c and not 0xD800 <= c < 0xE000]
    found = tokenizers.normalizers.Replace(tokenizers.Regex(r"\p{M}"), "\0").normalize_str("".join(map(chr, codes)))
    result[[code for code, mark in zip(codes, found, strict=True) if mark == "\0"]] = True
    return result


@functools.cache
def kinds() -> Array:
    """(0x110000,) uint8: which code points are marks, and letters that are cut into pairs."""
    result = marks() * np.uint8(MARK)
    for kind, ranges in ((PAIRED, _PAIRED), (ALSO_WORD, _WORDS)):
        for first, last in ranges:
            result[first : last + 1] = kind
    return result


@numba.njit(nogil=True, cache=True)
def _code_point(text: Array, p: int) -> tuple[int, int]:
    """The code point at ``p`` and its length; at the end of the text 0 and 0."""
    if p == len(text):
        return 0, 0
    return decode(text, p) if text[p] >= 128 else (int(text[p]), 1)


@numba.njit(nogil=True, cache=True)
def cut(text: Array, out: Array, kinds: Array) -> int:
    """Copy folded words (UTF-8 with 0 bytes between them), pairs apart; returns how many bytes: at most four times."""
    p, n = 0, 0
    kind, size = MARK, 0
    while p < len(text):
        code, size = _code_point(text, p)
        kind = kinds[code]
        if kind < PAIRED:
            n = put(text[p : p + size], out, n)
            p += size
            continue
        out[n] = 0
        n, is_first = n + 1, True
        while kind >= PAIRED:
            end = p + size  # of the letter's marks
            next_code, next_size = _code_point(text, end)
            while kinds[next_code] == MARK:
                end += next_size
                next_code, next_size = _code_point(text, end)
            next_kind = kinds[next_code]
            if kind == ALSO_WORD:
                n = put(text[p : p + size], out, n)
                out[n] = 0
                n += 1
            elif is_first and next_kind < PAIRED:
                n = put(text[p:end], out, n)
            if next_kind >= PAIRED:
                n = put(text[p : end + next_size], out, n)
                out[n] = 0
                n += 1
            p, size, kind, is_first = end, next_size, next_kind, False
        out[n] = 0
        n += 1
    return n
