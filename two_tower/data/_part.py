"""A part of a corpus as a corpus of its own: fewer passages, the same queries and judgements."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from two_tower.cache import key_of
from two_tower.data.base import Source
from two_tower.data.stream.corpus import Corpus, Split

__all__ = ["PartOfSource", "part_of"]


class PartOfSource(Source):
    """Some passages of a source; its queries and judgements are as they were.

    Its fingerprint is its own, so what is measured on a part is never taken for a figure of the whole.

    Args:
        source: the whole.
        rows: (n,) int64, the passages, ascending.
    """

    def __init__(self, source: Source, rows: np.ndarray) -> None:
        self.source, self.rows, self.name = source, rows, source.name

    def corpus(self) -> Iterator[pa.RecordBatch]:
        """The part's passages, read from the source batch by batch."""
        return _picked(self.source.corpus(), self.rows)

    def splits(self) -> tuple[str, ...]:
        """The splits of the source."""
        return self.source.splits()

    def qrels(self, split: str) -> pa.Table:
        """Judgements of a split, those of passages outside the part included."""
        return self.source.qrels(split)

    def queries(self, split: str) -> pa.Table:
        """The queries of a split."""
        return self.source.queries(split)

    def fingerprint(self) -> str:
        """Changes with the source and with the rows."""
        rows = hashlib.blake2b(self.rows.astype(np.int64).tobytes(), digest_size=12).hexdigest()
        return key_of("part", self.source.fingerprint(), rows)


def part_of(corpus: Corpus, split: Split, rows: np.ndarray) -> tuple[Corpus, Split]:
    """Some passages of a corpus, and a split with its judgements in rows of this part.

    Memory grows with the part: the corpus may be memory-mapped and larger than memory.

    Args:
        corpus: N passages.
        split: queries; every passage that is judged for one of them is in the part.
        rows: (n,) int64, the passages, ascending and without repetition.
    """
    part = replace(
        corpus,
        source=PartOfSource(corpus.source, rows),
        ids=pa.chunked_array(list(_picked(corpus.ids.chunks, rows)), corpus.ids.type),
        tokens=corpus.tokens.select(rows),
        hashes=corpus.hashes[rows],
        order=np.argsort(np.argsort(corpus.order[rows])),  # places among the part's ids
    )
    found = np.searchsorted(rows, split.qrels.document_rows)
    qrels = replace(split.qrels, document_rows=np.where(split.qrels.present, found, -1))
    return part, replace(split, qrels=qrels)


def _picked(pieces: Iterable[Any], rows: np.ndarray) -> Iterator[Any]:
    """Ascending rows of Arrow arrays or batches that follow one another, as copies; holds one piece at a time."""
    start = 0
    for piece in pieces:
        first, last = np.searchsorted(rows, (start, start + len(piece)))
        if first < last:
            yield piece.take(pa.array(rows[first:last] - start))
        start += len(piece)
