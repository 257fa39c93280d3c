"""BM25, the lexical baseline that every tower is compared with: bm25s, Snowball stems, no stop words."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import torch
from numba import njit
from torch import Tensor

from two_tower.errors import UserError
from two_tower.files import atomic_path
from two_tower.ranking import Ranking, RowPairs, Score, rank
from two_tower.threads import in_parts

Texts: TypeAlias = pa.ChunkedArray | pa.Array | Sequence[str]

# Letters and digits of any script; an underscore separates, so `cosine_similarity` is two words. MRR@10 on
# MS MARCO is within .003 of bm25s's own pattern `\b\w\w+\b`; on program documentation .526 instead of .478.
_WORD = re.compile(r"[^\W_]+")
# Where camelCase and HTMLParser fall apart: before a capital after a small letter or digit, and before the
# last capital of several if a small letter follows.
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def words(text: str, split_camel_case: bool = False) -> list[str]:
    """The words of a text in lower case: runs of letters and digits of any script.

    ``split_camel_case`` splits ``ReduceLROnPlateau`` into reduce, lr, on, plateau; for texts about programs.
    """
    return _WORD.findall((_HUMP.sub(" ", text) if split_camel_case else text).lower())


def word_spans(text: str, split_camel_case: bool = False, initials: str = "") -> list[tuple[int, int]]:
    """The span of each of the `words` in a text: first character and the one after the last.

    ``initials`` leaves out words that begin with none of these letters, which saves two thirds of the time.
    """
    pattern: str | re.Pattern[str] = rf"(?<![^\W_])[{re.escape(initials)}][^\W_]*" if initials else _WORD
    runs = [match.span() for match in re.finditer(pattern, text, re.IGNORECASE if initials else 0)]
    if not split_camel_case:
        return runs
    spans: list[tuple[int, int]] = []
    for first, end in runs:
        cuts = [first, *(first + m.start() for m in _HUMP.finditer(text[first:end])), end]
        spans += pairwise(cuts)
    return spans


class BM25:
    """Lexical scores of a corpus (Lucene's variant of BM25, which never gives negative weights).

    ``k1`` (saturation) says how much repeated occurrences of a word add, ``b`` (0 to 1) how much long documents are
    discounted. The defaults are Anserini's for MS MARCO. ``split_camel_case`` holds for queries as well, see `words`.
    """

    def __init__(self, documents: Texts, k1: float = 0.9, b: float = 0.4, split_camel_case: bool = False) -> None:
        if not len(documents):
            raise UserError("BM25 needs at least one document, but the corpus is empty.")
        self.split_camel_case, self._documents, self._stems = split_camel_case, len(documents), _Stems()
        texts = documents.to_pylist() if isinstance(documents, pa.Array | pa.ChunkedArray) else documents
        ids = [[self._stems[w] for w in words(text, split_camel_case)] for text in texts]
        self._weights, self._rows, self._starts = _postings(ids, self._stems.numbers, k1, b)

    def __len__(self) -> int:
        return self._documents

    def known(self, query: str) -> bool:
        """Whether any document has a word of the query."""
        return bool(self._stems.known(words(query, self.split_camel_case)))

    def save(self, path: Path, fingerprint: str) -> None:
        """Write the index into a file, atomically; ``fingerprint`` is that of the documents."""
        stems = np.frombuffer("\n".join(self._stems.numbers).encode(), np.uint8)
        about = np.array([fingerprint, str(self._documents), str(self.split_camel_case)])
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, about=about, stems=stems, weights=self._weights, rows=self._rows, starts=self._starts)

    @classmethod
    def load(cls, path: Path, split_camel_case: bool, fingerprint: str) -> BM25 | None:
        """What `save` wrote; None if there is no such file, or it is of other documents or damaged."""
        bm25 = cls.__new__(cls)
        try:
            with np.load(path) as kept:
                of, documents, split = kept["about"].tolist()
                if (of, split) != (fingerprint, str(split_camel_case)):
                    return None
                stems = kept["stems"].tobytes().decode()
                bm25._weights, bm25._rows, bm25._starts = kept["weights"], kept["rows"], kept["starts"]
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None
        bm25.split_camel_case, bm25._documents, bm25._stems = split_camel_case, int(documents), _Stems()
        bm25._stems.numbers = {stem: i for i, stem in enumerate(stems.split("\n"))} if stems else {}
        return bm25

    def scorer(self, queries: Sequence[str]) -> Score:
        """A function that scores blocks, for `two_tower.ranking.rank`; a block costs memory for itself only.

        A document without any word of the query scores 0; a word that occurs twice in a query counts twice.
        """
        flat, starts = self._numbers(queries)

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
        _add_pairs(scores, *pairs, *self._numbers(queries), self._weights, self._rows, self._starts)
        return scores

    def _numbers(self, queries: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Stems of the queries that occur in the corpus, one query after another, and (Q + 1,) where each begins."""
        ids = [self._stems.known(words(query, self.split_camel_case)) for query in queries]
        starts = np.zeros(len(ids) + 1, np.int64)
        np.cumsum([len(i) for i in ids], out=starts[1:])
        return np.fromiter((i for query in ids for i in query), np.int64, count=int(starts[-1])), starts

    def rank(self, queries: Sequence[str], *, order: np.ndarray, pairs: RowPairs | None = None, k: int = 0) -> Ranking:
        """Rank the corpus for every query, see `two_tower.ranking.rank`; without a word of it, nothing is retrieved."""
        return rank(self.scorer(queries), len(queries), len(self), order=order, pairs=pairs, k=k, floor=0.0)


class _Stems(dict[str, int]):
    """Word → number of its stem; stems each distinct word once."""

    def __init__(self) -> None:
        import Stemmer

        super().__init__()
        self.numbers: dict[str, int] = {}  # of the stems, in the order in which they first occur
        self._stem = Stemmer.Stemmer("english").stemWord

    def __missing__(self, word: str) -> int:
        number = self[word] = self.numbers.setdefault(self._stem(word), len(self.numbers))
        return number

    def known(self, query: list[str]) -> list[int]:
        """Numbers of the words whose stems occur in the corpus; learns nothing."""
        numbers = (self.numbers.get(self._stem(word)) for word in query)
        return [number for number in numbers if number is not None]


def _postings(ids: list[list[int]], numbers: dict[str, int], k1: float, b: float) -> tuple[np.ndarray, ...]:
    """The index of bm25s: float32 weights and int32 document rows by stem, int64 starts of the stems."""
    import bm25s

    # It sets its own level to DEBUG, so its chatter would reach every log that has a handler.
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    if not numbers:
        return np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros(1, np.int64)
    # Its numba backend compiles anew for each index (1 s); only the index is needed here.
    index = bm25s.BM25(k1=k1, b=b, method="lucene", backend="numpy")
    index.index((ids, numbers), create_empty_token=False, show_progress=False)
    return index.scores["data"], index.scores["indices"], index.scores["indptr"]


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
