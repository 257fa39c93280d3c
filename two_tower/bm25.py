"""BM25, the lexical baseline that every tower is compared with: the scores of bm25s, Snowball stems, no stop words."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numba import njit
from torch import Tensor

from two_tower.errors import UserError
from two_tower.files import atomic_path
from two_tower.ragged import Ragged
from two_tower.ranking import Ranking, RowPairs, Score, rank
from two_tower.threads import in_parts
from two_tower.tokenizer.base import Rule, Stemmer, Texts, numbered_parts, numbered_words, refold


class BM25:
    """Lexical scores of a corpus (Lucene's variant of BM25, which never gives negative weights).

    ``rule`` says what a word is, for queries as well; by default that of the documents' languages. ``k1`` (saturation)
    says how much repeated occurrences of a word add, ``b`` (0 to 1) how much long documents are discounted. The
    defaults are Anserini's for MS MARCO.
    """

    def __init__(self, documents: Texts, rule: Rule | None = None, k1: float = 0.9, b: float = 0.4) -> None:
        if not len(documents):
            raise UserError("BM25 needs at least one document, but the corpus is empty.")
        self._documents, self._stems = len(documents), _Stems(rule or Rule.found([documents]))
        parts = self._stems.learned(documents)
        self._weights, self._rows, self._starts = _postings(parts, len(self._stems.numbers), k1, b)

    def __len__(self) -> int:
        return self._documents

    @property
    def rule(self) -> Rule:
        return self._stems.rule

    def known(self, query: str) -> bool:
        """Whether any document has a word of the query."""
        return bool(len(self._stems.known([query])[0]))

    def save(self, path: Path, fingerprint: str) -> None:
        """Write the index into a file, atomically; ``fingerprint`` is that of the documents."""
        about = np.array([fingerprint, str(self._documents), json.dumps(asdict(self.rule))])
        stems, words = (
            np.frombuffer("\n".join(t).encode(), np.uint8) for t in (self._stems.numbers, self._stems.words)
        )
        numbers = np.fromiter(self._stems.words.values(), np.int64)
        named = {"about": about, "stems": stems, "words": words, "numbers": numbers}
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, weights=self._weights, rows=self._rows, starts=self._starts, **named)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path, rule: Rule | None, fingerprint: str) -> BM25 | None:
        """What `save` wrote; None if there is no such file, or it is of other documents or words, or damaged."""
        bm25 = cls.__new__(cls)
        try:
            with np.load(path) as kept:
                of, documents, by = kept["about"].tolist()
                settings = json.loads(by)
                kept_rule = Rule(**{**settings, "languages": tuple(settings["languages"])})
                if of != fingerprint or rule not in (None, kept_rule):
                    return None
                stems, words = (kept[name].tobytes().decode() for name in ("stems", "words"))
                numbers = kept["numbers"].tolist()
                bm25._weights, bm25._rows, bm25._starts = kept["weights"], kept["rows"], kept["starts"]
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile):
            return None
        bm25._documents, bm25._stems = int(documents), _Stems(kept_rule)
        if stems:
            bm25._stems.numbers = {stem: i for i, stem in enumerate(stems.split("\n"))}
            bm25._stems.words = dict(zip(words.split("\n"), numbers, strict=True))
        return bm25

    def scorer(self, queries: Sequence[str]) -> Score:
        """A function that scores blocks, for `two_tower.ranking.rank`; a block costs memory for itself only.

        A document without any word of the query scores 0; a word that occurs twice in a query counts twice.
        """
        flat, starts = self._stems.known(queries)

        def score(query_slice: slice, document_slice: slice) -> Tensor:
            q, end, _ = query_slice.indices(len(queries))
            first, last, _ = document_slice.indices(len(self))
            scores = np.zeros((max(end - q, 0), last - first), np.float32)
            arrays = (scores, flat, starts[q:], first, last, self._weights, self._rows, self._starts)
            in_parts(lambda start, stop: _add_postings(start, stop, *arrays), len(scores))
            return torch.from_numpy(scores)

        return score

    def pair_scores(self, queries: Sequence[str], pairs: RowPairs) -> np.ndarray:
        """(P,) float32, the scores of single pairs of rows, equal to those of `scorer`."""
        scores = np.zeros(len(pairs[0]), np.float32)
        _add_pairs(scores, *pairs, *self._stems.known(queries), self._weights, self._rows, self._starts)
        return scores

    def rank(self, queries: Sequence[str], *, order: np.ndarray, pairs: RowPairs | None = None, k: int = 0) -> Ranking:
        """Rank the corpus for every query, see `two_tower.ranking.rank`; without a word of it, nothing is retrieved."""
        return rank(self.scorer(queries), len(queries), len(self), order=order, pairs=pairs, k=k, floor=0.0)


class _Stems:
    """Words → numbers of their stems in a corpus.

    A word is stemmed with its accents, which tell endings apart (educación, educaciones), then they are folded as the
    ``rule`` says. A word typed without accents has the stem of its most frequent spelling in the corpus.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule, self._spelled, self._stem = rule, replace(rule, strip_accents=False), Stemmer(rule.languages)
        self.numbers: dict[str, int] = {}  # of the stems
        self.words: dict[str, int] = {}  # of the corpus, folded, with the numbers of their stems

    def learned(self, documents: Texts) -> list[Ragged]:
        """The stems of each document's words, in parts; learns them all."""
        parts, counts = numbered_parts(self._spelled, documents)
        folded, best = refold(self.rule, [*counts]), dict[str, str]()
        for word, plain in zip(counts, folded, strict=True):
            if plain not in best or counts[word] > counts[best[plain]]:
                best[plain] = word
        stems = refold(self.rule, [*map(self._stem, best.values())])
        self.words = {p: self.numbers.setdefault(stem, len(self.numbers)) for p, stem in zip(best, stems, strict=True)}
        numbers = np.fromiter((self.words[plain] for plain in folded), np.int32, count=len(folded))
        for part in parts:  # in place: all tokens of a large collection are there once
            part.ids.numpy()[:] = numbers[part.ids.numpy()]
        return parts

    def known(self, queries: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Stems of the queries that occur in the corpus, one query after another, and (Q + 1,) where each begins."""
        tokens, words = numbered_words(self._spelled, queries)
        folded, stems = (refold(self.rule, [*of]) for of in (words, map(self._stem, words)))
        found = [self.words.get(p, self.numbers.get(s, -1)) for p, s in zip(folded, stems, strict=True)]
        numbers = np.array(found, np.int64)[tokens.ids.numpy()]
        kept = tokens.keep(torch.from_numpy(numbers >= 0))
        return numbers[numbers >= 0], kept.offsets.numpy()


def _postings(parts: Sequence[Ragged], stems: int, k1: float, b: float) -> tuple[np.ndarray, ...]:
    """The postings of documents: float32 weights and int32 document rows by stem, int64 starts of the stems.

    The arithmetic is that of bm25s, bit for bit; what it makes of lists of Python takes 4 KB of memory a document.
    """
    lengths = np.concatenate([np.diff(part.offsets.numpy()) for part in parts])
    borders, frequencies = np.cumsum([0, *map(len, parts)]), np.zeros(stems, np.int64)
    texts = [(part.ids.numpy(), part.offsets.numpy(), first) for part, first in zip(parts, borders, strict=False)]
    ends = np.full(stems, -1)
    for text in texts:
        _count(*text, ends, frequencies)
    starts = np.concatenate([[0], np.cumsum(frequencies)])
    rows, weights, ends = np.empty(starts[-1], np.int32), np.zeros(starts[-1], np.float32), starts[:-1].copy()
    for text in texts:
        _append(*text, starts, ends, rows, weights)
    saturation = k1 * ((1 - b) + b * lengths / (lengths.mean() or 1))
    in_parts(lambda start, stop: _weigh(start, stop, starts, rows, weights, saturation), stems)
    return weights, rows, starts


@njit(nogil=True, cache=True)
def _count(ids: np.ndarray, offsets: np.ndarray, first: int, last: np.ndarray, counts: np.ndarray) -> None:
    """Count the documents, from row ``first`` on, that hold each stem; ``last`` is the row that did so last."""
    for document in range(len(offsets) - 1):
        for stem in ids[offsets[document] : offsets[document + 1]]:
            counts[stem] += last[stem] != first + document
            last[stem] = first + document


@njit(nogil=True, cache=True)
def _append(
    ids: np.ndarray, offsets: np.ndarray, first: int,
    starts: np.ndarray, ends: np.ndarray, rows: np.ndarray, counts: np.ndarray,
) -> None:  # fmt: skip
    """Append documents, from row ``first`` on, to the postings of their stems, which so far go to ``ends``."""
    for document in range(len(offsets) - 1):
        row = first + document
        for stem in ids[offsets[document] : offsets[document + 1]]:
            last = ends[stem] - 1
            if last < starts[stem] or rows[last] != row:
                last += 1
                rows[last] = row
                ends[stem] += 1
            counts[last] += 1


@njit(nogil=True, cache=True)
def _weigh(
    start: int, stop: int, starts: np.ndarray, rows: np.ndarray, weights: np.ndarray, saturation: np.ndarray
) -> None:
    """Turn the counts in the postings of stems ``start`` to ``stop`` into weights."""
    for stem in range(start, stop):
        holding = starts[stem + 1] - starts[stem]
        idf = np.float32(math.log(1 + (len(saturation) - holding + 0.5) / (holding + 0.5)))
        for p in range(starts[stem], starts[stem + 1]):
            count = np.float64(weights[p])
            weights[p] = np.float64(idf) * (count / (saturation[rows[p]] + count))


@njit(nogil=True, cache=True)
def _add_postings(
    start: int, stop: int, scores: np.ndarray, words: np.ndarray, starts: np.ndarray,
    first: int, last: int, weights: np.ndarray, rows: np.ndarray, row_starts: np.ndarray,
) -> None:  # fmt: skip
    """Score queries ``start`` to ``stop`` of a block against the documents ``first`` to ``last``.

    A document's weights are added in the order of the query's words, so blocks do not change its score.
    """
    for i in range(start, stop):
        for word in words[starts[i] : starts[i + 1]]:
            end = row_starts[word + 1]
            p = row_starts[word] + np.searchsorted(rows[row_starts[word] : end], first)
            while p < end and rows[p] < last:
                scores[i, rows[p] - first] += weights[p]
                p += 1


@njit(nogil=True, cache=True)
def _add_pairs(
    scores: np.ndarray, queries: np.ndarray, documents: np.ndarray, words: np.ndarray, starts: np.ndarray,
    weights: np.ndarray, rows: np.ndarray, row_starts: np.ndarray,
) -> None:  # fmt: skip
    """Score pair ``p``, query ``queries[p]`` and document ``documents[p]``, in the order of the query's words."""
    for p in range(len(scores)):
        for word in words[starts[queries[p]] : starts[queries[p] + 1]]:
            first, end = row_starts[word], row_starts[word + 1]
            place = first + np.searchsorted(rows[first:end], documents[p])
            if place < end and rows[place] == documents[p]:
                scores[p] += weights[place]
