"""From string ids to rows: the corpus, and a split's queries with their judgements."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.data.source import QUERIES, Source, full_text
from two_tower.errors import UserError
from two_tower.metrics import Qrels
from two_tower.ragged import Ragged
from two_tower.ranking import id_order

__all__ = ["Corpus", "Split", "rows_of", "text_groups"]

log = logging.getLogger(__name__)


def rows_of(ids: pa.Array | pa.ChunkedArray, among: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Row of each id in ``among``, int64; -1 where it does not occur."""
    if isinstance(among, pa.ChunkedArray):
        among = among.combine_chunks()
    return pc.fill_null(pc.index_in(ids, value_set=among), -1).to_numpy().astype(np.int64)


@numba.njit(nogil=True, cache=True)
def _hash_texts(ids: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    out = np.empty(len(offsets) - 1, np.uint64)
    for b in range(len(out)):
        h = np.uint64(0xCBF29CE484222325)
        for t in range(offsets[b], offsets[b + 1]):
            h = (h ^ np.uint64(ids[t])) * np.uint64(0x9E3779B97F4A7C15)
            h ^= h >> np.uint64(29)
        out[b] = h
    return out


def text_groups(tokens: Ragged) -> np.ndarray:
    """(B,) int64: equal numbers for texts of equal tokens, by a 64-bit hash of the token sequence."""
    hashes = _hash_texts(tokens.ids.numpy(), tokens.offsets.numpy())
    return np.unique(hashes, return_inverse=True)[1].astype(np.int64)


@dataclass(frozen=True)
class Corpus:
    """All passages of a source, in its order.

    Attributes:
        ids: (N,) string ids.
        texts: (N,) what towers and BM25 read: title and text.
    """

    ids: pa.ChunkedArray
    texts: pa.ChunkedArray

    @classmethod
    def load(cls, source: Source) -> Corpus:
        """Read a source's corpus.

        Raises:
            UserError: it has no passages.
        """
        batches = list(source.corpus())
        ids = pa.chunked_array([b.column("id") for b in batches], pa.string())
        if len(ids) == 0:
            raise UserError(f"The corpus of {source.name} is empty: there is nothing to search.")
        return cls(ids, pa.chunked_array([full_text(b) for b in batches], pa.string()))

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def order(self) -> np.ndarray:
        """(N,) int64: place of each id in ascending byte order, which decides between equal scores."""
        return id_order(self.ids)


@dataclass(frozen=True)
class Split:
    """The queries of one split and their judgements, in rows of this split and of the corpus.

    Attributes:
        name: ``train``, ``dev`` or ``test``.
        ids: (Q,) string ids.
        texts: (Q,) the queries.
        qrels: judgements; only of documents that the corpus holds.
    """

    name: str
    ids: pa.ChunkedArray
    texts: pa.ChunkedArray
    qrels: Qrels

    @classmethod
    def load(cls, source: Source, name: str, corpus: Corpus) -> Split:
        """Read a split; judgements of unknown queries or documents are counted and reported.

        Raises:
            UserError: the split does not exist or has no judged query.
        """
        queries, judged = source.queries(name).select(QUERIES.names), source.qrels(name)
        if queries.num_rows == 0:
            raise UserError(f"The split {name} of {source.name} has no queries.")
        query_rows = rows_of(judged["query_id"], queries["id"])
        document_rows = rows_of(judged["document_id"], corpus.ids)
        known = (query_rows >= 0) & (document_rows >= 0)
        if not known.all():
            log.warning(
                "%s, split %s: %d of %d judgements name a query or passage that does not exist; left out.",
                source.name, name, int((~known).sum()), len(known),
            )  # fmt: skip
        kept = np.flatnonzero(known)
        kept = kept[np.argsort(query_rows[kept], kind="stable")]
        grades = judged["grade"].to_numpy()[kept].astype(np.int32)
        qrels = Qrels(query_rows[kept], document_rows[kept], grades, queries.num_rows)
        return cls(name, queries["id"], queries["text"], qrels)

    def __len__(self) -> int:
        return len(self.ids)
