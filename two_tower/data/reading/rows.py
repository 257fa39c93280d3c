"""Tolerant reading of JSON lines and tab-separated rows, plain, .gz or in a .tar.gz: bad rows are counted, left out.

Arrow parses a block of whole lines at once; only a block that it refuses is parsed line by line, which finds
the bad rows with their numbers. Lines end with a line feed and nothing else (U+0085 and U+2028 are text).
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.data.reading.archive import Member
from two_tower.errors import UserError

__all__ = ["BadRow", "BadRows", "JsonRows", "RowFormat", "TsvRows", "read_rows"]

_BLOCK_BYTES = 8 << 20  # large enough for Arrow's threads, small enough to parse again line by line
_EXAMPLES = 3
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class BadRow(Exception):
    """A row that cannot be used: ``kind`` is what is counted, ``detail`` says more about this one."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(kind, detail)
        self.kind, self.detail = kind, detail


class BadRows:
    """The bad rows of one reading of a file: how many of each kind, where the first ones are.

    Args:
        max_bad_rows: the fraction of a file's rows that may be bad, 0 to 1.

    Attributes:
        counts: bad rows by kind.
        examples: the first rows of each kind, as ``FILE, row NUMBER: KIND (DETAIL)``.
    """

    def __init__(self, max_bad_rows: float = 0.001) -> None:
        if not 0 <= max_bad_rows <= 1:
            raise UserError(f"data.max_bad_rows={max_bad_rows} must be a fraction of the rows, from 0 to 1")
        self.max_bad_rows = max_bad_rows
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self._first: tuple[int, str] | None = None

    def add(self, kind: str, file: str | Path | Member, row: int, detail: str = "") -> None:
        """Count one bad row; ``row`` is its line number, from 1."""
        self.counts[kind] += 1
        shown = self.examples.setdefault(kind, [])
        message = f"{file}, row {row}: {kind}" + (f" ({detail})" if detail else "")
        if len(shown) < _EXAMPLES:
            shown.append(message)
        if self._first is None or row < self._first[0]:
            self._first = row, message

    def check(self, total: int) -> None:
        """Compare with the number of rows of the file.

        Raises:
            UserError: more than ``max_bad_rows * total`` rows are bad; the message names the first.
        """
        bad = self.counts.total()
        if self._first is not None and bad > self.max_bad_rows * total:
            raise UserError(
                f"{self._first[1]}; {bad} of {total} rows are bad, more than data.max_bad_rows="
                f"{self.max_bad_rows:g} allows: correct the file or raise the limit"
            )

    def summary(self) -> str | None:
        """One sentence for a warning, or None where every row is good."""
        if not self.counts:
            return None
        kinds = ", ".join(f"{count} with {kind}" for kind, count in self.counts.most_common())
        shown = "; ".join(message for messages in self.examples.values() for message in messages)
        return f"{self.counts.total()} bad rows were left out: {kinds} ({shown})"


class RowFormat(Protocol):
    """How lines become rows of ``schema``."""

    schema: pa.Schema

    def is_header(self, line: bytes) -> bool:
        """Whether the file's first line names the columns."""

    def parse_block(self, block: bytes, starts: np.ndarray) -> pa.Table | None:
        """All rows of whole lines that begin at ``starts``, or None where not every line is a good row."""

    def parse_line(self, line: bytes) -> Sequence[object]:
        """The values of one row.

        Raises:
            BadRow: the row cannot be used.
        """


