"""Files of training triplets: lines of three ids, perhaps with a teacher's scores, or of three texts."""

from __future__ import annotations

import pyarrow.compute as pc

from two_tower.data.base import SCORED_TRIPLETS, TEXT_TRIPLETS, TRIPLETS
from two_tower.data.reading.arrow import kept, with_numbers, without_blank
from two_tower.data.reading.content import File
from two_tower.data.reading.delimited import TsvFile
from two_tower.data.reading.names import plain
from two_tower.data.reading.rows import Tables
from two_tower.errors import BadRows, UserError

_HEADER = ("query_id", "qid", "query")
# Of both passages, before the ids: Hofstätter et al. 2020, arXiv:2010.02666.
_SCORES = ["positive_score", "negative_score"]
_COLUMNS = {3: TRIPLETS.names, 4: SCORED_TRIPLETS.names, 5: [*_SCORES, *TRIPLETS.names]}


class TriplesFile:
    """Cells between tabs; the first good line tells which they are, an id holds no white space.

    Rows are of the schema `TEXT_TRIPLETS`, `TRIPLETS` or, with a margin or two scores, `SCORED_TRIPLETS`.
    """

    def __init__(self, path: File, encoding: str | None = None) -> None:
        rows = TsvFile(path, encoding).first_rows
        self._has_header = plain(rows[0][0]) in _HEADER
        good = (row for row in rows[self._has_header :] if len(row) in _COLUMNS and all(map(str.strip, row)))
        first = next(good, None)
        if first is None:
            raise UserError(f"{path} holds no triple: a line is a query, its answer and another passage")
        self.has_texts = len(first) == 3 and any(len(cell.split()) > 1 for cell in first)
        self.path = path
        self._file = TsvFile(path, encoding, TEXT_TRIPLETS.names if self.has_texts else _COLUMNS[len(first)])

    def read(self, bad: BadRows) -> Tables:
        """The rows in which no cell is empty and scores are numbers."""
        file = self._file
        for table, rows in file.read(file.schema, bad):
            if self._has_header:
                table, rows = kept(table, rows, rows > 1)
            numbers = [name for name in table.column_names if name in (*_SCORES, "margin")]
            for name in table.column_names:
                if name not in numbers:
                    table, rows = without_blank(table, rows, [name], self.path, bad)
            table, rows = with_numbers(table, rows, numbers, self.path, bad)
            if numbers == _SCORES:
                margins = pc.subtract(*table.select(_SCORES).columns)
                table = table.select(TRIPLETS.names).append_column("margin", margins)
            yield table.cast(SCORED_TRIPLETS) if numbers else table, rows
