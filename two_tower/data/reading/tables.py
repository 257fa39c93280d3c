"""Sources whose passages, queries and judgements are separate tables that refer to each other by id."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from two_tower.data.base import CORPUS, QRELS, QUERIES, Source
from two_tower.data.reading.arrow import kept
from two_tower.data.reading.rows import Rows, read_all
from two_tower.data.reading.unique import Numbering, OneText, keep_known
from two_tower.errors import BadRows, UserError

_OTHER_TEXT = "id that another text had before"
_OTHER_GRADE = "judgement that contradicts an earlier one"


class TableSource(Source):
    """What sources of three tables share: each row once, ids that exist, judgements by split.

    Left out and counted, up to a limit: rows that cannot be read, an id again with another text, judgements that
    contradict each other or name an unknown query. A judgement of a passage that is not there stays: a search that
    looks for it has missed it, as trec_eval counts. A row that only repeats an earlier one is left out silently.
    Memory does not grow with the texts: 28 to 48 bytes a passage while the passages are read, half of it afterwards.
    """

    def __init__(self, name: str, max_bad_rows: float) -> None:
        super().__init__(name, max_bad_rows)
        self._passages = Numbering()  # the ids of the passages once these were read
        self._queries: dict[str, tuple[pa.Table, Numbering]] = {}  # by place: splits may share one table
        self._qrels: dict[str, pa.Table] = {}

    @abstractmethod
    def _passage_rows(self, fields: bool = False) -> Sequence[Rows]:
        """Rows of the schema `CORPUS`, of each file; with ``fields`` perhaps those of `FIELDS` too."""

    @abstractmethod
    def _query_rows(self, split: str) -> Sequence[Rows]:
        """Rows of the schema `QUERIES` of each file, of this split or of several."""

    @abstractmethod
    def _judgement_rows(self, split: str) -> Rows:
        """Rows of the schema `QRELS`; a UserError where there is no such split."""

    def corpus(self) -> Iterator[pa.RecordBatch]:
        return self._read_passages(self._passage_rows())

    def search_corpus(self) -> Iterator[pa.RecordBatch]:
        return self._read_passages(self._passage_rows(fields=True))

    def _read_passages(self, parts: Sequence[Rows]) -> Iterator[pa.RecordBatch]:
        first = OneText()
        for table in self._first_rows(parts, first):
            yield from table.to_batches()
        if not len(first.ids):
            raise UserError(f"{parts[0].place} holds no passage")
        self._passages = first.ids

    def _first_rows(
        self, parts: Sequence[Rows], first: OneText, queries: Numbering | None = None
    ) -> Iterator[pa.Table]:
        """The rows of files that come for the first time; of judgements, those whose ``queries`` are known."""
        bad = BadRows(self.max_bad_rows)
        for place, table, numbers in read_all(parts, bad):
            if queries is not None:
                table, numbers = keep_known(table, numbers, "query_id", queries, bad, place)
            new, wrong, _ = first.add(*table.columns[: len(CORPUS)])  # `FIELDS` may differ
            bad.add_where(wrong, _OTHER_TEXT if queries is None else _OTHER_GRADE, place, numbers, table[0])
            yield kept(table, numbers, new)[0]
        self._report(parts[0].place if len(parts) == 1 else f"{self.name} ({len(parts)} files)", bad)

    def queries(self, split: str) -> pa.Table:
        judged = pc.unique(self.qrels(split)["query_id"])
        table, _ = self._all_queries(split)
        return table.filter(pc.is_in(table["id"], value_set=judged))

    def qrels(self, split: str) -> pa.Table:
        """The judgements of a split; grade 0 (judged, but not relevant) is kept."""
        if split not in self._qrels:
            rows, first = self._judgement_rows(split), OneText(columns=2)
            tables = list(self._first_rows([rows], first, self._all_queries(split)[1]))
            if not len(first.ids):
                raise UserError(f"{rows.place} holds no judgement")
            self._qrels[split] = pa.concat_tables(tables).rename_columns(QRELS.names)
        return self._qrels[split]

    def _all_queries(self, split: str) -> tuple[pa.Table, Numbering]:
        """The queries of a split, judged or not, and their ids."""
        parts, first = self._query_rows(split), OneText()
        place = str(parts[0].place)
        if place not in self._queries:
            tables = [table.rename_columns(QUERIES.names) for table in self._first_rows(parts, first)]
            self._queries[place] = pa.concat_tables([QUERIES.empty_table(), *tables]), first.ids
        return self._queries[place]

    def _batches(self, rows: Rows) -> Iterator[pa.RecordBatch]:
        """All rows of a table, in batches as large as they are read: large ones are tokenized on several threads."""
        bad = BadRows(self.max_bad_rows)
        for table, _ in rows.read(bad):
            yield from table.combine_chunks().to_batches()
        self._report(rows.place, bad)
