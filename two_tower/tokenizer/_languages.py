"""The languages of a collection, found in its texts, and what depends on them: stemmers, tones, scripts in pairs."""

from __future__ import annotations

import functools
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import pyarrow as pa

# Texts of any kind: an Arrow string column (no Python object per text; nulls are empty texts), or strings.
Texts: TypeAlias = pa.Array | pa.ChunkedArray | Sequence[str]

# Script (as in the names of its characters) → language (ISO 639-1) → its Snowball stemmer, "" where there is none.
_LANGUAGES = {
    "LATIN": {
        "en": "english", "de": "german", "fr": "french", "es": "spanish", "it": "italian", "pt": "portuguese",
        "nl": "dutch", "pl": "polish", "cs": "czech", "sv": "swedish", "da": "danish", "no": "norwegian",
        "nn": "norwegian", "fi": "finnish", "hu": "hungarian", "ro": "romanian", "tr": "turkish",
        "ca": "catalan", "eu": "basque", "et": "estonian", "eo": "esperanto", "ga": "irish", "id": "indonesian",
        "lt": "lithuanian", "vi": "", "yo": "", "hr": "", "sk": "", "sl": "", "lv": "", "sw": "", "sq": "",
    },
    "CYRILLIC": {"ru": "russian", "uk": "", "bg": "", "sr": "serbian", "be": "", "mk": "", "kk": ""},
    "GREEK": {"el": "greek"}, "ARMENIAN": {"hy": "armenian"}, "GEORGIAN": {"ka": ""}, "HEBREW": {"he": ""},
    "ARABIC": {"ar": "arabic", "fa": "persian", "ur": ""}, "DEVANAGARI": {"hi": "hindi", "ne": "nepali", "mr": ""},
    "BENGALI": {"bn": ""}, "TAMIL": {"ta": "tamil"}, "TELUGU": {"te": ""}, "CJK": {"zh": "", "ja": ""},
    "HANGUL": {"ko": ""}, "THAI": {"th": ""}, "LAO": {"lo": ""}, "KHMER": {"km": ""}, "MYANMAR": {"my": ""},
}  # fmt: skip
#: All languages that are told apart.
LANGUAGES = tuple(language for of_script in _LANGUAGES.values() for language in of_script)
#: Those whose accents are tones.
TONES = frozenset({"vi", "yo"})
#: Those whose letters are cut into pairs.
PAIRED = frozenset({"zh", "ja", "ko", "th", "lo", "km", "my"})

# A language counts from this share of the letters; of another script, which is no mistake, from a smaller one.
_SHARE, _SHARE_OF_SCRIPT = 0.05, 0.01
_SURE = 0.95  # probability from which a text of Latin letters is taken to be of a language; made-up words reach .5
_LETTERS = 500  # the most that are read of a text


class Sample:
    """Texts that are evenly spread over a collection, to find its languages in."""

    def __init__(self, size: int = 1000) -> None:
        self._size, self._texts, self._rows, self._step = size, list[str](), 0, 1

    def add(self, batch: Texts) -> Texts:
        """Take every n-th text of the next batch, and return the batch."""
        rows = range(-self._rows % self._step, len(batch), self._step)
        if isinstance(batch, pa.Array | pa.ChunkedArray):
            self._texts += batch.take(pa.array(rows, pa.int64())).to_pylist()
        else:
            self._texts += batch[rows.start :: rows.step]
        self._rows += len(batch)
        while len(self._texts) > self._size:
            self._texts, self._step = self._texts[::2], 2 * self._step
        return batch

    def languages(self) -> tuple[str, ...]:
        """The languages of the texts, the most frequent first; English for Latin letters that are of no language."""
        letters: dict[str, int] = defaultdict(int)
        for text in (text[:_LETTERS] for text in self._texts if text and any(map(str.isalpha, text))):
            language, probability = _identify()(text)
            is_sure = probability > _SURE or _script(next(filter(str.isalpha, text))) != "LATIN"
            letters[language if is_sure else ""] += len(text)
        total, unsure = sum(letters.values()), letters.pop("", 0)
        least = {each: total * (_SHARE if each in _LANGUAGES["LATIN"] else _SHARE_OF_SCRIPT) for each in letters}
        found = tuple(each for each in sorted(letters, key=lambda each: -letters[each]) if letters[each] >= least[each])
        return found or (("en",) if unsure else ())


def checked(language: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """What the setting ``language`` names; None for ``auto``, nothing for ``none``."""
    named = [language] if isinstance(language, str) else [*(language or ["none"])]
    if named == ["auto"]:
        return None
    for each in named:
        if each not in LANGUAGES and named != ["none"]:
            raise ValueError(f"language={each} must be auto, none, or one or several of {', '.join(LANGUAGES)}")
    return tuple(each for each in named if each != "none")


@functools.cache
def _identify() -> Callable[[str], tuple[str, float]]:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages([*LANGUAGES])
    return identifier.classify


def _script(letter: str) -> str:
    """In words as Unicode's names of letters begin; "" for what is no letter."""
    return ("LATIN" if letter.isascii() else unicodedata.name(letter, "").partition(" ")[0]) if letter.isalpha() else ""


class Stemmer:
    """Snowball's stems: of each script those of its most frequent language, words as they are where it has none."""

    def __init__(self, languages: Iterable[str]) -> None:
        import Stemmer

        self._of_script: dict[str, Callable[[str], str]] = {}
        for language in languages:
            script = next(script for script, among in _LANGUAGES.items() if language in among)
            if name := _LANGUAGES[script][language]:
                self._of_script.setdefault(script, Stemmer.Stemmer(name).stemWord)

    def __call__(self, word: str) -> str:
        stem = self._of_script.get(_script(word[0]))
        return word if stem is None else stem(word)
