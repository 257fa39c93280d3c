"""A vocabulary of whole words, counted on the run's own texts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from two_tower.errors import UserError, at_least
from two_tower.tokenizer import _languages as languages
from two_tower.tokenizer._hash_table import HashTable, spelled
from two_tower.tokenizer._rule import Rule
from two_tower.tokenizer.base import Texts, Tokenizer, count_words, truncation

USUAL_FREQUENCY = 2  # occurrences that a word must have

#: The word of id 0, which stands for every word that is not in the vocabulary. No text can contain it.
UNKNOWN = "[UNK]"


class WordTokenizer:
    """Trains a `Tokenizer` whose tokens are the frequent words of some texts.

    ``language`` is ``auto`` (found in the texts), one ISO 639-1 code or several, or ``none``: it decides whether
    accents are tones, whether scripts without blanks are cut into pairs, and how BM25 stems.
    """

    def __init__(
        self, vocabulary_size: int = 400_000, min_frequency: int | None = None, split_camel_case: bool = False,
        strip_accents: bool = True, language: str | Sequence[str] = "auto", query_tokens: int = 64,
        document_tokens: int = 256,
    ) -> None:  # fmt: skip
        self.vocabulary_size = vocabulary_size
        self.min_frequency = USUAL_FREQUENCY if min_frequency is None else min_frequency
        self.split_camel_case, self.strip_accents = split_camel_case, strip_accents
        self.language = languages.checked(language)
        self.query_tokens, self.document_tokens = query_tokens, document_tokens
        at_least(2, vocabulary_size=vocabulary_size)
        at_least(1, min_frequency=self.min_frequency, query_tokens=query_tokens, document_tokens=document_tokens)

    def train(self, texts: Iterable[Texts]) -> Tokenizer:
        """Count the words of batches of texts, and keep the most frequent ones.

        The texts are read once; twice if their languages need another rule than those of the first batch. Id 0 is
        `UNKNOWN`, then the most frequent word first, equally frequent ones in the order of their code points.
        """
        rule, table = self._counted(texts)
        words = self._most_frequent(table)
        if not words:
            raise UserError(
                f"no word occurs {self.min_frequency} times in the training texts: "
                "lower tokenizer.min_frequency or give more text."
            )
        return Tokenizer(self._definition([UNKNOWN, *words], rule))

    def _counted(self, texts: Iterable[Texts]) -> tuple[Rule, HashTable]:
        if self.language is not None:
            rule = self._rule(self.language)
            return rule, count_words(rule, texts)
        texts = [*texts] if isinstance(texts, Iterator) else texts
        sample, batches = languages.Sample(), iter(texts)
        first = next(batches, [])
        sample.add(first)
        rule = self._rule(sample.languages())
        table = count_words(rule, itertools.chain([first], map(sample.add, batches)))
        found = self._rule(sample.languages())
        if found.definition() != rule.definition():
            table = count_words(found, texts)
        return found, table

    def _rule(self, languages: tuple[str, ...]) -> Rule:
        return Rule(self.split_camel_case, self.strip_accents, languages)

    def _most_frequent(self, table: HashTable) -> list[str]:
        counts, size = table[3], table[4]
        frequent, room = counts[:size][counts[:size] >= self.min_frequency], self.vocabulary_size - 1
        # Sort only the words that can be among the first, with their ties.
        cut = len(frequent) - room
        counted = spelled(table, int(np.partition(frequent, cut)[cut]) if cut > 0 else self.min_frequency)
        return sorted(counted, key=lambda word: (-counted[word], word))[:room]

    def _definition(self, vocabulary: list[str], rule: Rule | None = None) -> dict[str, Any]:
        """The `tokenizer.json` with these words, as the library itself would write it."""
        rule = rule or self._rule(self.language or ())
        limits = truncation(self.query_tokens, self.document_tokens)
        return {
            "version": "1.0", "truncation": {**limits, "languages": " ".join(rule.languages)},
            "padding": None, "added_tokens": [], **rule.definition(), "post_processor": None, "decoder": None,
            "model": {"type": "WordLevel", "vocab": {w: i for i, w in enumerate(vocabulary)}, "unk_token": UNKNOWN},
        }  # fmt: skip
