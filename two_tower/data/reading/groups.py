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

from two_tower.cache import notice
from two_tower.data.base import QRELS, TRIPLETS, Source
from two_tower.data.reading.arrow import blank
from two_tower.data.reading.rows import Rows
from two_tower.data.reading.schemas import Groups, Schema
from two_tower.data.reading.unique import Numbering, OneText, hash_rows
from two_tower.errors import BadRows, UserError
from two_tower.ragged import expand_ranges

_QUERIES_AT_ONCE = 4096  # queries whose triplets make a batch: 40,000 with 10 passages each


@dataclass(frozen=True)
class Part:
    """One file or stream of groups."""

    split: str | None  # whose queries they are; None where there are only passages, one in each row
    rows: Rows
    schema: Schema  # makes the groups


@dataclass(frozen=True)
class Links:
    """The passages of each query of a split, in rows of the queries and of the corpus, behind which lie absent ones."""

    queries: pa.Table  # Q rows of the schema `QUERIES`
    query_rows: np.ndarray  # (L,) int32, ascending
    document_rows: np.ndarray  # (L,) int32; ascending for each query, no pair twice
    grades: np.ndarray  # (L,) int32; above 0 is relevant
    documents: int  # of the corpus; later rows are of passages that are judged, but not there

    def where(self, kept: np.ndarray) -> Links:
        """All queries, and these of the links, (L,) bool."""
        query_rows, document_rows, grades = self.query_rows[kept], self.document_rows[kept], self.grades[kept]
        return replace(self, query_rows=query_rows, document_rows=document_rows, grades=grades)

    def part(self, chosen: np.ndarray) -> Links:
        """The links of the chosen queries, (Q,) bool."""
        links, rows = self.where(chosen[self.query_rows]), (np.cumsum(chosen) - 1).astype(np.int32)
        return replace(links, queries=self.queries.filter(pa.array(chosen)), query_rows=rows[links.query_rows])

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
        self._links: dict[str, Links] = {}  # of queries that have a marked passage
        self._notices: list[str] = []

    @abstractmethod
    def _parts(self, fields: bool = False) -> Iterator[Part]:
        """The parts, in the order of the corpus; with ``fields``, passages may have a column `FIELDS`.

        Where some are passages only they come first, and are all passages that there are.
        """

    def _divided(self, links: dict[str, Links]) -> dict[str, Links]:
        """Here a source may split off other splits."""
        return links

    def corpus(self) -> Iterator[pa.RecordBatch]:
        """All passages, each once: with the id and the text of its first appearance."""
        return self._read(self._parts())

    def search_corpus(self) -> Iterator[pa.RecordBatch]:
        return self._read(self._parts(fields=True))

    def _read(self, parts: Iterator[Part]) -> Iterator[pa.RecordBatch]:
        index = _Index(self.repeated_queries)
        for part in parts:
            index.has_corpus |= part.split is None
            bad = BadRows(self.max_bad_rows)
            for groups in part.schema.read(part.rows, bad):
                bad.rows += len(groups.passages) if part.split else 0
                yield from index.add(part, groups, bad).to_batches()
            self._report(part.rows.place, bad)
        if not index.documents:
            raise UserError(f"{self.name} holds no passage")
        if self._ids is None:
            self._ids = pa.concat_arrays(index.ids)
            links = {split: found.build(index.documents) for split, found in index.links.items()}
            for split, found in self._divided(links).items():
                self._keep_answered(split, found)
        for text in self._notices:
            notice(text)

    def _keep_answered(self, split: str, links: Links) -> None:
        answered = np.isin(np.arange(len(links.queries)), links.query_rows[links.grades > 0])
        self._links[split] = links.part(answered)
        if split in self.splits() and not answered.all():
            self._notices.append(
                f"{self.name}, split {split}: {(~answered).sum()} of {len(answered)} queries have no passage that is "
                "marked as an answer; left out."
            )

    def queries(self, split: str) -> pa.Table:
        """The queries of a split that have a marked passage."""
        return self._judged(split)[0].queries

    def qrels(self, split: str) -> pa.Table:
        """The judgements of a split, query by query; grade 0 is given, but not relevant."""
        links, ids = self._judged(split)
        links = links if self.judged_negatives else links.where(links.grades > 0)
        query_ids = links.queries["id"].take(pa.array(links.query_rows))
        return pa.table([query_ids, ids.take(pa.array(links.document_rows)), pa.array(links.grades)], QRELS)

    def triplets(self) -> Iterator[pa.RecordBatch] | None:
        """Every (query, marked passage, unmarked passage) of ``train``, query by query."""
        return self._triplets() if "train" in self.splits() else None

    def _triplets(self) -> Iterator[pa.RecordBatch]:
        links, ids = self._judged("train")
        links = links.where(links.document_rows < links.documents)
        for first in range(0, len(links.queries), _QUERIES_AT_ONCE):
            query, positive, negative = links.triplets(first, first + _QUERIES_AT_ONCE)
            if len(query):
                query_ids = links.queries["id"].take(pa.array(query)).combine_chunks()
                columns = [query_ids, ids.take(pa.array(positive)), ids.take(pa.array(negative))]
                yield pa.RecordBatch.from_arrays(columns, schema=TRIPLETS)

    def _judged(self, split: str) -> tuple[Links, pa.Array]:
        if split not in self.splits():
            raise self._no_split(split)
        if self._ids is None:
            deque(self.corpus(), maxlen=0)  # reads it to its end
        links = self._links.get(split)
        if links is None or not (links.grades[links.document_rows < links.documents] > 0).any():
            raise UserError(f"No query of {self.name}, split {split}, has a passage that is marked as its answer")
        assert self._ids is not None
        return links, self._ids