def read_rows(path: Path | Member, row_format: RowFormat, bad: BadRows) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Read a file in blocks of about 8 MiB; empty lines are left out silently, bad rows are counted.

    Args:
        path: the file; ``.gz`` is decompressed, a member of an archive is read in place.
        row_format: what a row looks like.
        bad: takes the bad rows, also those that the caller finds while it reads.

    Yields:
        The rows of a block, and the line number (from 1) of each, int64.

    Raises:
        UserError: the file cannot be read, or at its end too many rows were bad.
    """
    total, first = 0, 1
    for block in _blocks(path):
        if first == 1 and row_format.is_header(block.partition(b"\n")[0]):
            first, block = 2, block.partition(b"\n")[2]
        starts = _line_starts(block)
        table, numbers = row_format.parse_block(block, starts), np.arange(first, first + len(starts))
        if table is None:
            lines = [(number, line) for number, line in enumerate(block.split(b"\n"), first) if line.strip()]
            table, numbers = _parse_lines(lines, row_format, path, bad)
            total += len(lines)
        else:
            total += len(table)
        first += len(starts)
        yield table, numbers
    bad.check(total)


def _line_starts(block: bytes) -> np.ndarray:
    starts = np.concatenate([[0], np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + 1])
    return starts[starts < len(block)]


def _parse_lines(
    lines: list[tuple[int, bytes]], row_format: RowFormat, path: Path | Member, bad: BadRows
) -> tuple[pa.Table, np.ndarray]:
    rows, numbers = [], []
    for number, line in lines:
        try:
            rows.append(row_format.parse_line(line))
            numbers.append(number)
        except BadRow as error:
            bad.add(error.kind, path, number, error.detail)
    columns = zip(*rows, strict=True) if rows else [()] * len(row_format.schema)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, row_format.schema, strict=True)]
    return pa.table(arrays, row_format.schema), np.array(numbers, np.int64)


def _blocks(path: Path | Member) -> Iterator[bytes]:
    """A file's lines, many at a time."""
    rest = b""
    try:
        with gzip.open(path) if isinstance(path, Path) and path.suffix == ".gz" else path.open("rb") as file:
            if (start := file.read(3)) != _BYTE_ORDER_MARK:  # it is no text
                rest = start
            while chunk := file.read(_BLOCK_BYTES):
                block, newline, rest = (rest + chunk).rpartition(b"\n")
                if newline:
                    yield block + newline
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read to its end ({error}): get a whole copy of it") from error
    if rest:
        yield rest


