"""Sources whose passages, queries and judgements lie apart and name each other by ids."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from two_tower.data.base import QRELS, QUERIES
from two_tower.data.reading.file_source import FileSource
from two_tower.data.reading.rows import BadRows, Rows
from two_tower.data.reading.unique import HashSet, Unique, keep_known
from two_tower.errors import UserError

__all__ = ["TableSource"]

_OTHER_TEXT = "id that another text had before"
_OTHER_GRADE = "judgement that contradicts an earlier one"


class TableSource(FileSource):
    """What sources of three tables share: each row once, ids that exist, judgements by split.

    Left out and counted, up to a limit: rows that cannot be read, an id again with another text, judgements that
    contradict each other or name an unknown query or, once the passages were read, an unknown passage. A row that
    only repeats an earlier one is left out silently. Memory does not grow with the texts: 26 to 51 bytes a
    passage while the passages are read, half of it afterwards.

    Args:
        max_bad_rows: the fraction of a table's rows that may be bad before reading it is an error.
        repair_encoding: whether to repair UTF-8 that was encoded twice.
    """

    def __init__(self, max_bad_rows: float, repair_encoding: bool) -> None:
        super().__init__(max_bad_rows, repair_encoding)
        self._passages: HashSet | None = None
        self._queries: dict[str, tuple[pa.Table, HashSet]] = {}  # by place: splits may share one table
        self._qrels: dict[str, pa.Table] = {}

    @abstractmethod
    def _passage_rows(self) -> Rows:
        """Rows of the schema `CORPUS`."""

    @abstractmethod
    def _query_rows(self, split: str) -> Rows:
        """Rows of the schema `QUERIES`, of this split or of several."""

    @abstractmethod
    def _judgement_rows(self, split: str) -> Rows:
        """Rows of the schema `QRELS`.

        Raises:
            UserError: the split does not exist.
        """

    def corpus(self) -> Iterator[pa.RecordBatch]:
        """All passages in their order; title is empty text where there is none.

        Raises:
            UserError: they cannot be read; or, at the end, too many rows were bad or there was no passage.
        """
        rows, bad, unique = self._passage_rows(), BadRows(self.max_bad_rows), Unique(key=1)
        for read, numbers in rows.read(bad):
            table = self._repaired(read, "title", "text")
            yield from unique.filter(table, numbers, bad, rows.place, _OTHER_TEXT).to_batches()
        if not unique.keys:
            raise UserError(f"{rows.place} holds no passage")
        self._passages = unique.keys
        self._report(rows.place, bad)

    def queries(self, split: str) -> pa.Table:
        """The queries with at least one judgement in the split, in their order."""
        judged = pc.unique(self.qrels(split)["query_id"])
        table, _ = self._all_queries(split)
        return table.filter(pc.is_in(table["id"], value_set=judged))

    def qrels(self, split: str) -> pa.Table:
        """The judgements of a split in their order; grade 0 (judged, but not relevant) is kept."""
        if split not in self._qrels:
            self._qrels[split] = self._read_qrels(split)
        return self._qrels[split]

    def _passage_ids(self) -> HashSet | None:
        """The ids of the passages, or None where these were not read yet."""
        return self._passages

    def _all_queries(self, split: str) -> tuple[pa.Table, HashSet]:
        """The queries of a split, judged or not, and hashes of their ids."""
        rows = self._query_rows(split)
        if str(rows.place) not in self._queries:
            bad, unique, tables = BadRows(self.max_bad_rows), Unique(key=1), [QUERIES.empty_table()]
            for read, numbers in rows.read(bad):
                tables.append(unique.filter(self._repaired(read, "text"), numbers, bad, rows.place, _OTHER_TEXT))
            self._report(rows.place, bad)
            self._queries[str(rows.place)] = pa.concat_tables(tables), unique.keys
        return self._queries[str(rows.place)]

    def _read_qrels(self, split: str) -> pa.Table:
        rows, bad, unique, tables = self._judgement_rows(split), BadRows(self.max_bad_rows), Unique(key=2), []
        known = {"query_id": self._all_queries(split)[1], "document_id": self._passage_ids()}
        for table, numbers in rows.read(bad):
            for column, ids in known.items():
                table, numbers = keep_known(table, numbers, column, ids, bad, rows.place)
            tables.append(unique.filter(table, numbers, bad, rows.place, _OTHER_GRADE))
        self._report(rows.place, bad)
        if not unique.keys:
            raise UserError(f"{rows.place} holds no judgement")
        return pa.concat_tables([QRELS.empty_table(), *tables])
