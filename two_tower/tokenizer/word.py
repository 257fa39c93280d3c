"""A vocabulary of whole words, counted on the run's own texts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from two_tower.errors import UserError
from two_tower.tokenizer import _folding as folding
from two_tower.tokenizer import _word_table as word_table
from two_tower.tokenizer.base import Texts, Tokenizer, count_words, truncation

__all__ = ["UNKNOWN", "WordTokenizer"]

#: The word of id 0, which stands for every word that is not in the vocabulary. No text can contain it.
UNKNOWN = "[UNK]"


class WordTokenizer:
    """Trains a `Tokenizer` whose tokens are the frequent words of some texts.

    Args:
        vocabulary_size: most words in the vocabulary, the unknown word included.
        min_frequency: a word that occurs less often is left out.
        split_camel_case: separate the words of identifiers: ReduceLROnPlateau → reduce lr on plateau.
        strip_accents: read é as e, ﬁ as fi and ２ as 2; otherwise letters only become lower case.
        query_tokens: most tokens kept of a query.
        document_tokens: most tokens kept of a passage.

    Raises:
        UserError: a number is out of range.
    """

    def __init__(
        self,
        vocabulary_size: int = 400_000,
        min_frequency: int = 2,
        split_camel_case: bool = False,
        strip_accents: bool = True,
        query_tokens: int = 64,
        document_tokens: int = 256,
    ) -> None:
        self.vocabulary_size, self.min_frequency = vocabulary_size, min_frequency
        self.split_camel_case, self.strip_accents = split_camel_case, strip_accents
        self.query_tokens, self.document_tokens = query_tokens, document_tokens
        least = {"vocabulary_size": 2, "min_frequency": 1, "query_tokens": 1, "document_tokens": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise UserError(f"tokenizer.{name} is {getattr(self, name)}: choose at least {bound}.")

    def train(self, texts: Iterable[Texts]) -> Tokenizer:
        """Count the words of all texts and keep the most frequent ones.

        Args:
            texts: batches of texts, each an Arrow string column or a sequence of strings; read once, one
                batch after another, so that memory holds one batch and the distinct words.

        Returns:
            The tokenizer: id 0 is `UNKNOWN`, then the most frequent word first, equally frequent ones in
            alphabetical order (by code point).

        Raises:
            UserError: no word occurs ``min_frequency`` times.
        """
        rules = folding.rules(self._definition([UNKNOWN]))
        words = self._most_frequent(count_words(folding.Folding(rules, self.split_camel_case), texts))
        if not words:
            raise UserError(
                f"no word occurs {self.min_frequency} times in the training texts: "
                "lower tokenizer.min_frequency or give more text."
            )
        return Tokenizer(self._definition([UNKNOWN, *words]))

    def _most_frequent(self, counted: word_table.WordTable) -> list[str]:
        counts, size = counted[3], counted[4]
        kept, room = counts[:size][counts[:size] >= self.min_frequency], self.vocabulary_size - 1
        # Sort only the words that can be among the first, with their ties.
        least = np.partition(kept, len(kept) - room)[len(kept) - room] if len(kept) > room else self.min_frequency
        spelled = word_table.spelled(counted, int(least))
        return sorted(spelled, key=lambda word: (-spelled[word], word))[:room]

    def _definition(self, vocabulary: list[str]) -> dict[str, Any]:
        """The `tokenizer.json` with these words, as the library itself would write it."""
        return {
            "version": "1.0",
            "truncation": truncation(self.query_tokens, self.document_tokens),
            "padding": None,
            "added_tokens": [],
            "normalizer": folding.normalizer(self.split_camel_case, self.strip_accents),
            "pre_tokenizer": folding.PRE_TOKENIZER,
            "post_processor": None,
            "decoder": None,
            "model": {
                "type": "WordLevel",
                "vocab": {word: i for i, word in enumerate(vocabulary)},
                "unk_token": UNKNOWN,
            },
        }
