"""Sources whose rows each hold a query together with its passages: a *group*.

One pass over the groups gives the corpus. What it leaves in memory (ids, queries, which passages belong to
which query) answers everything else, so a stream is not read again for each split.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.cache import notice
from two_tower.data.base import QRELS, TRIPLETS, Source
from two_tower.data.reading.arrow import blank
from two_tower.data.reading.rows import Rows
from two_tower.data.reading.schemas import Groups, Schema
from two_tower.data.reading.unique import Numbering, OneText, hash_rows
from two_tower.errors import BadRows, UserError

_QUERIES_AT_ONCE = 4096  # queries whose triplets make a batch: 40,000 with 10 passages each


@dataclass(frozen=True)
class Part:
    """One file or stream of groups."""

    split: str | None  # whose queries they are; None where there are only passages, one in each row
    rows: Rows
    schema: Schema  # makes the groups


@dataclass(frozen=True)
class Links:
    """The queries of a split, and the passages of each."""

    queries: pa.Table  # Q rows of the schema `QUERIES`
    # In rows of the queries and of the corpus, behind which lie absent passages: query, document, grade (above 0 is
    # relevant). In ascending order, no pair twice.
    table: pa.Table

    @property
    def marked(self) -> pa.Table:
        """Those that are relevant."""
        return self.table.filter(pc.greater(self.table["grade"], 0))

    def part(self, chosen: np.ndarray) -> Links:
        """The links of the chosen queries, (Q,) bool."""
        query_rows = self.table["query"].to_numpy()
        table = self.table.set_column(0, "query", pa.array((np.cumsum(chosen) - 1).astype(np.int32)[query_rows]))
        return Links(self.queries.filter(pa.array(chosen)), table.filter(pa.array(chosen[query_rows])))


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
        self._ids: pa.Array | None = None  # of the corpus, then of passages that it lacks
        self._documents = 0  # of the corpus
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
            self._ids, self._documents = pa.concat_arrays(index.ids), index.documents
            links = {split: found.build() for split, found in index.links.items()}
            for split, found in self._divided(links).items():
                self._keep_answered(split, found)
        for text in self._notices:
            notice(text)

    def _keep_answered(self, split: str, links: Links) -> None:
        answered = np.isin(np.arange(len(links.queries)), links.marked["query"])
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
        table = links.table if self.judged_negatives else links.marked
        query_ids = links.queries["id"].take(table["query"])
        return pa.table([query_ids, ids.take(table["document"]), table["grade"]], QRELS)

    def triplets(self) -> Iterator[pa.RecordBatch] | None:
        """Every (query, marked passage, unmarked passage) of ``train``, query by query."""
        return self._triplets() if "train" in self.splits() else None

    def _triplets(self) -> Iterator[pa.RecordBatch]:
        links, ids = self._judged("train")
        present = links.table.filter(pc.less(links.table["document"], self._documents))
        starts = np.arange(0, len(links.queries) + _QUERIES_AT_ONCE, _QUERIES_AT_ONCE)
        for start, end in pairwise(np.searchsorted(present["query"], starts)):
            own = present.slice(start, end - start)
            marked = pc.greater(own["grade"], 0)
            others = own.filter(pc.invert(marked)).rename_columns(["query", "other", "other grade"])
            found = own.filter(marked).join(others, "query", join_type="inner")
            found = found.sort_by([(name, "ascending") for name in ("query", "document", "other")]).combine_chunks()
            columns = [links.queries["id"].take(found["query"]), ids.take(found["document"]), ids.take(found["other"])]
            yield from pa.table(columns, TRIPLETS).to_batches()

    def _judged(self, split: str) -> tuple[Links, pa.Array]:
        if split not in self.splits():
            raise self._no_split(split)
        if self._ids is None:
            deque(self.corpus(), maxlen=0)  # reads it to its end
        links = self._links.get(split)
        if links is None or not pc.any(pc.less(links.marked["document"], self._documents)).as_py():
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

    def build(self) -> Links:
        """The links in order, each pair once, with the highest of its grades."""
        pairs = ["query", "document"]
        links = pa.concat_tables(self._links).group_by(pairs).aggregate([("grade", "max")])
        links = links.sort_by([(name, "ascending") for name in pairs]).rename_columns([*pairs, "grade"])
        return Links(pa.concat_tables(self._queries).combine_chunks(), links.combine_chunks())


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
            groups = self._good_queries(part.split, groups, part.rows.place, bad)
        if not absent:
            groups = self._good_passages(part.schema.key, groups, part.rows.place, bad)
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

    def _good_queries(self, split: str, groups: Groups, place: object, bad: BadRows) -> Groups:
        groups = groups.without_queries(groups.queries["id"].is_null().to_numpy(), "missing query_id", place, bad)
        groups = groups.without_queries(groups.queries["text"].is_null().to_numpy(), "unknown query_id", place, bad)
        groups = groups.without_queries(blank(groups.queries["text"]), "query without text", place, bad)
        before = self._query_texts[split if self._repeated_queries else ""]
        new, _, contradicts = before.add(*groups.queries.columns)
        wrong = contradicts if self._repeated_queries else ~new
        return groups.without_queries(wrong, "query_id that another query had before", place, bad)

    def _good_passages(self, key: str, groups: Groups, place: object, bad: BadRows) -> Groups:
        groups = groups.without_passages(blank(groups.passages["id"]), "missing passage id", place, bad)
        nothing = blank(groups.passages["title"]) & blank(groups.passages["text"])
        groups = groups.without_passages(nothing, "empty passage", place, bad)
        if key == "text":
            return groups
        wrong = self._passage_texts.contradictions(*groups.passages.columns[:3])
        return groups.without_passages(wrong, "passage id that another text had before", place, bad)