def _is_blank(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.or_(pc.equal(pc.binary_length(column), 0), pc.utf8_is_space(column))


class JsonRows:
    """One JSON object per line; other fields are ignored, whatever they hold.

    Args:
        required: fields that every row has; an integer is taken for its decimal text.
        optional: fields that are empty text where they are absent.
        some_text: fields of which at least one must hold more than white space.
    """

    def __init__(self, required: Sequence[str], optional: Sequence[str] = (), some_text: Sequence[str] = ()) -> None:
        self.required, self.some_text = frozenset(required), tuple(some_text)
        self.schema = pa.schema([(name, pa.string()) for name in (*required, *optional)])

    def is_header(self, line: bytes) -> bool:
        """Never."""
        return False

    def parse_block(self, block: bytes, starts: np.ndarray) -> pa.Table | None:
        """Arrow's parser for blocks in which every line is one object."""
        import pyarrow.json as pj

        # Every line must begin with its object: Arrow (26.0) crashes on a first line ``null``, and takes two
        # objects on a line, or one on two, for rows. It also ends lines at a lone carriage return.
        objects = np.frombuffer(block, np.uint8)[starts] == ord("{")
        if not objects.all() or (b"\r" in block and block.count(b"\r") != block.count(b"\r\n")):
            return None
        options = pj.ParseOptions(explicit_schema=self.schema, unexpected_field_behavior="ignore")
        try:
            table = pj.read_json(pa.BufferReader(block), parse_options=options)
            table.validate(full=True)  # UTF-8 is checked here only
        except pa.ArrowInvalid:
            return None
        if len(table) != len(starts) or any(table[name].null_count for name in self.required):
            return None
        table = pa.table([pc.fill_null(column, "") for column in table.columns], self.schema)
        return None if self._has_blank(table) else table

    def _has_blank(self, table: pa.Table) -> bool:
        blank = [_is_blank(table[name]) for name in self.some_text]
        while len(blank) > 1:
            blank.append(pc.and_(blank.pop(), blank.pop()))
        return bool(blank and pc.any(blank[0]).as_py())

    def parse_line(self, line: bytes) -> list[str]:
        """Python's parser, which says what is wrong."""
        try:
            row = json.loads(line.decode())
        except UnicodeDecodeError as error:
            raise BadRow("invalid UTF-8", f"byte {error.start + 1}") from error
        except (ValueError, RecursionError) as error:
            raise BadRow("malformed JSON", str(error)) from error
        if not isinstance(row, dict):
            raise BadRow("malformed JSON", "not an object")
        values = {name: self._text(row, name) for name in self.schema.names}
        if self.some_text and not any(values[name].strip() for name in self.some_text):
            raise BadRow("empty " + " and ".join(self.some_text))
        return list(values.values())

    def _text(self, row: dict[str, Any], name: str) -> str:
        value = row.get(name)
        if value is None:
            if name in self.required:
                raise BadRow("missing field", name)
            return ""
        if type(value) is int:  # ids are numbers in some collections; a bool is no number
            value = str(value)
        if not isinstance(value, str):
            raise BadRow("field that is no text", name)
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise BadRow("invalid UTF-8", f"half a surrogate pair in {name}") from error
        return value


class TsvRows:
    """Tab-separated values without quoting (a quote character is text); text and int32 columns.

    Args:
        schema: the columns.
        header: first cells (in lower case) by which a line of column names is known; files without one need none.
        filled: columns that must hold more than white space.
    """

    def __init__(self, schema: pa.Schema, header: frozenset[str] = frozenset(), filled: Sequence[str] = ()) -> None:
        self.schema, self.header, self.filled = schema, header, frozenset(filled)

    def is_header(self, line: bytes) -> bool:
        """Whether the first cell is the name of a column."""
        return line.split(b"\t")[0].strip().lower().decode("utf-8", "replace") in self.header

    def parse_block(self, block: bytes, starts: np.ndarray) -> pa.Table | None:
        """Arrow's parser for blocks in which every line is one row."""
        import pyarrow.csv as pv

        # Arrow takes a lone carriage return for the end of a line, and leaves out a byte order mark.
        if block.startswith(_BYTE_ORDER_MARK) or (b"\r" in block and block.count(b"\r") != block.count(b"\r\n")):
            return None
        types = {field.name: field.type for field in self.schema}
        try:
            table = pv.read_csv(
                pa.BufferReader(block),
                pv.ReadOptions(column_names=self.schema.names),
                pv.ParseOptions(delimiter="\t", quote_char=False, double_quote=False),
                pv.ConvertOptions(column_types=types, null_values=[], strings_can_be_null=False),
            )
        except pa.ArrowInvalid:
            return None
        blank = any(pc.any(_is_blank(table[name])).as_py() for name in self.filled)
        return table if len(table) == len(starts) and not blank else None

    def parse_line(self, line: bytes) -> list[str | int]:
        """The cells of one line."""
        try:
            cells = line.removesuffix(b"\r").decode().split("\t")
        except UnicodeDecodeError as error:
            raise BadRow("invalid UTF-8", f"byte {error.start + 1}") from error
        if len(cells) != len(self.schema):
            raise BadRow("wrong number of columns", f"{len(cells)} instead of {len(self.schema)}")
        for cell, name in zip(cells, self.schema.names, strict=True):
            if name in self.filled and not cell.strip():
                raise BadRow(f"empty {name}")
        return [
            _integer(cell, field.name) if field.type == pa.int32() else cell
            for cell, field in zip(cells, self.schema, strict=True)
        ]


def _integer(cell: str, name: str) -> int:
    try:
        value = float(cell)
    except ValueError as error:
        raise BadRow("value that is no whole number", f"{name} {cell!r}") from error
    if not value.is_integer() or not -(2**31) <= value < 2**31:
        raise BadRow("value that is no whole number", f"{name} {cell!r}")
    return int(value)
