"""Sources whose rows each hold a query together with its passages: a *group*.

One pass over the groups gives the corpus. What it leaves in memory (ids, queries, which passages belong to
which query) answers everything else, so a stream is not read again for each split.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.cache import notice
from two_tower.data.base import QRELS, TRIPLETS, Source
from two_tower.data.reading.arrow import blank
from two_tower.data.reading.unique import Numbering, OneText, hash_rows
from two_tower.errors import BadRows, UserError, one_of
from two_tower.ragged import expand_ranges

_QUERIES_AT_ONCE = 4096  # queries whose triplets make a batch: 40,000 with 10 passages each


@dataclass(frozen=True)
class Groups:
    """Q queries and P passages that came with them."""

    rows: np.ndarray  # (Q,) int64, number of each query's row in its file, from 1
    queries: pa.Table  # Q rows of `QUERIES`: id, null where it is missing; text, null where the id is unknown
    owner: np.ndarray  # (P,) int64, which of the Q queries a passage came with
    grades: np.ndarray  # (P,) int32; above 0 for a passage that is marked as an answer
    passages: pa.Table  # P rows of the schema `CORPUS`, perhaps with `FIELDS`
    keys: np.ndarray  # (P,) uint64, equal for passages that are one and the same

    def with_queries(self, kept: np.ndarray) -> Groups:
        """These queries, (Q,) bool, and what came with them."""
        if kept.all():
            return self
        groups, numbers = self.with_passages(kept[self.owner]), np.cumsum(kept) - 1
        queries = self.queries.filter(pa.array(kept))
        return replace(groups, rows=self.rows[kept], queries=queries, owner=numbers[groups.owner])

    def with_passages(self, kept: np.ndarray) -> Groups:
        """All queries, with these of their passages, (P,) bool."""
        if kept.all():
            return self
        passages = self.passages.filter(pa.array(kept))
        owner, grades, keys = self.owner[kept], self.grades[kept], self.keys[kept]
        return replace(self, owner=owner, grades=grades, passages=passages, keys=keys)


@dataclass(frozen=True)
class Part:
    """One file or stream of groups."""

    split: str | None  # whose queries they are; None where there are only passages, one in each row
    label: str  # its name, for messages
    read: Callable[[BadRows], Iterator[Groups]]  # its groups, read anew each time; takes the bad rows
    closed: bool = False  # its passages are among those of the parts before it; others are not there
    has_ids: bool = False  # passages are the same where their ids are, so their texts may contradict each other


@dataclass(frozen=True)
class Links:
    """The passages of each query of a split, in rows of the queries and of the corpus."""

    queries: pa.Table  # Q rows of the schema `QUERIES`
    query_rows: np.ndarray  # (L,) int32, ascending
    document_rows: np.ndarray  # (L,) int32; ascending for each query, no pair twice
    grades: np.ndarray  # (L,) int32; above 0 is relevant
    absent: pa.Table  # judgements, rows of `QRELS`, of passages that are not there

    @property
    def answered(self) -> np.ndarray:
        """Which queries have a relevant passage, there or not, (Q,) bool."""
        relevant = self.absent["query_id"].filter(pc.greater(self.absent["grade"], 0))
        answered = pc.is_in(self.queries["id"], relevant.combine_chunks()).to_numpy().copy()
        answered[self.query_rows[self.grades > 0]] = True
        return answered

    def part(self, chosen: np.ndarray) -> Links:
        """The links of the chosen queries, (Q,) bool."""
        kept = chosen[self.query_rows]
        rows = (np.cumsum(chosen) - 1).astype(np.int32)[self.query_rows[kept]]
        queries = self.queries.filter(pa.array(chosen))
        absent = self.absent.filter(pc.is_in(self.absent["query_id"], queries["id"]))
        return Links(queries, rows, self.document_rows[kept], self.grades[kept], absent)

    def triplets(self, first: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every (query, relevant passage, other passage) of the queries ``first`` to ``stop``, (T,) int32 rows each."""
        begin, end = np.searchsorted(self.query_rows, (first, stop))
        query, document = self.query_rows[begin:end], self.document_rows[begin:end]
        relevant = self.grades[begin:end] > 0
        positives, negatives = np.flatnonzero(relevant), np.flatnonzero(~relevant)
        # The negatives of a query lie together: for each positive, where they begin and end.
        starts = np.searchsorted(query[negatives], query[positives])
        ends = np.searchsorted(query[negatives], query[positives], side="right")
        owner, place = expand_ranges(starts, ends)
        positive, negative = positives[owner], negatives[place]
        return query[positive], document[positive], document[negative]


