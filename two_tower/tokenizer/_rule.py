"""What a word is: one rule for towers, BM25, negatives, marks and inspection, as `tokenizer.json` says it.

Words are those of Unicode's text segmentation (UAX #29: letters and digits with their marks, composed or not) but for
three things. An apostrophe, a full stop and an underscore within a word separate, as they do for search engines. Case
and accents that are a matter of taste are folded away. Scripts that write no blanks are cut into pairs, see `_pairs`.
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import tokenizers

from two_tower.tokenizer import _pairs as pairs
from two_tower.tokenizer._languages import PAIRED, TONES, Sample, Texts

#: ReduceLROnPlateau → Reduce LR On Plateau, HTTPServer → HTTP Server, but neither URLs nor Conv2D is split.
CAMEL = "(?<=[a-z])(?=[A-Z])|(?<=[A-Z0-9])(?=[A-Z](?:[a-rt-z]|s[a-z]))"
#: Soft hyphens, joiners, byte order marks, variants of a symbol: they stand inside words of scraped text.
INVISIBLE = "\u00ad\u200c\u200d\u2060\ufeff\ufe00-\ufe0f"
# Letters that Unicode does not take apart, though people type them without their stroke.
_LETTERS = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ı": "i"}
_ACCENTS = r"(?<=[%s])\p{Mn}+"
# Stress marks and ё, points of Arabic and Hebrew: readers leave them out. й and ї are other letters than и and і.
_POINTS = (
    r"(?<=[аеиоуыэюяіє])[\u0300\u0301]+|(?<=е)\u0308\u0301?"
    r"|[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0640\u064b-\u0652\u0670]"
)
_WORD = r"\p{L}\p{N}\p{M}"
#: Both apostrophes separate (don't → don t): "world's" then finds "world". BM25 on 3,000 MS MARCO queries,
#: MRR@10: .661; joined (dont, worlds) .655; possessive s dropped .661, which is not worth a rule.
#: All but words is left out; where a text has no word, symbols are words.
_BETWEEN = [rf"(?<=[{_WORD}])[^{_WORD}]+|\A[^{_WORD}]++(?=[{_WORD}])", rf"[^\p{{S}}{_WORD}]+"]


def replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def _step(pattern: str, behavior: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False}


@dataclass(frozen=True)
class Rule:
    """How texts become words; ``languages`` are ISO 639-1 codes, the most frequent first."""

    split_camel_case: bool = False
    strip_accents: bool = True
    languages: tuple[str, ...] = ()

    @classmethod
    def of(cls, definition: Mapping[str, Any]) -> Rule | None:
        """That of a parsed `tokenizer.json`; None if the file has other rules."""
        languages = tuple((definition.get("truncation") or {}).get("languages", "").split())
        for camel, strip in ((False, True), (True, True), (False, False), (True, False)):
            rule = cls(camel, strip, languages)
            if all(definition.get(key) == value for key, value in rule.definition().items()):
                return rule
        return None

    @classmethod
    def found(cls, batches: Iterable[Texts]) -> Rule:
        """That of the languages of some texts."""
        sample = Sample()
        for texts in batches:
            sample.add(texts)
        return cls(languages=sample.languages())

    @property
    def in_pairs(self) -> bool:
        """Whether scripts without blanks are cut into pairs, else into single letters or not at all."""
        return not PAIRED.isdisjoint(self.languages)

    def definition(self) -> dict[str, Any]:
        """The sections of a `tokenizer.json` that say it."""
        return _definition(self.split_camel_case, self._accents, self.in_pairs, whole=True)

    @functools.cached_property
    def library(self) -> tokenizers.Tokenizer:
        """The library's tokenizer of this rule, without a vocabulary."""
        return library(self.definition())

    @functools.cached_property
    def letters(self) -> tokenizers.Tokenizer:
        """The same before pairs are made and symbols are looked at."""
        return library(_definition(self.split_camel_case, self._accents, self.in_pairs, whole=False))

    def words(self, text: str) -> list[str]:
        """The words of a text in order, as a vocabulary spells them."""
        return [word for word, _, _ in split(self.library, text)]

    def spans(self, text: str) -> list[tuple[str, int, int]]:
        """The words of a text, each with its first character and the one after its last, marks included."""
        result = []
        for word, start, end in split(self.library, text):
            while end < len(text) and extends(ord(text[end])):
                end += 1
            result.append((word, start, end))
        return result

    @property
    def _accents(self) -> str:
        """The scripts whose accents are folded; tones are no accents."""
        return "" if not self.strip_accents else r"\p{Greek}" if TONES & {*self.languages} else r"\p{Latin}\p{Greek}"


@functools.cache
def _definition(camel: bool, accents: str, in_pairs: bool, whole: bool) -> dict[str, Any]:
    steps = [replace(CAMEL, " ")] if camel else []
    # NFKD would glue the sign to the name before it: Tylenol™ → tylenoltm.
    steps += [replace(f"[{INVISIBLE}]", ""), replace(f"[™℠{pairs.HALVES}{pairs.JOINT}]", " ")]
    steps += [{"type": "NFKD"}, {"type": "Lowercase"}]
    if accents:
        steps += [replace(f"{_ACCENTS % accents}|{_POINTS}", ""), replace("ς", "σ")]
    if "Latin" in accents:
        steps += [replace(letter, plain) for letter, plain in _LETTERS.items()]
    steps.append({"type": "NFC"})
    isolated = r"\p{Han}\p{Hiragana}\p{Katakana}"
    if in_pairs:
        steps += [replace(pairs.FOREIGN_MARKS, ""), *(pairs.normalizers() if whole else ())]
        isolated = ""
    splits = [_step(between, "Removed") for between in (_BETWEEN if whole else (f"[^{_WORD}]+",))]
    if isolated or whole:
        ends = rf"[\p{{S}}{isolated}]"
        splits.append(_step(f"{pairs.WORD}|{ends}" if in_pairs else ends, "Isolated"))
    return {
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": splits},
    }


def library(definition: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """The library's tokenizer of a word definition without its words, which take 0.4 s to read when many."""
    no_words = {"type": "WordLevel", "vocab": {}, "unk_token": ""}
    nothing = dict.fromkeys(("truncation", "padding", "post_processor", "decoder"))
    sections = {"version": "1.0", "added_tokens": [], **nothing, **definition, "model": no_words}
    return tokenizers.Tokenizer.from_str(json.dumps(sections))


def split(of: tokenizers.Tokenizer, text: str) -> list[tuple[str, int, int]]:
    """The library's words (pre-tokens) of a text, each with its first character and the one after its last."""
    pieces = tokenizers.PreTokenizedString(text)
    if of.normalizer is not None:
        pieces.normalize(of.normalizer.normalize)
    if of.pre_tokenizer is not None:
        of.pre_tokenizer.pre_tokenize(pieces)
    return [(word, *span) for word, span, _ in pieces.get_splits(offset_referential="original", offset_type="char")]


@functools.cache
def extends(code: int) -> bool:
    """Whether a code point belongs to the letter before it: a mark, an invisible one, a vowel of a Hangul syllable.

    So does Arabic's tatweel, a line that lengthens a letter: it goes, and what stood around it may combine.
    """
    letter = chr(code)
    first = unicodedata.normalize("NFKD", letter)[0]
    if first != letter:  # a vowel sign of two parts, a half-width sound mark
        return extends(ord(first))
    is_jamo = 0x1160 <= code < 0x1200 or 0xD7B0 <= code < 0xD800
    return is_jamo or code == 0x640 or bool(pairs.marks()[code]) or re.match(f"[{INVISIBLE}]", letter) is not None
