"""Where the words of a query stand in a text, in whatever inflection."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from two_tower.bm25 import word_spans

__all__ = ["Highlighter"]

Marks = Callable[[str], list[tuple[int, int]]]

# Words that stand in nearly every passage: to mark them would hide the others.
_WORDS = (
    "a an and are as at be but by can did do does for from had has have how i if in into is it its many me much my no "
    "not of on or our should so such that the their then there these they this to was we were what when where which "
    "who whose why will with would you your"
)
COMMON = frozenset(_WORDS.split())


class Highlighter:
    """Finds words by their Snowball stems, as BM25 does.

    Args:
        split_camel_case: see `two_tower.bm25.words`.
    """

    def __init__(self, split_camel_case: bool = False) -> None:
        import Stemmer

        self._split = split_camel_case
        self._stem = lru_cache(100_000)(Stemmer.Stemmer("english").stemWord)

    def of(self, query: str) -> Marks:
        """A function that gives the first character of each word of the query in a text, and the one after its last.

        Common words such as "the" are left out, unless the query has no others.
        """
        words = {query[first:end].lower() for first, end in word_spans(query, self._split)}
        wanted = {self._stem(word) for word in words - COMMON or words}
        # Stems end otherwise than their words, they never begin so. Parts of camelCase stand within runs of letters.
        initials = "" if self._split else "".join(sorted({word[0] for word in wanted}))

        if not wanted:
            return lambda _: []

        def marks(text: str) -> list[tuple[int, int]]:
            found = word_spans(text, self._split, initials)
            return [(first, end) for first, end in found if self._stem(text[first:end].lower()) in wanted]

        return marks