class _LinksBuilder:
    """Collects the links of a split; a query may come more than once, and its first text counts."""

    def __init__(self) -> None:
        self._numbering = Numbering()
        self._queries: list[pa.Table] = []
        self._links: list[pa.Table] = []

    def add(self, groups: Groups, document_rows: np.ndarray) -> None:
        numbers, new = self._numbering.add(hash_rows(groups.queries["id"]))
        self._queries.append(groups.queries.filter(pa.array(new)))
        links = [numbers[groups.owner], document_rows, groups.grades]
        self._links.append(pa.table(links, ["query", "document", "grade"]))

    def build(self, documents: int) -> Links:
        """The links in order, each pair once, with the highest of its grades."""
        pairs = ["query", "document"]
        links = pa.concat_tables(self._links).group_by(pairs).aggregate([("grade", "max")])
        links = links.sort_by([(name, "ascending") for name in pairs])
        query_rows, document_rows, grades = (column.to_numpy() for column in links.columns)
        queries = pa.concat_tables(self._queries).combine_chunks()
        return Links(queries, query_rows, document_rows, grades, documents)


class _Index:
    """What is kept of the groups while the corpus is read."""

    def __init__(self, repeated_queries: bool) -> None:
        self.ids: list[pa.Array] = []  # of the corpus, then of passages that it lacks
        self.links: dict[str, _LinksBuilder] = defaultdict(_LinksBuilder)
        self.documents, self.has_corpus = 0, False  # passages so far; whether some parts are passages only
        self._repeated_queries = repeated_queries
        self._passages, self._passage_texts = Numbering(), OneText()
        self._query_texts: dict[str, OneText] = defaultdict(OneText)  # by split, or of all

    def add(self, part: Part, groups: Groups, bad: BadRows) -> pa.Table:
        """Take groups in; returns the passages that are new, rows of the schema `CORPUS`."""
        absent = self.has_corpus and part.split is not None  # then passages that are new are not there
        if part.split is not None:
            groups = self._good_queries(part, part.split, groups, bad)
        if not absent:
            groups = self._good_passages(part, groups, bad)
        numbers, new = self._passages.add(hash_rows(groups.passages[part.schema.key]))
        if part.split is not None:
            self.links[part.split].add(groups, numbers)
        passages = groups.passages.filter(pa.array(new)).combine_chunks()
        if len(passages):
            self.ids.append(passages["id"].combine_chunks())
        if absent:
            return passages.slice(0, 0)
        self.documents += len(passages)
        return passages

    def _good_queries(self, part: Part, split: str, groups: Groups, bad: BadRows) -> Groups:
        checks: dict[str, Callable[[pa.Table], np.ndarray]] = {
            "missing query_id": lambda queries: queries["id"].is_null().to_numpy(),
            "unknown query_id": lambda queries: queries["text"].is_null().to_numpy(),
            "query without text": lambda queries: blank(queries["text"]),
            "query_id that another query had before": lambda queries: self._repeated(split, queries),
        }
        for kind, check in checks.items():
            wrong = check(groups.queries)
            bad.add_where(wrong, kind, part.rows.place, groups.rows, groups.queries["id"])
            groups = groups.with_queries(~wrong)
        return groups

    def _repeated(self, split: str, queries: pa.Table) -> np.ndarray:
        """Which queries have an id that came before, though it must not."""
        new, _, contradicts = self._query_texts[split if self._repeated_queries else ""].add(*queries.columns)
        return contradicts if self._repeated_queries else ~new

    def _good_passages(self, part: Part, groups: Groups, bad: BadRows) -> Groups:
        ids, titles, texts = groups.passages.columns[:3]
        place, rows, missing = part.rows.place, groups.rows[groups.owner], blank(ids)
        bad.add_where(missing, "missing passage id", place, rows)
        wrong = blank(titles) & blank(texts) & ~missing
        bad.add_where(wrong, "empty passage", place, rows, ids)
        groups = groups.with_passages(~(missing | wrong))
        if part.schema.key == "id":
            wrong = self._passage_texts.contradictions(*groups.passages.columns[:3])
            kind, rows = "passage id that another text had before", groups.rows[groups.owner]
            bad.add_where(wrong, kind, place, rows, groups.passages["id"])
        return groups
