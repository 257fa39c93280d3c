"""Which encoding a text is in: Unicode by its marks and zeros, Windows-1252 where its letters make words of a language.

Detectors by frequency (charset-normalizer 3.5) name one of several encodings with the same letters, and for a few
lines often a wrong one. Here only one is ever guessed, and what is not sure is left to the user.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from contextlib import suppress

# The longer marks first: that of UTF-16 begins that of UTF-32.
_MARKS = {
    codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be",
}  # fmt: skip
_SAMPLE_BYTES, _FEW_BYTES = 1 << 16, 64
_CONTROLS = re.compile(rb"[\x01-\x08\x0e-\x1f]")  # high bytes of Greek, Cyrillic, Hebrew, Arabic and Thai in UTF-16

# The letters beyond ASCII of languages that are written in Windows-1252. Other code pages have other letters at these
# bytes (Czech would be read as "pøíklad", Russian as "ïðèìåð"), which together belong to no language.
_ALPHABETS = (
    "äöüßé", "àâæçèéêëîïôœùûü", "áéíñóúüç", "àáâãçéêíóôõúü", "àèéìíîòóù", "åäöéüà", "æøåéòôó", "áðéíóúýþæö",
    "áðíóúýæø", "áéèëïíóöüê", "àçèéíïòóúü", "äöüõšž",
)  # fmt: skip
_BEYOND_ASCII = re.compile("[^\x00-\x7f]+")
_LETTER = re.compile("[À-ÖØ-öø-ÿŒœŠšŽžŸƒ]")
_WORD = re.compile(r"[^\W\d_]{3,}")
# What stands within words where another encoding has a letter there, and what no text has.
_ODD = re.compile(
    "(?<=[a-zß-öø-ÿ])[À-ÖØ-ÞŠŒŽŸþ]|¤|(?<=[^\\W\\d_])[¡¢£¥¦¨©ª¬®¯±²³µ¶¸¹º¼½¾¿×÷€‚„†‡ˆ‰‹“”•˜™›](?=[^\\W\\d_])"
)
_TYPOGRAPHY = re.compile(r"\w’\w|[“„]\w|[\w.,!?]”|\w‘|\s[–—]\s|\d[–%]?\d|\d ?[€°]|[€£©§] ?[\w\d]|[«»®™…•\xa0]")


def unicode_form(start: bytes) -> tuple[str | None, int]:
    """The form of Unicode in which a file with this start is for sure, or None; and the length of its mark."""
    for mark, name in _MARKS.items():
        if start.startswith(mark):
            return name, len(mark)
    sample = start[: _SAMPLE_BYTES if len(start) > _SAMPLE_BYTES else len(start) // 2 * 2]
    zeros = sample[1::2].count(0), sample[::2].count(0)
    if not max(zeros) or 10 * min(zeros) > max(zeros) or (len(start) % 2 and len(start) < _FEW_BYTES):
        return None, 0  # an odd number of bytes is no UTF-16, or more of it that was cut off
    name = "utf-16-le" if zeros[0] > zeros[1] else "utf-16-be"
    odd = decoded(sample, "utf-8") is None or 10 * len(_CONTROLS.findall(sample)) > len(sample)
    has_lines = any(mark in (decoded(sample, name) or "") for mark in "\r\n{[")
    return (name if 4 * max(zeros) > len(sample) or (odd and has_lines) else None), 0


def decoded(start: bytes, encoding: str) -> str | None:
    """A text of which this is the start; None where it is in another encoding."""
    with suppress(UnicodeDecodeError):
        return codecs.getincrementaldecoder(encoding)().decode(start)
    return None


def guess(block: bytes) -> str:
    """``utf-8`` or ``cp1252``, by a part of a file that is ASCII before it; ``utf-8`` where that is unsure."""
    if decoded(block, "utf-8") is not None:  # nearly always, and soon seen
        return "utf-8"
    beyond = "".join(_BEYOND_ASCII.findall(codecs.utf_8_decode(block, "surrogateescape", False)[0]))
    broken = sum(map(beyond.count, map(chr, range(0xDC80, 0xDD00))))
    return "cp1252" if 2 * broken > len(beyond) and _is_cp1252(block) else "utf-8"


def _is_cp1252(block: bytes) -> bool:
    if (text := decoded(block, "cp1252")) is None:
        return False
    letters, odd = Counter(_LETTER.findall(text.lower())), len(_ODD.findall(text))
    if not letters:
        return not odd and _TYPOGRAPHY.search(text) is not None
    words = [word for word in _WORD.findall(text) if _LETTER.search(word)]
    foreign = [word for word in words if not _LETTER.sub("", word)]  # letters of another script
    if 2 * letters["ý"] > letters.total():  # as in Turkish, whose "ı" it is, and Czech; rare in Icelandic
        return False
    known = max(sum(letters[letter] for letter in alphabet) for alphabet in _ALPHABETS)
    return 2 * len(foreign) <= len(words) and known >= 0.95 * (letters.total() + odd)
