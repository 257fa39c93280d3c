r"""Repair of double-encoded UTF-8: ``donâ\x80\x99t`` and ``donâ€™t`` become ``don’t``.

Such text was UTF-8 once, was read as Latin-1 or Windows-1252, and written as UTF-8 again. Each of its
characters is one byte of the original, so the bytes can be put together again. A few good texts look the same
(``NESCAFÉ®``, ``voilà «``, ``Spaß«``), so a sequence is repaired only where nothing but damage explains it.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["repair_encoding", "repair_text"]

# Windows-1252 has letters and punctuation where Latin-1 has the control characters U+0080 to U+009F.
_SPECIAL = {bytes([b]).decode("cp1252"): b for b in range(0x80, 0xA0) if b not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)}
_BYTES = {chr(byte): byte for byte in range(0x80, 0x100)} | _SPECIAL
_TO_LATIN_1 = str.maketrans({char: chr(byte) for char, byte in _SPECIAL.items()})


def _class(first: int, last: int) -> str:
    """A regular expression for all characters that stand for the bytes ``first`` to ``last``."""
    return "[" + "".join(re.escape(char) for char, byte in _BYTES.items() if first <= byte <= last) + "]"


_TAIL = _class(0x80, 0xBF)
# Well-formed UTF-8 only, so that decoding a match cannot fail.
_SEQUENCE = "|".join(
    [
        _class(0xC2, 0xDF) + _TAIL,
        _class(0xE0, 0xE0) + _class(0xA0, 0xBF) + _TAIL,
        f"(?:{_class(0xE1, 0xEC)}|{_class(0xEE, 0xEF)})" + _TAIL * 2,
        _class(0xED, 0xED) + _class(0x80, 0x9F) + _TAIL,
        _class(0xF0, 0xF0) + _class(0x90, 0xBF) + _TAIL * 2,
        _class(0xF1, 0xF3) + _TAIL * 3,
        _class(0xF4, 0xF4) + _class(0x80, 0x8F) + _TAIL * 2,
    ]
)
_RUN = re.compile(f"(?:{_SEQUENCE})+")

# What no good text has next to a letter: control characters (but U+0085 occurs as a line's end), odd symbols.
_ODD = re.compile("[\x80-\x84\x86-\x9f¡¢¤¥¦¬¯±¶¸¼½¾¿µ‚„ƒˆ˜‰]")
# Quotes, dashes, ligatures, arrows, signs of mathematics.
_SIGN = re.compile("â[€‚ƒ„†ˆ‰]")
# é, ü, ° … and Greek. The letters themselves end words only in Portuguese capitals, see _at_the_end_of_capitals.
_LETTER = re.compile("[ÂÃÎÏ]")


def repair_text(text: str) -> str:
    """The text with its double-encoded parts decoded, also those that were encoded three or four times."""
    for _ in range(3):
        repaired = _RUN.sub(_decoded, text)
        if repaired == text:
            break
        text = repaired
    return text


def _decoded(match: re.Match[str]) -> str:
    run = match[0]
    text = run.translate(_TO_LATIN_1).encode("latin-1").decode()
    if len(text) == 1:
        if "\x80" <= text < "\xa0":  # a control character is no improvement
            return run
        plain = _LETTER.match(run) and not _at_the_end_of_capitals(match)
        if not (plain or _SIGN.match(run) or _ODD.search(run)):
            return run
    return text


def _at_the_end_of_capitals(match: re.Match[str]) -> bool:
    """Whether good text may be like this: ``IRMÃ®``, but not ``ZÃ¼rich``."""
    text, start, end = match.string, match.start(), match.end()
    return text[max(start - 1, 0) : start].isupper() and not text[end : end + 1].isalpha()


def repair_encoding(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The column (N,) of strings, nulls allowed, with each text repaired; undamaged text costs 1 ns a byte."""
    if isinstance(column, pa.ChunkedArray):
        return pa.chunked_array([repair_encoding(chunk) for chunk in column.chunks], column.type)
    rows = _suspicious(column)
    if len(rows) == 0:
        return column
    before = column.take(pa.array(rows)).to_pylist()
    after = [text and repair_text(text) for text in before]
    changed = np.fromiter((a != b for a, b in zip(after, before, strict=True)), bool)
    mask = np.zeros(len(column), bool)
    mask[rows[changed]] = True
    replacements = pa.array([text for text, new in zip(after, changed, strict=True) if new], column.type)
    return pc.replace_with_mask(column, pa.array(mask), replacements)


def _suspicious(column: pa.Array) -> np.ndarray:
    """Rows (K,) int64 in which U+00C2 to U+00F4 comes before what may be a UTF-8 tail."""
    _, offset_buffer, data_buffer = column.buffers()
    width = np.int64 if pa.types.is_large_string(column.type) else np.int32
    if data_buffer is None or len(column) == 0:
        return np.empty(0, np.int64)
    offsets = np.frombuffer(offset_buffer, width)[column.offset : column.offset + len(column) + 1]
    data = np.frombuffer(data_buffer, np.uint8)[offsets[0] : offsets[-1]]
    found = np.flatnonzero(data[:-3] == 0xC3)  # in UTF-8, C3 82 to C3 B4; a tail takes two bytes more
    found = found[(data[found + 1] >= 0x82) & (data[found + 1] <= 0xB4)]
    # U+0080 to U+00BF begin with C2; the letters and signs of Windows-1252 with C5, C6, CB, E2.
    found = found[np.isin(data[found + 2], (0xC2, 0xC5, 0xC6, 0xCB, 0xE2))]
    return np.unique(np.searchsorted(offsets, found + offsets[0], side="right") - 1)
