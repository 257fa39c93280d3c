"""Tolerant reading of files of lines, plain, .gz or in a .tar.gz: bad rows are counted and left out.

A block of whole lines is parsed at once; only a block that is refused is parsed line by line, to find the bad
rows and their numbers. Lines end with a line feed and nothing else (U+0085 and U+2028 are text). How a line
becomes a row is in `two_tower.data.reading.formats`.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.data.reading.archive import Member
from two_tower.errors import BadRow, BadRows, UserError

Tables = Iterator[tuple[pa.Table, np.ndarray]]  # rows, and the number of each (int64, from 1)

_BLOCK_BYTES = 8 << 20  # large enough for Arrow's threads, small enough to parse again line by line
_FIRST_LINES = 1000
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Rows:
    """A table to read."""

    place: Path | Member | str  # its file, or what it is called in messages
    read: Callable[[BadRows], Tables]  # reads its rows, anew each time; takes the bad rows


class RowFormat(ABC):
    """How lines become rows of ``schema``."""

    schema: pa.Schema

    def is_header(self, line: bytes) -> bool:
        """Whether the file's first line names the columns."""
        return False

    @abstractmethod
    def parse_block(self, block: bytes, starts: np.ndarray) -> pa.Table | None:
        """All rows of whole lines that begin at ``starts``, or None where not every line is a good row."""

    @abstractmethod
    def parse_line(self, line: bytes) -> Sequence[object]:
        """The values of one row; a BadRow says why it cannot be used."""


def read_rows(path: Path | Member, row_format: RowFormat, bad: BadRows) -> Tables:
    """Read a file in blocks of about 8 MiB; empty lines are left out silently.

    ``bad`` takes the bad rows, also those that the caller finds while it reads.
    """
    total, first = 0, 1
    for block in _blocks(path):
        if first == 1 and row_format.is_header(block.partition(b"\n")[0]):
            first, block = 2, block.partition(b"\n")[2]
        starts = np.concatenate([[0], np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + 1])
        starts = starts[starts < len(block)]
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


def rows_of_file(
    path: Path | Member, row_format: RowFormat, convert: Callable[[pa.Table], pa.Table] = lambda table: table
) -> Rows:
    """The rows of a file of lines; ``convert`` makes of the format's columns those that are wanted."""

    def read(bad: BadRows) -> Tables:
        for table, numbers in read_rows(path, row_format, bad):
            yield convert(table), numbers

    return Rows(path, read)


def first_lines(path: Path | Member) -> list[bytes]:
    """Up to 1,000 lines from the start of a file, at most 8 MiB of them."""
    return next(_blocks(path), b"").split(b"\n", _FIRST_LINES)[:_FIRST_LINES]


def first_columns(path: Path | Member) -> int:
    """How many tab-separated cells the first line of a file has; 1 for an empty file."""
    return len(next(iter(first_lines(path)), b"").split(b"\t"))


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


@contextmanager
def readable(path: object) -> Iterator[None]:
    """Around work with a file: a file that is absent, cut or damaged becomes a UserError."""
    try:
        yield
    except (OSError, EOFError, zlib.error, tarfile.TarError, pa.ArrowInvalid) as error:
        raise UserError(f"{path} cannot be read to its end ({error}): get a whole copy of it") from error


def open_bytes(path: Path | Member) -> AbstractContextManager[IO[bytes]]:
    """The bytes of a file, decompressed where its name ends in ``.gz``."""
    if isinstance(path, Path) and path.suffix == ".gz":
        return cast(AbstractContextManager[IO[bytes]], gzip.open(path))
    return path.open("rb")


def _blocks(path: Path | Member) -> Iterator[bytes]:
    rest = b""
    with readable(path), open_bytes(path) as file:
        if (start := file.read(3)) != BYTE_ORDER_MARK:
            rest = start
        while chunk := file.read(_BLOCK_BYTES):
            block, newline, rest = (rest + chunk).rpartition(b"\n")
            if newline:
                yield block + newline
    if rest:
        yield rest


# Columns whose types a file decided


def _valid_rows(table: pa.Table) -> np.ndarray:
    """Which rows hold nothing but valid UTF-8, (N,) bool."""
    try:
        table.validate(full=True)
    except pa.ArrowInvalid:
        if len(table) == 1:
            return np.zeros(1, bool)
        half = len(table) // 2
        return np.concatenate([_valid_rows(table.slice(0, half)), _valid_rows(table.slice(half))])
    return np.ones(len(table), bool)


def without_invalid(table: pa.Table, rows: np.ndarray, place: object, bad: BadRows) -> tuple[pa.Table, np.ndarray]:
    """The rows (N,) that are valid UTF-8; the others are bad."""
    valid = _valid_rows(table)
    bad.add_where(~valid, "invalid UTF-8", place, rows)
    return (table, rows) if valid.all() else (table.filter(pa.array(valid)), rows[valid])


def text_of(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Texts and ids (N,) as strings, whole numbers in decimal digits; "" for null."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return pc.fill_null(column.cast(pa.string()), "")


def flat_lists(column: pa.ChunkedArray, fields: Iterable[str]) -> list[tuple[np.ndarray, pa.Array]]:
    """Of each field of (N,) structs of lists, or lists of structs, the lengths of the lists and all their elements.

    Data sets have both forms for the same. The lengths are (N,) int64, 0 for null.
    """
    array = column.combine_chunks()
    lists = [pc.struct_field(array if pa.types.is_struct(array.type) else pc.list_flatten(array), f) for f in fields]
    if pa.types.is_struct(array.type):
        return [(list_lengths(values), pc.list_flatten(values)) for values in lists]
    return [(list_lengths(array), values) for values in lists]


def list_fields(kind: pa.DataType) -> list[str]:
    """The names of the fields in structs of lists, or lists of structs; none for other types."""
    inner = kind.value_type if is_list(kind) else kind
    return [field.name for field in inner] if pa.types.is_struct(inner) else []


def list_type(like: pa.DataType, fields: Mapping[str, pa.DataType]) -> pa.DataType:
    """A struct of lists where ``like`` is one, else a list of structs, with these fields."""
    if pa.types.is_struct(like):
        return pa.struct([(name, pa.list_(kind)) for name, kind in fields.items()])
    return pa.list_(pa.struct(list(fields.items())))


def is_list(kind: pa.DataType) -> bool:
    """Whether it is a type of lists of any length."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


@contextmanager
def column_types(label: object) -> Iterator[None]:
    """Around work with columns whose types come from a file: an unexpected type becomes a UserError."""
    try:
        yield
    except pa.ArrowException as error:
        cause = str(error).split("\n")[0]
        raise UserError(f"{label} has a column that does not hold what its name says ({cause})") from error


def list_lengths(lists: pa.Array) -> np.ndarray:
    """How long each list is, (N,) int64; 0 for null."""
    return pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
