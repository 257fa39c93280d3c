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
import pyarrow.csv as pv

from two_tower.data.reading.arrow import choose
from two_tower.data.reading.content import ENCODING, File, kind_of
from two_tower.data.reading.names import KNOWN, plain
from two_tower.data.reading.rows import LineFile, Tables, parse_each, parse_lines
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
        return _start(self.start())

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

    @property
    def _quoted(self) -> bool | None:
        """Whether there are quotes; None where the cells must tell."""
        return None if self._delimiter in "\t|" else True

    def _rows(self, delimiter: str, quoted: bool) -> list[list[str]]:
        return _rows(self._sample[self._separator.end() if self._separator else 0 :], delimiter, quoted)

    @cached_property
    def first_rows(self) -> list[list[str]]:
        """Up to 1,000 rows, a header too."""
        quoted = self._quoted
        if quoted is None:
            quoted = quoting(self._sample.encode("utf-8", "surrogateescape"), self._delimiter)
        return self._rows(self._delimiter, bool(quoted))

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

    @property
    def _places(self) -> pa.Schema:
        return pa.schema([(str(place), pa.string()) for place, _ in enumerate(self._names)])

    def _cells(self, bad: BadRows) -> Tables:
        """All columns, by their places; from the first block on that is quoted, as the csv module reads them."""
        blocks, quoted, skip = self.blocks(), self._quoted, bool(self._separator) + (self.names is None)
        for first, block in blocks:
            quoted = quoting(block, self._delimiter) if quoted is None else quoted
            if quoted:
                rows = self._quoted_rows(itertools.chain([block], (block for _, block in blocks)), first, bad)
                yield from parse_each(itertools.islice(rows, skip, None), self._checked, self._places, self.path, bad)
                return
            while skip and block:
                line, _, block = block.partition(b"\n")
                first, skip = first + 1, skip - bool(line.strip())
            if block:
                yield from parse_lines(block, first, self._at_once, self._parse, self._places, self.path, bad)

    def _at_once(self, block: bytes, lines: int) -> pa.Table | None:
        if block.startswith(b"\xef\xbb\xbf"):  # Arrow leaves out a byte order mark
            return None
        types = dict.fromkeys(self._places.names, pa.string())
        return pv.read_csv(
            pa.BufferReader(block),
            pv.ReadOptions(column_names=self._places.names),
            pv.ParseOptions(delimiter=self._delimiter, quote_char=False, double_quote=False),
            pv.ConvertOptions(column_types=types, null_values=[], strings_can_be_null=False),
        )

    def _parse(self, line: bytes) -> Sequence[str]:
        return self._checked(line.decode("utf-8", "surrogateescape").removesuffix("\r").split(self._delimiter))

    def _checked(self, cells: Sequence[str]) -> Sequence[str]:
        """The cells of a row, if it is valid UTF-8 and has as many as there are columns."""
        text = self._delimiter.join(cells)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadRow("invalid UTF-8", f"byte {len(text[: error.start].encode()) + 1}") from error
        if len(cells) != len(self._names):
            raise BadRow("wrong number of columns", f"{len(cells)} instead of {len(self._names)}")
        return cells

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


def _start(block: bytes) -> str:
    """Whole lines from the start of a block, about 1 MiB."""
    end = block.rfind(b"\n", 0, _SAMPLE_BYTES) + 1 if len(block) > _SAMPLE_BYTES else 0
    return block[: end or None].decode("utf-8", "surrogateescape")


def _rows(text: str, delimiter: str, quoted: bool) -> list[list[str]]:
    """Up to 1,000 rows that are not empty, at least one."""
    csv.field_size_limit(_CELL_CHARACTERS)
    rule: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=rule)
    return list(itertools.islice(filter(None, reader), _SAMPLE_ROWS)) or [[]]


def quoting(block: bytes, delimiter: str) -> bool | None:
    """Whether cells that begin with a quote are quoted; None where no cell tells.

    For sure a program has quoted cells that have doubled quotes in them, those without whose quotes the rows would have
    other numbers of cells, and those that are all quoted, of a first row or of a column. A text that only begins and
    ends with quotes is as it was written.
    """
    if b'"' not in block:
        return None
    start = 0 if b'"' in block[:_SAMPLE_BYTES] else block.rfind(b"\n", 0, block.index(b'"')) + 1
    text, edge = _start(block[start:]), rf"[^{re.escape(delimiter)}\r\n]"
    cells = re.findall(rf'"(?<!{edge}")(?:(?:[^"]|"")*+(?:"(?!{edge})|\Z))?', text)
    signs = sum('""' in cell[1:-1] and cell.strip('"') != "" for cell in cells) - cells.count('"')
    plain, quoted = (_rows(text, delimiter, quotes) for quotes in (False, True))
    signs += _regularity(quoted) - _regularity(plain)
    if not start and all(re.fullmatch(r'"[^"]*"', name) for name in plain[0]):
        signs += 10
    if signs:
        return signs > 0
    below = list(zip(*plain[1:], strict=False)) if len(plain) > 2 else []
    in_quotes = [column for column in below if all(re.fullmatch(r'".*"', cell) for cell in column)]
    return any(any(cell.strip('"') for cell in column) for column in in_quotes) or None


def _regularity(rows: Sequence[Sequence[str]]) -> int:
    """How many rows have the usual number of cells, minus how many have another."""
    return 2 * Counter(map(len, rows)).most_common(1)[0][1] - len(rows)
