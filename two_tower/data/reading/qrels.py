"""Judgements (qrels) as anybody writes them: TREC's four columns, or three, or two; any delimiter, any header."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.cache import notice
from two_tower.data.base import QRELS
from two_tower.data.reading.arrow import with_numbers, without_blank
from two_tower.data.reading.content import File
from two_tower.data.reading.delimited import DelimitedFile
from two_tower.data.reading.names import GRADE, JUDGED, JUDGED_QUERY, plain
from two_tower.data.reading.rows import Rows, Tables
from two_tower.errors import BadRows, UserError

_EXPECTED = "expected a query, a passage and a grade (or TREC's four columns; two where all are relevant)"
_WITHOUT_HEADER = {2: "12", 3: "123", 4: "134"}  # the columns of query, passage and grade


class QrelsFile(DelimitedFile):
    """A file of judgements; any number of blanks and tabs may stand between the cells, as trec_eval reads them."""

    @cached_property
    def _has_blanks(self) -> bool:
        rows = DelimitedFile(self.path, self.encoding).first_rows
        cells = Counter(map(len, rows)).most_common(1)[0][0]
        words = Counter(len(" ".join(row).split()) for row in rows).most_common(1)[0][0]
        return words in _WITHOUT_HEADER and cells < 3 and (words == 4 or cells < 2)

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        for first, block in super().blocks():
            lines = (b"\t".join(line.split()) for line in block.split(b"\n")) if self._has_blanks else ()
            yield first, b"\n".join(lines) or block

    @cached_property
    def columns(self) -> list[str]:
        """The columns of query, passage and, unless all are relevant, grade."""
        first, *below = self.first_rows
        self.names = None if self._names_columns(first, below) else self.numbered().names
        found = [[cell for cell in first if plain(cell) in usual] for usual in JUDGED]
        if self.names is not None or not all(len(cells) == 1 for cells in found[: max(2, min(3, len(first)))]):
            nameless = self.names is None and not all(map(str.strip, first))
            if len(first) not in _WITHOUT_HEADER or nameless:
                columns = "a column without name" if nameless else f"{len(first)} columns"
                shown = first[0][:100] if len(first) == 1 else columns
                raise UserError(f"{self.path}, row 1: has {shown}; {_EXPECTED}")
            places = [int(place) - 1 for place in _WITHOUT_HEADER[len(first)]]
            return [self.schema.names[place] for place in places]
        return [cells[0].strip() for cells in found if cells]

    def _names_columns(self, first: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
        """Whether the first row is a header: it has a usual name, or words where all others have numbers."""
        graded, words = len(first) > 2, not any(map(str.isdigit, "".join(first)))
        if graded and below and first[-1].strip("+- ")[:1].isdigit():
            return False
        known = any(plain(cell) in (*JUDGED_QUERY, *GRADE) for cell in first)
        return known or (graded and words and bool(below) and all(row[-1].strip("+- ")[:1].isdigit() for row in below))


def qrels_rows(path: File, encoding: str | None = None, names: Sequence[str] = QRELS.names) -> Rows:
    """The judgements of a file, rows of `QRELS` with these ``names``; a UserError where a grade is a fraction."""

    def read(bad: BadRows) -> Tables:
        file = QrelsFile(path, encoding)
        fields = pa.schema(dict.fromkeys(file.columns, pa.string()))
        if len(fields) == 2:
            notice(f"{path}: no grades, so every passage that is listed is taken as relevant.")
        for table, numbers in file.read(fields, bad):
            cells = [pc.utf8_trim_whitespace(column) for column in table.columns]
            cells += [] if len(cells) == 3 else [pa.chunked_array([pa.repeat("1", len(table))])]
            table = pa.table(cells, list(names))
            for name in names:
                table, numbers = without_blank(table, numbers, [name], path, bad)
            yield _graded(table, numbers, path, bad)

    return Rows(path, read)


def _graded(table: pa.Table, rows: np.ndarray, path: File, bad: BadRows) -> tuple[pa.Table, np.ndarray]:
    """The rows with whole numbers as grades; those with words are bad."""
    *_, name = table.column_names
    table, rows = with_numbers(table, rows, [name], path, bad)
    fractions = pc.not_equal(pc.floor(table[name]), table[name]).to_numpy()
    if fractions.any():
        first = int(np.flatnonzero(fractions)[0])
        raise UserError(
            f"{path}, row {rows[first]}: grade {table[name][first]}, but grades must be whole numbers: round or "
            "multiply them all"
        )
    return table.set_column(2, name, pc.cast(table[name], pa.int32())), rows
