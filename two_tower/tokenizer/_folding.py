"""The word rules of `tokenizer.json` and the table that lets the fast path follow them exactly.

A text is normalized (compatibility forms, accents and case folded away), then cut into runs of letters and
digits of any script. With these rules what becomes of a code point never depends on its neighbours, except
for the camel-case rule, which sees only ASCII. So the library is asked once per code point, on first sight,
and its answers are all that the kernel needs to give the library's words for every text.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tokenizers

from two_tower.tokenizer import _kernel as kernel

#: ReduceLROnPlateau → Reduce LR On Plateau, HTTPServer → HTTP Server, but neither URLs nor Conv2D is split.
CAMEL = "(?<=[a-z])(?=[A-Z])|(?<=[A-Z0-9])(?=[A-Z](?:[a-rt-z]|s[a-z]))"


def _replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def _split(pattern: str, behavior: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False}


def normalizer(split_camel_case: bool, strip_accents: bool) -> dict[str, Any]:
    """The normalizer of a word `tokenizer.json`.

    With ``strip_accents``, compatibility forms are folded too (ﬁ → fi, ２ → 2, ½ → 1 2); without, letters
    stay as they are written, in lower case.
    """
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
    """Whether the ids are 0, 1, 2 … in order and every word can stand between the kernel's 0 bytes."""
    return (
        isinstance(vocabulary, dict)
        and list(vocabulary.values()) == list(range(len(vocabulary)))
        and "" not in vocabulary
        and "\0" not in "".join(vocabulary)
    )


def words(library: tokenizers.Tokenizer, text: str) -> list[str]:
    """The library's words (pre-tokens) of a text."""
    split = tokenizers.PreTokenizedString(text)
    if library.normalizer is not None:
        split.normalize(library.normalizer.normalize)
    if library.pre_tokenizer is not None:
        library.pre_tokenizer.pre_tokenize(split)
    return [word for word, _, _ in split.get_splits()]


class Folding:
    """What the kernel must know of Unicode: the folded bytes of every code point seen so far.

    ``library`` is a tokenizer of a word definition, ``split_camel_case`` whether it has the camel-case rule.
    """

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
        """The folded bytes of texts, and (B + 1,) int64, where each text starts in them; see `_kernel.fold`."""
        while True:
            table = self._table
            folded, folded_starts, complete = kernel.fold(text, starts, *table, self._split_camel_case)
            if complete:
                return folded, folded_starts
            self._learn(np.flatnonzero(kernel.missing(text, starts, table[0])).tolist())

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
