"""From a file's words to the vocabulary's: which of them have a vector."""

from __future__ import annotations

import re

import numpy as np

from two_tower.cache import notice
from two_tower.embedding._partial import Known
from two_tower.embedding.reading.file import VectorFile
from two_tower.errors import BadRows, UserError
from two_tower.progress import counter
from two_tower.tokenizer.base import Tokenizer

__all__ = ["read_known"]

# What other programs call the word that stands for all unknown ones; and their other marks, which are no words.
_UNKNOWN = ("<unk>", "<UNK>", "[UNK]", "<unknown>")
_MARK = re.compile(r"<.*>|\[.*\]")


def read_known(file: VectorFile, tokenizer: Tokenizer) -> Known:
    """The vectors of a vocabulary's words; memory does not grow with the file.

    A word of the file is looked up as it is written, then as the tokenizer reads it (lower case, without
    accents …). Where several become one word, one that is written just so wins, then the first, which is the
    most frequent in the files in use. A mark like ``<unk>`` gives its vector to the unknown word.

    Raises:
        UserError: the file is damaged, or most of its rows are bad.
    """
    matcher = _Matcher(tokenizer)
    vectors, ranks = np.zeros((len(tokenizer), file.dim), np.float32), np.zeros(len(tokenizer), np.int8)
    bad, used = BadRows(1), 0
    with counter("Reading word vectors", "words") as progress:
        for block in file.blocks(bad):
            rows, block_ranks = matcher(block.words)
            wanted = _best(rows, block_ranks, ranks)
            if len(wanted):
                found = block.vectors(wanted)
                usable = np.isfinite(found).all(axis=1)
                kept = wanted[usable]
                vectors[rows[kept]], ranks[rows[kept]] = found[usable], block_ranks[kept]
                used += len(wanted)
            progress(len(rows))
    _check_bad(file, bad, used)
    return Known(vectors, ranks > 0, matcher.words, matcher.single)


class _Matcher:
    """Finds the vocabulary's row of each word: (n,) int64, -1 for none, and its rank: 2 as written, 1 as read."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._rows = {word: row for row, word in enumerate(tokenizer.vocabulary) if word}
        if tokenizer.unknown_id >= 0:
            self._rows |= dict.fromkeys(_UNKNOWN, tokenizer.unknown_id)
        self.words = self.single = 0  # how many it was asked for, and how many of these are one token

    def __call__(self, words: list[str]) -> tuple[np.ndarray, np.ndarray]:
        rows = np.array([self._rows.get(word, -1) for word in words], np.int64)
        ranks = np.where(rows >= 0, np.int8(2), np.int8(1))
        others = np.array([i for i in np.flatnonzero(rows < 0) if not _MARK.fullmatch(words[i])], np.int64)
        tokens = self._tokenizer.encode([words[i] for i in others])
        ids, starts = tokens.ids.numpy(), tokens.offsets.numpy()
        single = np.diff(starts) == 1
        found = ids[starts[:-1][single]].astype(np.int64)
        self.words += len(words) - words.count("")
        self.single += int((rows >= 0).sum() + single.sum())
        rows[others[single]] = np.where(found == self._tokenizer.unknown_id, -1, found)
        return rows, ranks


def _best(rows: np.ndarray, ranks: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """The positions that bring a vocabulary row a vector of higher rank than it has: one per row, the first best."""
    better = np.flatnonzero((rows >= 0) & (ranks > reached[rows]))
    better = better[np.lexsort((better, -ranks[better], rows[better]))]
    _, first = np.unique(rows[better], return_index=True)
    return np.sort(better[first])


def _check_bad(file: VectorFile, bad: BadRows, used: int) -> None:
    count, summary = bad.counts.total(), bad.summary()
    if summary and 2 * count > used:
        example = next(iter(bad.examples.values()))[0]
        raise UserError(f"{example}: {count} of the {used} rows that are needed are bad; choose another file.")
    if summary:
        notice(f"{file.path}: {summary}.")
