"""Tolerant reading of files of lines, plain, .gz or in a .tar.gz: bad rows are counted and left out.

A block of whole lines is parsed at once; only a block that is refused is parsed line by line, which finds the
bad rows with their numbers. Lines end with a line feed and nothing else (U+0085 and U+2028 are text). How a line
becomes a row is in `two_tower.data.reading.formats`.
"""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import numpy as np
import pyarrow as pa

from two_tower.data.reading.archive import Member
from two_tower.errors import UserError

__all__ = [
    "BYTE_ORDER_MARK", "BadRow", "BadRows", "RowFormat", "Rows", "first_columns",
    "first_lines", "open_bytes", "read_rows", "readable",
]  # fmt: skip

_BLOCK_BYTES = 8 << 20  # large enough for Arrow's threads, small enough to parse again line by line
_EXAMPLES = 3
_FIRST_LINES = 1000
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


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
        self._lost = 0

    def add(self, kind: str, file: str | Path | Member, row: int, detail: str = "") -> None:
        """Count one bad row; ``row`` is its line number, from 1."""
        self.counts[kind] += 1
        shown = self.examples.setdefault(kind, [])
        message = f"{file}, row {row}: {kind}" + (f" ({detail})" if detail else "")
        if len(shown) < _EXAMPLES:
            shown.append(message)
        if self._first is None or row < self._first[0]:
            self._first = row, message

    def include(self, lost: BadRows) -> None:
        """Take over rows that could not be read at all, so that whoever counts what was read does not see them."""
        self.counts += lost.counts
        for kind, messages in lost.examples.items():
            self.examples[kind] = [*self.examples.get(kind, ()), *messages][:_EXAMPLES]
        firsts = [first for first in (self._first, lost._first) if first is not None]
        self._first = min(firsts, default=None)
        self._lost += lost.counts.total()

    def check(self, total: int) -> None:
        """Compare with the number of rows of the file, those of `include` apart.

        Raises:
            UserError: more than ``max_bad_rows * total`` rows are bad; the message names the first.
        """
        bad, total = self.counts.total(), total + self._lost
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


@dataclass(frozen=True)
class Rows:
    """A table to read.

    Attributes:
        place: its file, or what it is called in messages.
        read: its rows, read anew each time, with the number of each (int64, from 1); takes the bad rows.
    """

    place: Path | Member | str
    read: Callable[[BadRows], Iterator[tuple[pa.Table, np.ndarray]]]


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


def first_lines(path: Path | Member) -> list[bytes]:
    """Up to 1,000 lines from the start of a file, as many as 8 MiB hold.

    Raises:
        UserError: the file cannot be read.
    """
    return next(_blocks(path), b"").split(b"\n", _FIRST_LINES)[:_FIRST_LINES]


def first_columns(path: Path | Member) -> int:
    """How many cells, separated by tabs, the first line of a file has; 1 for an empty file.

    Raises:
        UserError: the file cannot be read.
    """
    return len(next(iter(first_lines(path)), b"").split(b"\t"))


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


@contextmanager
def readable(path: Path | Member) -> Iterator[None]:
    """Around work with a file.

    Raises:
        UserError: it cannot be read, ends too early or is damaged.
    """
    try:
        yield
    except (OSError, EOFError, zlib.error, pa.ArrowInvalid) as error:
        raise UserError(f"{path} cannot be read to its end ({error}): get a whole copy of it") from error


def open_bytes(path: Path | Member) -> BinaryIO:
    """The bytes of a file, decompressed where its name ends in ``.gz``."""
    packed = isinstance(path, Path) and path.suffix == ".gz"
    return cast(BinaryIO, gzip.GzipFile(str(path)) if packed else path.open("rb"))


def _blocks(path: Path | Member) -> Iterator[bytes]:
    """A file's lines, many at a time."""
    rest = b""
    with readable(path), open_bytes(path) as file:
        if (start := file.read(3)) != BYTE_ORDER_MARK:  # it is no text
            rest = start
        while chunk := file.read(_BLOCK_BYTES):
            block, newline, rest = (rest + chunk).rpartition(b"\n")
            if newline:
                yield block + newline
    if rest:
        yield rest
