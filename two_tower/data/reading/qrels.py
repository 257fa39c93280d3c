"""Judgements (qrels) as anybody writes them: TREC's four columns, or three, or two; any delimiter, any header."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.cache import notice
from two_tower.data.base import QRELS
from two_tower.data.reading.content import File
from two_tower.data.reading.formats import DelimitedRows, number
from two_tower.data.reading.names import plain
from two_tower.data.reading.rows import Rows, Tables, first_lines, read_rows
from two_tower.errors import BadRow, BadRows, UserError

_QUERY = ("query_id", "qid", "query", "topic_id", "topic", "question_id", "q")
_DOCUMENT = (
    "corpus_id", "document_id", "doc_id", "docid", "docno", "passage_id", "pid", "did", "doc", "document", "passage",
)  # fmt: skip
_GRADE = ("score", "grade", "relevance", "relevancy", "rel", "label", "judgment", "judgement", "relevant")
_ROLES = (_QUERY, _DOCUMENT, _GRADE)
_EXPECTED = "expected a query, a passage and a grade (or TREC's four columns; two where all are relevant)"


class QrelsRows(DelimitedRows):
    """Rows of ``width`` cells; ``places`` are those of query, passage and, where there is one, grade."""

    def __init__(self, width: int, places: Sequence[int], delimiter: str, quoted: bool) -> None:
        super().__init__(pa.schema([(str(place), pa.string()) for place in range(width)]), (), delimiter, quoted)
        self._cells, self._places, self.schema = self.schema, list(places), QRELS

    def parse_block(self, block: bytes, starts: np.ndarray) -> pa.Table | None:
        if self.delimiter == " ":  # any number of blanks and tabs, as trec_eval reads them
            block = b"\n".join(b"\t".join(line.split()) for line in block.split(b"\n"))
        rows = DelimitedRows(self._cells, (), "\t" if self.delimiter == " " else self.delimiter, self.quoted)
        table = rows.parse_block(block, starts)
        if table is None:
            return None
        cells = [pc.utf8_trim_whitespace(table.column(place)) for place in self._places]
        if any(pc.any(pc.equal(cell, "")).as_py() for cell in cells):
            return None
        try:
            grades = cells[2].cast(pa.float64()).cast(pa.int32()) if len(cells) > 2 else np.ones(len(table), np.int32)
        except pa.ArrowInvalid:
            return None
        return pa.table([*cells[:2], grades], QRELS)

    def parse_line(self, line: bytes) -> Sequence[object]:
        try:
            text = line.decode().strip("\r")
            cells = self.cells(" ".join(text.split()) if self.delimiter == " " else text)
        except UnicodeDecodeError as error:
            raise BadRow("invalid UTF-8", f"byte {error.start + 1}") from error
        except csv.Error as error:
            raise BadRow("malformed quoting", str(error)) from error
        if len(cells) != len(self._cells):
            raise BadRow("wrong number of columns", f"{len(cells)} instead of {len(self._cells)}")
        query, document, *grade = (cells[place].strip() for place in self._places)
        for name, value in zip(("query_id", "document_id", "grade"), (query, document, *grade), strict=False):
            if not value:
                raise BadRow(f"empty {name}")
        return query, document, _grade(grade[0]) if grade else 1


class _Fraction(Exception):
    """A grade that nothing can be made of without changing it."""


def _grade(cell: str) -> float:
    try:
        return number(cell, "grade", pa.int32())
    except BadRow:
        if _is_number(cell.replace(",", ".")) and "." in cell.replace(",", "."):
            raise _Fraction(cell) from None
        raise


@dataclass(frozen=True)
class _Form:
    rows: QrelsRows
    skip: int  # lines of a header
    binary: bool  # without grades


def qrels_rows(path: File, encoding: str | None = None, names: Sequence[str] = QRELS.names) -> Rows:
    """The judgements of a file, rows of `QRELS` with these ``names``; a UserError where a grade is a fraction."""

    def read(bad: BadRows) -> Tables:
        form = _form(path, encoding)
        if form.binary:
            notice(f"{path}: no grades, so every passage that is listed is taken as relevant.")
        try:
            for table, numbers in read_rows(path, form.rows, bad, encoding, form.skip):
                yield table.rename_columns(list(names)), numbers
        except _Fraction as error:
            raise UserError(
                f"{path} has the grade {error}, and grades must be whole numbers: multiply or round them, as no metric "
                "of ranks takes fractions"
            ) from error

    return Rows(path, read)


def _form(path: File, encoding: str | None) -> _Form:
    """Which cell is what, by the rows at the beginning of a file."""
    lines = [line.decode("utf-8", "replace").strip("\r") for line in first_lines(path, encoding) if line.strip()]
    if not lines:
        raise UserError(f"{path} holds no judgement: {_EXPECTED}")
    delimiter = _delimiter(lines)
    quoted = delimiter in ",;" or 2 * sum(line[0] == '"' or f'{delimiter}"' in line for line in lines) > len(lines)
    form = DelimitedRows(pa.schema([]), (), delimiter, quoted)
    rows = [_cells(form, line) for line in lines]
    width = Counter(map(len, rows)).most_common(1)[0][0]
    whole = [row for row in rows if len(row) == width]
    if width not in (2, 3, 4) and _places(whole[0]) is None:
        shown = whole[0][0][:100] if width == 1 else f"{width} columns"
        raise UserError(f"{path}, row 1: has {shown}; {_EXPECTED}")
    header = len(rows[0]) == width and _is_header(rows[0], whole)
    places = (_places(rows[0]) if header else None) or {2: (0, 1), 3: (0, 1, 2)}.get(width, (0, 2, 3))
    return _Form(QrelsRows(width, places, delimiter, quoted), int(header), len(places) == 2)


def _delimiter(lines: Sequence[str]) -> str:
    """What divides most rows: tabs, commas, semicolons or bars, else blanks (and tabs among them)."""
    words = Counter(len(line.split()) for line in lines).most_common(1)[0][0]
    for delimiter in "\t,;|":
        columns = Counter(line.count(delimiter) + 1 for line in lines).most_common(1)[0][0]
        if columns > 2 or (columns == 2 and words != 4):
            return delimiter
    return " "


def _cells(form: DelimitedRows, line: str) -> list[str]:
    try:
        return [cell.strip() for cell in form.cells(" ".join(line.split()) if form.delimiter == " " else line)]
    except csv.Error:
        return [line]


def _places(header: Sequence[str]) -> tuple[int, ...] | None:
    """The places of query, passage and perhaps grade, if each is named once."""
    names = [plain(cell) for cell in header]
    found = [[place for place, name in enumerate(names) if name in role] for role in _ROLES]
    if any(len(places) > 1 for places in found) or not (found[0] and found[1]):
        return None
    if not found[2] and len(header) > 2:
        return None
    return tuple(places[0] for places in found if places)


def _is_header(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names the columns: by a usual name, or where words stand for the others' numbers."""
    known = {name for role in _ROLES for name in role}
    if len(rows) > 1 and len(first) > 2 and _is_number(first[-1]):
        return False
    if any(plain(cell) in known for cell in first):
        return True
    below = rows[1:]
    return (
        len(first) > 2 and bool(below) and all(any(map(str.isdigit, "".join(row))) for row in below)
        and not any(map(str.isdigit, "".join(first))) and 2 * sum(_is_number(row[-1]) for row in below) > len(below)
    )  # fmt: skip


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
