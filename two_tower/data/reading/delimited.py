"""Files of delimited text, whatever they are called: CSV, TSV, with quotes or without, with a header or without."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Literal

import pyarrow as pa

from two_tower.data.reading.content import ENCODING, File, kind_of
from two_tower.data.reading.formats import DelimitedRows, choose
from two_tower.data.reading.names import KNOWN, plain
from two_tower.data.reading.rows import LineFile, Tables, parse_blocks, parse_each
from two_tower.errors import BadRow, BadRows, UserError

_BAD_QUOTES = "malformed quoting"
_CELL_CHARACTERS = 1 << 30  # the csv module allows 131,072 by default, and long documents have more
_SAMPLE_BYTES = 1 << 20
_SAMPLE_ROWS = 1000
_SEPARATOR = re.compile(r'"?sep=(.)"?\r?\n?', re.IGNORECASE)  # Excel's own first line
_NAME = re.compile(r"(?=.{1,40}$)(?!.* .*\.$)[^\W\d][^?!\n\"]*")  # no sentence, no number


class DelimitedFile(LineFile):
    """Rows of cells between tabs, commas, semicolons or bars.

    The delimiter is the one that divides all rows alike. Commas and semicolons come with quotes; between tabs and bars
    a quote is text, unless the cells are quoted as a program would: see `quoting`. The first row names the columns,
    unless there are ``names``.
    """

    def __init__(self, path: File, encoding: str | None = None, names: Sequence[str] | None = None) -> None:
        super().__init__(path, encoding)
        self.names = names

    @cached_property
    def _sample(self) -> str:
        start = self.start()
        end = start.rfind(b"\n", 0, _SAMPLE_BYTES) + 1 if len(start) > _SAMPLE_BYTES else 0
        return start[: end or None].decode("utf-8", "surrogateescape")

    @cached_property
    def _separator(self) -> re.Match[str] | None:
        return _SEPARATOR.match(self._sample)

    @cached_property
    def _delimiter(self) -> str:
        if self._separator:
            return self._separator[1]
        hint = {".tsv": "\t", ".csv": ","}.get(kind_of(self.path), "")
        best, score = hint or "\t", (0.0 if hint else 0.7, False, False, 0)
        for delimiter in "\t;|,":
            for quoted in (False, True) if delimiter in "\t|" else (True,):
                first, *others = self._rows(delimiter, quoted)
                counts = Counter(map(len, (first, *others)))
                columns, count = counts.most_common(1)[0]
                share = count / counts.total() * (1 if len(first) == columns else 0.5)
                found = (share, any(plain(cell) in KNOWN for cell in first), delimiter == hint, columns)
                if columns > 1 and found > score:
                    best, score = delimiter, found
        return best

    def _rows(self, delimiter: str, quoted: bool) -> list[list[str]]:
        """The rows of the sample that are not empty, at least one."""
        csv.field_size_limit(_CELL_CHARACTERS)
        rule: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        start = self._separator.end() if self._separator else 0
        reader = csv.reader(io.StringIO(self._sample[start:], newline=""), delimiter=delimiter, quoting=rule)
        return list(itertools.islice(filter(None, reader), _SAMPLE_ROWS)) or [[]]

    @property
    def _quoted(self) -> bool | None:
        """Whether there are quotes; None where the cells must tell."""
        return None if self._delimiter in "\t|" else True

    @cached_property
    def first_rows(self) -> list[list[str]]:
        """Up to 1,000 rows, a header too."""
        sample = self._sample.encode("utf-8", "surrogateescape")
        return self._rows(self._delimiter, self._quoted or bool(quoting(sample, self._delimiter)))

    @cached_property
    def _names(self) -> list[str]:
        if self.names is not None:
            return list(self.names)
        self._check_header(self.first_rows[0])
        return [cell.strip() for cell in self.first_rows[0]]

    def numbered(self) -> DelimitedFile:
        """The same file without a header: its columns are called ``1``, ``2`` and so on."""
        return DelimitedFile(self.path, self.encoding, [str(i) for i, _ in enumerate(self.first_rows[0], 1)])

    def _check_header(self, cells: Sequence[str]) -> None:
        names = [cell.strip() for cell in cells if cell.strip()]
        if any("\udc80" <= character <= "\udcff" for character in "".join(names)):
            raise UserError(f"{self.path} has column names in an unknown encoding, which are not UTF-8: {ENCODING}")
        if any('"' in name for name in names) and self._quoted:
            raise UserError(f"{self.path}, row 1: {_BAD_QUOTES} in the names of the columns: correct them")
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(f"{self.path} has two columns that are called {twice[0]!r}: rename one")

    @property
    def schema(self) -> pa.Schema:
        """The columns that have a name; a row has them in this order."""
        return pa.schema([(name, pa.string()) for name in self._names if name])

    def has_no_header(self, columns: int) -> bool:
        """Whether the first row is so many cells of data for sure: between tabs, and not all could be names."""
        first = self.first_rows[0]
        are_names = all(_NAME.fullmatch(cell.strip()) for cell in first)
        return len(first) == columns and not self._quoted and not are_names

    def read(self, fields: pa.Schema, bad: BadRows, others: bool = False) -> Tables:
        named = [place for place, name in enumerate(self._names) if name]
        for table, numbers in self._cells(bad):
            table = table.select(named).rename_columns(self.schema.names)
            yield choose(table, fields, others, nothing=""), numbers

    def _cells(self, bad: BadRows) -> Tables:
        """All columns, by their places; from the first block on that is quoted, as the csv module reads them."""
        blocks, skip, line, quoted = self.blocks(), bool(self._separator) + (self.names is None), 1, list[bytes]()

        def unquoted() -> Iterator[bytes]:
            nonlocal line
            told = self._quoted
            for block in blocks:
                told = quoting(block, self._delimiter) if told is None else told
                if told:
                    quoted.append(block)
                    return
                yield block
                line += block.count(b"\n")

        def values(cells: list[str]) -> Sequence[object]:
            try:
                "".join(cells).encode()
            except UnicodeEncodeError as error:
                raise BadRow("invalid UTF-8") from error
            return row_format.values(cells)

        row_format = DelimitedRows([str(place) for place, _ in enumerate(self._names)], self._delimiter)
        yield from parse_blocks(unquoted(), row_format, self.path, bad, skip)
        rows = self._quoted_rows(itertools.chain(quoted, blocks), line, bad)
        rows = itertools.islice(rows, skip if line == 1 else 0, None)
        yield from parse_each(rows, values, row_format.schema, self.path, bad)

    def _quoted_rows(self, blocks: Iterable[bytes], first: int, bad: BadRows) -> Iterator[tuple[int, list[str]]]:
        """Each row that is not empty and the number of its first line; wrongly quoted lines are bad."""
        texts = (io.StringIO(block.decode("utf-8", "surrogateescape"), newline="") for block in blocks)
        reader = csv.reader(itertools.chain.from_iterable(texts), delimiter=self._delimiter, strict=True)
        while True:
            line = reader.line_num
            try:
                if row := next(reader):
                    yield first + line, row
            except StopIteration:
                return
            except csv.Error as error:  # a quote that is not closed takes the following lines with it
                for number in range(line, reader.line_num):
                    bad.rows += 1
                    bad.add(_BAD_QUOTES, self.path, first + number, str(error))


class TsvFile(DelimitedFile):
    """Cells between tabs, without a header, in which a quote is text, as in the files of MS MARCO."""

    _delimiter = "\t"
    _separator = None
    _quoted = False


def quoting(block: bytes, delimiter: str) -> bool | None:
    """Whether cells that begin with a quote are quoted; None where no cell tells.

    For sure a program has quoted a cell that has doubled quotes in it, or a delimiter or line break for which its row
    would have another number of cells; and cells that are all quoted, of a first row or of a column. A text that only
    begins and ends with quotes is as it was written.
    """
    if b'"' not in block:
        return None
    mark, edge = delimiter.encode(), re.escape(delimiter).encode()
    starts = re.compile(rb'(?:^|(?<=[\n\r])|(?<=%b))"' % edge)
    cell = re.compile(rb'"((?:[^"]|"")*+)"(?=%b|[\r\n]|\Z)' % edge)
    first = block.partition(b"\n")[0].strip(b"\r").split(mark)
    signs, broken, at = 10 * all(re.fullmatch(rb'"[^"]*"', name) for name in first), 0, 0
    while (start := starts.search(block, at)) and signs + broken < _SAMPLE_ROWS:
        found = cell.match(block, start.start())
        if found is None:
            broken, at = broken + (block.find(b'"', start.end()) >= 0), start.end()  # the next block may close it
            continue
        at, inner = found.end(), found[1]
        if b"\n" in inner or mark in inner:
            odd = _row_around(block, found, len(first), mark)
            signs, broken = signs + odd, broken + (not odd)
        elif b'""' in inner and inner.strip(b'"'):
            signs += 1
    if signs or broken:
        return signs > broken
    return _has_quoted_column(block, mark) or None


def _row_around(block: bytes, cell: re.Match[bytes], columns: int, delimiter: bytes) -> bool:
    """Whether the lines of a cell have another number of cells than the first line, if its quotes are text."""
    start, end = block.rfind(b"\n", 0, cell.start()) + 1, block.find(b"\n", cell.end())
    lines = block[start : end if end >= 0 else len(block)].split(b"\n")
    return any(line.count(delimiter) + 1 != columns for line in lines)


def _has_quoted_column(block: bytes, delimiter: bytes) -> bool:
    """Whether the same cell of all rows but perhaps the first is in quotes, and not only quotes."""
    lines = [line.strip(b"\r").split(delimiter) for line in block.split(b"\n", _SAMPLE_ROWS)[1:_SAMPLE_ROWS] if line]
    quoted = (column for column in zip(*lines, strict=False) if all(re.fullmatch(rb'".*"', cell) for cell in column))
    return len(lines) > 1 and any(any(cell.strip(b'"') for cell in column) for column in quoted)