class GroupSource(Source):
    """What all sources of groups share; a source implements `_parts`, `splits` and `fingerprint`.

    Bad rows (empty texts, missing ids, ids that another text had before) are left out and counted up to a
    limit, each query and each passage as a row. A query of which no passage is marked is left out, its
    passages are kept. Memory: the queries, each distinct passage's id and, while the corpus is read, up to 60
    bytes for it; 12 bytes for each time that a passage comes with a query.
    """

    repeated_queries = True  # a query may come in several rows, which are then joined
    judged_negatives = False  # a passage that is not marked was judged irrelevant; otherwise it was not judged

    def __init__(self, name: str, max_bad_rows: float) -> None:
        super().__init__(name, max_bad_rows)
        self._ids: pa.Array | None = None
        self._links: dict[str, Links] = {}

    @abstractmethod
    def _parts(self, fields: bool = False) -> Iterator[Part]:
        """The parts, in the order of the corpus; with ``fields``, passages may have a column `FIELDS`."""

    def _no_split(self, split: str) -> str:
        """Why there is no such split, as the first part of a sentence."""
        return f"{self.name} has no split {split!r}"

    def _divided(self, links: dict[str, Links]) -> dict[str, Links]:
        """Here a source may split off other splits."""
        return links

    def corpus(self) -> Iterator[pa.RecordBatch]:
        """All passages, each once: with the id and the text of its first appearance."""
        return self._read(self._parts())

    def search_corpus(self) -> Iterator[pa.RecordBatch]:
        return self._read(self._parts(fields=True))

    def _read(self, parts: Iterator[Part]) -> Iterator[pa.RecordBatch]:
        index = _Index(self)
        for part in parts:
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
        """The queries of a split that have a marked passage."""
        links = self._judged(split)[0]
        return links.queries.filter(pa.array(links.answered))

    def qrels(self, split: str) -> pa.Table:
        """The judgements of a split, query by query; grade 0 is given, but not relevant."""
        links, ids = self._judged(split)
        kept = links.answered[links.query_rows] & ((links.grades > 0) | self.judged_negatives)
        query_ids = links.queries["id"].take(pa.array(links.query_rows[kept]))
        document_ids = ids.take(pa.array(links.document_rows[kept]))
        present = pa.table([query_ids, document_ids, pa.array(links.grades[kept])], QRELS)
        return pa.concat_tables([present, links.absent])

    def triplets(self) -> Iterator[pa.RecordBatch] | None:
        """Every (query, marked passage, unmarked passage) of ``train``, query by query."""
        return self._triplets() if "train" in self.splits() else None

    def _triplets(self) -> Iterator[pa.RecordBatch]:
        links, ids = self._judged("train")
        for first in range(0, len(links.queries), _QUERIES_AT_ONCE):
            query, positive, negative = links.triplets(first, first + _QUERIES_AT_ONCE)
            if len(query):
                query_ids = links.queries["id"].take(pa.array(query)).combine_chunks()
                columns = [query_ids, ids.take(pa.array(positive)), ids.take(pa.array(negative))]
                yield pa.RecordBatch.from_arrays(columns, schema=TRIPLETS)

    def _judged(self, split: str) -> tuple[Links, pa.Array]:
        if split not in self.splits():
            raise UserError(f"{self._no_split(split)}: {one_of(split, self.splits())}")
        if self._ids is None:
            deque(self.corpus(), maxlen=0)  # reads it to its end
        links = self._links.get(split)
        if links is None or not (links.grades > 0).any():
            raise UserError(f"No query of {self.name}, split {split}, has a passage that is marked as its answer")
        assert self._ids is not None
        return links, self._ids

    def _report_unjudged(self) -> None:
        for split in self.splits():
            links = self._links.get(split)
            if links is not None and (left := int((~links.answered).sum())):
                notice(
                    f"{self.name}, split {split}: {left} of {len(links.queries)} queries have no passage that is "
                    "marked as an answer; left out."
                )


