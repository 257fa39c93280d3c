"""Texts → words by the rule of `_rule`, in compiled loops (`_loops`).

    text bytes ─► _loops.fold ─► words with 0 bytes between them ─┬─► _hash_table.count    (training)
                                                                 └─► _hash_table.look_up  (encoding)

With these rules what becomes of a letter and its marks never depends on their neighbours, except for the camel-case
rule, which sees only ASCII, and for pairs, which are made afterwards. So the library is asked once per code point, and
once per letter with marks, on first sight; its answers are all that the loops need to give its words for every text.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np

from two_tower.tokenizer import _loops as loops
from two_tower.tokenizer import _pairs as pairs
from two_tower.tokenizer._rule import Rule, extends, split

Array: TypeAlias = np.ndarray

_BEFORE, _BEHIND = "ꀀ", "ꀁ"  # of the Yi script


@functools.cache
def shared(rule: Rule) -> Folding:
    """That of a rule; tokenizers of the same rule share what was asked already."""
    return Folding(rule)


class Folding:
    """What the loops must know of Unicode, asked of the library: the code points and clusters seen so far."""

    # Latin letters, punctuation, currency, arrows: all that most English text ever needs (11 ms).
    _AT_FIRST = (range(0x80, 0x250), range(0x2000, 0x2200))

    def __init__(self, rule: Rule) -> None:
        self._rule, self._lock = rule, threading.Lock()
        self._kinds = pairs.kinds() if rule.in_pairs else np.zeros(0, np.uint8)
        self._clusters: dict[bytes, bytes] = {}
        self._symbols: dict[bytes, bytes] = {}
        # Replaced as one tuple, never changed in place: other threads may be folding with it.
        self._table: loops.Table = np.zeros(0, np.uint8), np.zeros(0x110000, np.uint32), _strings({}), _strings({}), 1
        for codes in self._AT_FIRST:
            self._learn(codes)

    def __call__(self, text: Array, starts: Array, cut: bool = True) -> tuple[Array, Array]:
        """The folded bytes of texts, and (B + 1,) int64, where each text starts in them; see `_loops.fold`.

        Without ``cut``, for words of pairs, these stay as they are.
        """
        camel, kinds = self._rule.split_camel_case and cut, self._kinds if cut else self._kinds[:0]
        while True:
            table = self._table
            folded, folded_starts, lacking = loops.fold(text, starts, table, camel, kinds)
            if not lacking.any():
                return folded, folded_starts
            if self._table is table:  # else another thread has learned something, perhaps just this
                self._learn_texts([text[starts[i] : starts[i + 1]] for i in np.flatnonzero(lacking)])

    def _learn_texts(self, texts: list[Array]) -> None:
        """Ask for what is not known of texts: code points, letters with marks; if it is neither, for symbols."""
        entries = self._table[1]
        seen = np.unique(np.concatenate([loops.code_points(text) for text in texts]))
        codes = seen[entries[seen] == 0].tolist()
        if codes:
            self._learn(codes)
        entries = self._table[1]
        spans = (text[start:end].tobytes() for text in texts for start, end in loops.clusters(text, entries))
        clusters = {span for span in spans if span not in self._clusters}
        self._learn([], clusters, [] if codes or clusters else {text.tobytes() for text in texts})

    def _learn(self, codes: Iterable[int], clusters: Iterable[bytes] = (), symbols: Iterable[bytes] = ()) -> None:
        with self._lock:
            expansions, entries, *_, growth = self._table
            entries, folded = entries.copy(), bytearray(expansions)
            letters = [code for code in codes if not extends(code)]
            entries[[code for code in codes if extends(code)]] = loops.EXTENDS
            # Half of a surrogate pair is only in bytes that are not UTF-8.
            texts = [chr(code) if not 0xD800 <= code < 0xE000 else " " for code in letters]
            for code, new in zip(letters, self._folded(texts), strict=True):
                entries[code] = len(folded) << 8 | (len(new) + 1)
                folded += new
                # Two bytes is the shortest that a code point beyond ASCII can be.
                growth = max(growth, -(-len(new) // (2 if code < 0x800 else 3)))
            keys = [*clusters]
            new_clusters = dict(zip(keys, self._folded([k.decode(errors="replace") for k in keys]), strict=True))
            new_symbols = {key: "\0".join(self._rule.words(key.decode(errors="replace"))).encode() for key in symbols}
            for key, new in itertools.chain(new_clusters.items(), new_symbols.items()):
                growth = max(growth, -(-len(new) // max(1, sum(byte >= 128 for byte in key))))
            self._clusters |= new_clusters
            self._symbols |= new_symbols
            tables = _strings(self._clusters), _strings(self._symbols)
            self._table = np.frombuffer(bytes(folded), np.uint8), entries, *tables, growth

    def _folded(self, letters: list[str]) -> list[bytes]:
        """What the library makes of letters and their marks, each between two others that never change or combine."""
        if not letters:
            return []
        text = " ".join(f"{_BEFORE}{letter}{_BEHIND}" for letter in letters)
        words = "\0".join(word for word, *_ in split(self._rule.letters, text))
        return [each.encode() for each in words[1:-1].split(f"{_BEHIND}\0{_BEFORE}")]


def _strings(folded: dict[bytes, bytes]) -> loops.Strings:
    keys, starts = _joined(folded.keys())
    return loops.filled(keys, starts), keys, starts, *_joined(folded.values())


def _joined(strings: Iterable[bytes]) -> tuple[Array, Array]:
    """All strings as one array, and (S + 1,) int64, where each starts in it."""
    strings = list(strings)
    return np.frombuffer(b"".join(strings), np.uint8), np.cumsum([0, *map(len, strings)], dtype=np.int64)
