"""Sources whose rows each hold a query together with its passages: a *group*.

One pass over the groups gives the corpus. What it leaves in memory (ids, queries, which passages belong to
which query) answers everything else, so that a stream is not read again for each split.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.cache import notice
from two_tower.data.base import QRELS, TRIPLETS
from two_tower.data.reading.file_source import FileSource
from two_tower.data.reading.links import Links, LinksBuilder
from two_tower.data.reading.numbering import Numbering
from two_tower.data.reading.rows import BadRows
from two_tower.data.reading.unique import HashSet, OneText, hash_rows
from two_tower.errors import UserError, one_of

__all__ = ["GroupSource", "Groups", "Part"]

_QUERIES_AT_ONCE = 4096  # queries whose triplets make a batch: 40,000 of 10 passages each


@dataclass(frozen=True)
class Groups:
    """Q queries and P passages that came with them.

    Attributes:
        rows: (Q,) int64, number of each query's row in its file, from 1.
        query_ids: (Q,) string; null where it is missing.
        queries: (Q,) string; null where the id is that of no query.
        owner: (P,) int64, which of the Q queries a passage came with.
        grades: (P,) int32; above 0 for a passage that is marked as an answer.
        passages: P rows of the schema `two_tower.data.base.CORPUS`.
        keys: (P,) uint64, equal for passages that are one and the same.
    """

    rows: np.ndarray
    query_ids: pa.Array
    queries: pa.Array
    owner: np.ndarray
    grades: np.ndarray
    passages: pa.Table
    keys: np.ndarray

    def without_queries(self, left_out: np.ndarray) -> Groups:
        """Without queries, (Q,) bool, and what came with them."""
        if not left_out.any():
            return self
        stays, numbers = ~left_out, np.cumsum(~left_out) - 1
        groups = self.without_passages(left_out[self.owner])
        return replace(
            groups,
            rows=self.rows[stays],
            query_ids=self.query_ids.filter(pa.array(stays)),
            queries=self.queries.filter(pa.array(stays)),
            owner=numbers[groups.owner],
        )

    def without_passages(self, left_out: np.ndarray) -> Groups:
        """Without passages, (P,) bool."""
        if not left_out.any():
            return self
        stays = ~left_out
        return replace(
            self,
            owner=self.owner[stays],
            grades=self.grades[stays],
            passages=self.passages.filter(pa.array(stays)),
            keys=self.keys[stays],
        )


@dataclass(frozen=True)
class Part:
    """One file or stream of groups.

    Attributes:
        split: whose queries they are; None where it has passages only, each the one passage of a row.
        label: its name, for messages.
        read: its groups, read anew each time; takes the bad rows.
        closed: its passages are among those of the parts before it; others are mistakes.
        has_ids: its passages are one and the same where their ids are, so that texts may contradict each other.
    """

    split: str | None
    label: str
    read: Callable[[BadRows], Iterator[Groups]]
    closed: bool = False
    has_ids: bool = False


class GroupSource(FileSource):
    """What all sources of groups share.

    Bad rows (empty texts, missing ids, ids that another text had before) are left out and counted up to a
    limit, each query and each passage as a row. A query of which no passage is marked is left out, its
    passages are kept. Memory: the queries, each distinct passage's id and, while the corpus is read, up to 60
    bytes for it; 12 bytes for each time that a passage comes with a query.

    Args:
        name: short name for folders and messages.
        max_bad_rows: the fraction of a file's rows that may be bad before reading it is an error.
        repair_encoding: whether to repair UTF-8 that was encoded twice.

    Attributes:
        name: as above.
        bad_rows: the bad rows of each part that was read to its end, by its label.
    """

    #: Whether a query may come in several rows, which are then joined.
    repeated_queries = True
    #: Whether a passage that is not marked was judged irrelevant; otherwise it was not judged.
    judged_negatives = False

    def __init__(self, name: str, max_bad_rows: float, repair_encoding: bool) -> None:
        super().__init__(max_bad_rows, repair_encoding)
        self.name = name
        self._ids: pa.Array | None = None
        self._links: dict[str, Links] = {}

    @abstractmethod
    def _parts(self) -> Iterator[Part]:
        """The parts, in the order of the corpus."""

    @abstractmethod
    def _no_split(self, split: str) -> str:
        """Why there is no such split, as the first part of a sentence."""

    def _divided(self, links: dict[str, Links]) -> dict[str, Links]:
        """The links by split; here a source may make splits out of others."""
        return links

    def corpus(self) -> Iterator[pa.RecordBatch]:
        """All passages in the order of the rows, each once: with the id and the text of its first appearance.

        Raises:
            UserError: it cannot be read, too many rows were bad, or there was no passage.
        """
        index = _Index(self)
        for part in self._parts():
            bad, total = BadRows(self.max_bad_rows), 0
            for groups in part.read(bad):
                total += len(groups.keys) + (len(groups.rows) if part.split else 0)
                yield from index.add(part, groups, bad).to_batches()
            bad.check(total)
            self._report(part.label, bad)
        if not index.ids:
            raise UserError(f"{self.name} holds no passage")
        if self._ids is None:
            self._links = self._divided({split: links.build() for split, links in index.links.items()})
            self._ids = pa.concat_arrays(index.ids)
        self._report_unjudged()

    def queries(self, split: str) -> pa.Table:
        """The queries of a split that have a marked passage, in the order of their first rows."""
        links = self._judged(split)
        return links.queries.filter(pa.array(links.answered))

    def qrels(self, split: str) -> pa.Table:
        """The judgements of a split, query by query; grade 0 is shown, but not relevant."""
        links = self._judged(split)
        kept = links.answered[links.query_rows] & ((links.grades > 0) | self.judged_negatives)
        assert self._ids is not None
        return pa.table(
            [
                links.queries["id"].take(pa.array(links.query_rows[kept])),
                self._ids.take(pa.array(links.document_rows[kept])),
                pa.array(links.grades[kept]),
            ],
            QRELS,
        )

    def triplets(self) -> Iterator[pa.RecordBatch] | None:
        """Every (query, marked passage, unmarked passage) of ``train``, query by query."""
        return self._triplets() if "train" in self.splits() else None

    def _triplets(self) -> Iterator[pa.RecordBatch]:
        links = self._judged("train")
        assert self._ids is not None
        for first in range(0, len(links.queries), _QUERIES_AT_ONCE):
            query, positive, negative = links.triplets(first, first + _QUERIES_AT_ONCE)
            if len(query):
                ids = links.queries["id"].take(pa.array(query)).combine_chunks()
                columns = [ids, self._ids.take(pa.array(positive)), self._ids.take(pa.array(negative))]
                yield pa.RecordBatch.from_arrays(columns, schema=TRIPLETS)

    def _judged(self, split: str) -> Links:
        if split not in self.splits():
            raise UserError(f"{self._no_split(split)}: {one_of(split, self.splits())}")
        if self._ids is None:
            for _ in self.corpus():
                pass
        links = self._links.get(split)
        if links is None or not links.answered.any():
            raise UserError(f"No query of {self.name}, split {split}, has a passage that is marked as its answer")
        return links

    def _report_unjudged(self) -> None:
        for split in self.splits():
            links = self._links.get(split)
            if links is not None and not links.answered.all():
                left, total = int((~links.answered).sum()), len(links.answered)
                notice(
                    f"{self.name}, split {split}: {left} of {total} queries have no passage that is marked as an "
                    "answer; left out."
                )


class _Index:
    """What is kept of the groups while the corpus is read."""

    def __init__(self, source: GroupSource) -> None:
        self.ids: list[pa.Array] = []
        self.links: dict[str, LinksBuilder] = {}
        self._source = source
        self._numbering = Numbering()
        self._queries = HashSet()
        self._query_texts: dict[str, OneText] = {}
        self._passage_texts = OneText()

    def add(self, part: Part, groups: Groups, bad: BadRows) -> pa.Table:
        """Take groups in; returns the passages that are new, rows of the schema `CORPUS`."""
        if part.split is not None:
            groups = self._good_queries(part.split, part.label, groups, bad)
        groups = self._known_passages(part, groups, bad) if part.closed else self._good_passages(part, groups, bad)
        numbers, new = self._numbering.add(groups.keys)
        if part.split is not None:
            links = self.links.setdefault(part.split, LinksBuilder())
            links.add(groups.query_ids, groups.queries, groups.owner, numbers, groups.grades)
        passages = groups.passages.filter(pa.array(new)).combine_chunks()
        if len(passages):
            self.ids.append(passages["id"].combine_chunks())
        return passages

    def _good_queries(self, split: str, label: str, groups: Groups, bad: BadRows) -> Groups:
        left_out = groups.query_ids.is_null().to_numpy(zero_copy_only=False)
        _count(bad, "missing query_id", label, groups.rows, left_out)
        groups = groups.without_queries(left_out)
        left_out = groups.queries.is_null().to_numpy(zero_copy_only=False)
        _count(bad, "unknown query_id", label, groups.rows, left_out, groups.query_ids)
        groups = groups.without_queries(left_out)
        left_out = _blank(groups.queries)
        _count(bad, "query without text", label, groups.rows, left_out, groups.query_ids)
        groups = groups.without_queries(left_out)
        left_out = self._repeated(split, groups)
        _count(bad, "query_id that another query had before", label, groups.rows, left_out, groups.query_ids)
        return groups.without_queries(left_out)

    def _repeated(self, split: str, groups: Groups) -> np.ndarray:
        """Queries (Q,) bool whose id came before, though it must not."""
        ids, texts = pa.chunked_array([groups.query_ids]), pa.chunked_array([groups.queries])
        if not self._source.repeated_queries:
            return self._queries.add(hash_rows(ids))
        return self._query_texts.setdefault(split, OneText()).contradictions(ids, texts)

    def _known_passages(self, part: Part, groups: Groups, bad: BadRows) -> Groups:
        unknown = self._numbering.find(groups.keys) < 0
        _count(bad, "unknown passage id", part.label, groups.rows[groups.owner], unknown, groups.passages["id"])
        return groups.without_passages(unknown)

    def _good_passages(self, part: Part, groups: Groups, bad: BadRows) -> Groups:
        ids, titles, texts = groups.passages.columns
        left_out = _blank(ids)
        _count(bad, "missing passage id", part.label, groups.rows[groups.owner], left_out)
        empty = _blank(titles) & _blank(texts) & ~left_out
        _count(bad, "empty passage", part.label, groups.rows[groups.owner], empty, ids)
        groups = groups.without_passages(left_out | empty)
        if part.has_ids:
            different = self._passage_texts.contradictions(*groups.passages.columns)
            kind, rows = "passage id that another text had before", groups.rows[groups.owner]
            _count(bad, kind, part.label, rows, different, groups.passages["id"])
        return groups


def _count(
    bad: BadRows,
    kind: str,
    label: str,
    rows: np.ndarray,
    which: np.ndarray,
    ids: pa.Array | pa.ChunkedArray | None = None,
) -> None:
    for row in np.flatnonzero(which):
        bad.add(kind, label, int(rows[row]), "" if ids is None else ids[int(row)].as_py())


def _blank(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    blank = pc.or_(pc.equal(pc.binary_length(column), 0), pc.utf8_is_space(column))
    return pc.fill_null(blank, True).to_numpy(zero_copy_only=False)