class _LinksBuilder:
    """Collects the links of a split; a query may come more than once, and its first text counts."""

    def __init__(self) -> None:
        self._numbering = Numbering()
        self._queries: list[pa.Table] = []
        self._links: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # query rows, document rows, grades
        self.absent = [QRELS.empty_table()]

    def add(self, groups: Groups, document_rows: np.ndarray) -> None:
        numbers, new = self._numbering.add(hash_rows(groups.queries["id"]))
        self._queries.append(groups.queries.filter(pa.array(new)))
        self._links.append((numbers[groups.owner], document_rows, groups.grades))

    def build(self) -> Links:
        """The links in order, each pair once, with the highest of its grades."""
        queries = pa.concat_tables(self._queries).combine_chunks()
        query_rows, document_rows, grades = map(np.concatenate, zip(*self._links, strict=True))
        pairs = query_rows.astype(np.int64) << 32 | document_rows
        order = np.argsort(pairs, kind="stable")  # fast because most rows are in order
        first = np.flatnonzero(np.diff(pairs[order], prepend=-1))
        kept, grades = order[first], grades[order]
        grades = np.maximum.reduceat(grades, first) if len(first) else grades
        return Links(queries, query_rows[kept], document_rows[kept], grades, pa.concat_tables(self.absent))


class _Index:
    """What is kept of the groups while the corpus is read."""

    def __init__(self, source: GroupSource) -> None:
        self.ids: list[pa.Array] = []
        self.links: dict[str, _LinksBuilder] = defaultdict(_LinksBuilder)
        self._source = source
        self._passages, self._queries = Numbering(), Numbering()
        self._query_texts: dict[str, OneText] = {}
        self._passage_texts = OneText()

    def add(self, part: Part, groups: Groups, bad: BadRows) -> pa.Table:
        """Take groups in; returns the passages that are new, rows of the schema `CORPUS`."""
        if part.split is not None:
            groups = self._good_queries(part.split, part.label, groups, bad)
        if part.closed:
            unknown = self._passages.find(groups.keys) < 0
            if unknown.any() and part.split is not None:
                query_ids = groups.queries["id"].take(pa.array(groups.owner))
                judged = pa.table([query_ids, groups.passages["id"], pa.array(groups.grades)], QRELS)
                self.links[part.split].absent.append(judged.filter(pa.array(unknown)))
            groups = groups.with_passages(~unknown)
        else:
            groups = self._good_passages(part, groups, bad)
        numbers, new = self._passages.add(groups.keys)
        if part.split is not None:
            self.links[part.split].add(groups, numbers)
        passages = groups.passages.filter(pa.array(new)).combine_chunks()
        if len(passages):
            self.ids.append(passages["id"].combine_chunks())
        return passages

    def _good_queries(self, split: str, label: str, groups: Groups, bad: BadRows) -> Groups:
        checks: list[tuple[str, Callable[[pa.Table], np.ndarray]]] = [
            ("missing query_id", lambda queries: queries["id"].is_null().to_numpy()),
            ("unknown query_id", lambda queries: queries["text"].is_null().to_numpy()),
            ("query without text", lambda queries: blank(queries["text"])),
            ("query_id that another query had before", lambda queries: self._repeated(split, queries)),
        ]
        for kind, check in checks:
            wrong, ids = check(groups.queries), groups.queries["id"]
            bad.add_where(wrong, kind, label, groups.rows, None if kind.startswith("missing") else ids)
            groups = groups.with_queries(~wrong)
        return groups

    def _repeated(self, split: str, queries: pa.Table) -> np.ndarray:
        """Which queries have an id that came before, though it must not."""
        if not self._source.repeated_queries:
            return ~self._queries.add(hash_rows(queries["id"]))[1]
        return self._query_texts.setdefault(split, OneText()).contradictions(*queries.columns)

    def _good_passages(self, part: Part, groups: Groups, bad: BadRows) -> Groups:
        ids, titles, texts = groups.passages.columns[:3]
        rows, missing = groups.rows[groups.owner], blank(ids)
        bad.add_where(missing, "missing passage id", part.label, rows)
        empty = blank(titles) & blank(texts) & ~missing
        bad.add_where(empty, "empty passage", part.label, rows, ids)
        groups = groups.with_passages(~(missing | empty))
        if part.has_ids:
            different = self._passage_texts.contradictions(*groups.passages.columns[:3])
            kind, rows = "passage id that another text had before", groups.rows[groups.owner]
            bad.add_where(different, kind, part.label, rows, groups.passages["id"])
        return groups
