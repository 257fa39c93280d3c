"""Marks the words of a query in a text, as BM25 finds them: by the same words and stems."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import TypeAlias

from two_tower.tokenizer.base import CAMEL, Rule, Stemmer, refold

Marks: TypeAlias = list[tuple[int, int]]  # start and end of each word of the query in a text, in order

# Words that stand in nearly every passage: marks on them would hide the others.
_COMMON = (
    "a an and are as at be but by can did do does for from had has have how i if in into is it its many me much my no "
    "not of on or our should so such that the their then there these they this to was we were what when where which "
    "who whose why will with would you your"
)
COMMON = frozenset(_COMMON.split())


# The words of a text of ASCII characters, which most are: a tenth of the library's time.
_ASCII_WORD, _CAMEL = re.compile("[A-Za-z0-9]+"), re.compile(CAMEL)


class Highlighter:
    """Finds the words of a query in a text."""

    def __init__(self, rule: Rule) -> None:
        self._rule, self._spelled, stem = rule, replace(rule, strip_accents=False), Stemmer(rule.languages)
        # What is equal in words that are the same: their letters without accents, or those of their stems.
        self._forms = lru_cache(100_000)(lambda word: frozenset(refold(rule, [word, stem(word)])))

    def marker(self, query: str) -> Callable[[str], Marks]:
        """A function that marks a text. Common words are left out, unless the query has no others."""
        words = {*self._spelled.words(query)}
        if self._rule.in_pairs:  # a letter of a longer word is none of its own
            words = {word for word in words if word.isascii() or not any(word in each for each in words - {word})}
        forms = frozenset().union(*map(self._forms, words - COMMON or words))
        # A stem begins as its word does, whatever its end. Parts of camelCase stand within runs of letters.
        initials = "" if self._rule.split_camel_case else "".join({form[0] for form in forms if form[0].isascii()})

        def mark(text: str) -> Marks:
            spans = self._spans(text, initials) if forms else []
            return _joined((start, end) for word, start, end in spans if not forms.isdisjoint(self._forms(word)))

        return mark

    def _spans(self, text: str, initials: str) -> Iterable[tuple[str, int, int]]:
        """The words of a text and where they are; those that begin with other letters may be absent."""
        if not (text.isascii() and _ASCII_WORD.search(text)):  # symbols are words where there are no others
            return self._spelled.spans(text)
        runs = (match.span() for match in _ASCII_WORD.finditer(text))
        if self._rule.split_camel_case:
            cuts = ([a, *(a + m.start() for m in _CAMEL.finditer(text[a:b])), b] for a, b in runs)
            runs = (span for ends in cuts for span in pairwise(ends))
        return ((text[a:b].lower(), a, b) for a, b in runs if not initials or text[a].lower() in initials)


def _joined(spans: Iterable[tuple[int, int]]) -> Marks:
    """The spans with those that overlap as one: pairs of letters share one."""
    marks: Marks = []
    for start, end in spans:
        if marks and start < marks[-1][1]:
            marks[-1] = marks[-1][0], max(end, marks[-1][1])
        else:
            marks.append((start, end))
    return marks
