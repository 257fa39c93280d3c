"""Tolerant reading of files of lines: bad rows are counted and left out.

A block of whole lines is parsed at once; only a block that is refused is parsed line by line, to find the bad
rows and their numbers. Lines end with a line feed (U+0085 and U+2028 are text), or all with a carriage return. How a
line becomes a row is in `two_tower.data.reading.formats`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from two_tower.data.reading.content import CHUNK_BYTES, File, chunks
from two_tower.errors import BadRow, BadRows

Tables = Iterator[tuple[pa.Table, np.ndarray]]  # rows, and the number of each (int64, from 1)

_BLOCK_BYTES = CHUNK_BYTES
_FIRST_LINES = 1000


@dataclass(frozen=True)
class Rows:
    """A table to read."""

    place: File | str  # its file, or what it is called in messages
    read: Callable[[BadRows], Tables]  # reads its rows, anew each time; takes the bad rows


def read_all(parts: Iterable[Rows], bad: BadRows) -> Iterator[tuple[File | str, pa.Table, np.ndarray]]:
    """The rows of several tables, each with its place, under one limit of bad rows."""
    total = 0
    for part in parts:
        unread = BadRows(1)
        for table, numbers in part.read(unread):
            total += len(table)
            yield part.place, table, numbers
        bad.include(unread)
    bad.check(total)


class RowFormat(ABC):
    """How lines become rows of ``schema``."""

    schema: pa.Schema

    @abstractmethod
    def parse_block(self, block: bytes, starts: np.ndarray) -> pa.Table | None:
        """All rows of whole lines that begin at ``starts``, or None where not every line is a good row."""

    @abstractmethod
    def parse_line(self, line: bytes) -> Sequence[object]:
        """The values of one row; a BadRow says why it cannot be used."""


def read_rows(path: File, row_format: RowFormat, bad: BadRows, encoding: str | None = None, skip: int = 0) -> Tables:
    """Read a file in blocks of about 8 MiB, but not its ``skip`` first rows; empty lines are left out silently.

    ``bad`` takes the bad rows, also those that the caller finds while it reads.
    """
    yield from parse_blocks(line_blocks(path, encoding), row_format, path, bad, skip)


def parse_blocks(blocks: Iterable[bytes], row_format: RowFormat, path: File, bad: BadRows, skip: int = 0) -> Tables:
    """The rows of blocks of whole lines, see `read_rows`."""
    total, first = 0, 1
    for block in blocks:
        while skip and block:
            line, _, block = block.partition(b"\n")
            first, skip = first + 1, skip - bool(line.strip())
        starts = np.concatenate([[0], np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + 1])
        starts = starts[starts < len(block)]
        table, numbers = row_format.parse_block(block, starts), np.arange(first, first + len(starts))
        if table is None:
            lines = [(number, line) for number, line in enumerate(block.split(b"\n"), first) if line.strip()]
            table, numbers = parse_each(lines, row_format.parse_line, row_format.schema, path, bad)
            total += len(lines)
        else:
            total += len(table)
        first += len(starts)
        yield table, numbers
    bad.check(total)


def rows_of_file(
    path: File, row_format: RowFormat, convert: Callable[[pa.Table], pa.Table] = lambda table: table,
    encoding: str | None = None,
) -> Rows:  # fmt: skip
    """The rows of a file of lines; ``convert`` makes of the format's columns those that are wanted."""

    def read(bad: BadRows) -> Tables:
        for table, numbers in read_rows(path, row_format, bad, encoding):
            yield convert(table), numbers

    return Rows(path, read)


def parse_each(
    rows: Iterable[tuple[int, Any]], parse: Callable[[Any], Sequence[object]], schema: pa.Schema, place: File | str,
    bad: BadRows,
) -> tuple[pa.Table, np.ndarray]:  # fmt: skip
    """What ``parse`` makes of rows with their numbers; a BadRow that it raises is counted."""
    good, numbers = [], []
    for number, row in rows:
        try:
            good.append(parse(row))
            numbers.append(number)
        except BadRow as error:
            bad.add(error.kind, place, number, error.detail)
    columns = zip(*good, strict=True) if good else [()] * len(schema)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.table(arrays, schema), np.array(numbers, np.int64)


def first_lines(path: File, encoding: str | None = None) -> list[bytes]:
    """Up to 1,000 lines from the start of a file, at most 8 MiB of them."""
    return next(line_blocks(path, encoding), b"").split(b"\n", _FIRST_LINES)[:_FIRST_LINES]


def first_columns(path: File, encoding: str | None = None) -> int:
    """How many tab-separated cells the first line of a file has; 1 for an empty file."""
    return len(next(iter(first_lines(path, encoding)), b"").split(b"\t"))


def line_blocks(path: File, encoding: str | None = None, keep_returns: bool = False) -> Iterator[bytes]:
    """A file in blocks of whole lines, each of which ends with a line feed but perhaps the last.

    Where all lines end with a carriage return, as on old Macintoshes, line feeds replace them, unless these are kept.
    """
    rest, returns, end = b"", None, b"\n"
    for chunk in chunks(path, encoding):
        if returns is None:
            returns = b"\r" in chunk and b"\n" not in chunk
            end = b"\r" if returns and keep_returns else b"\n"
        if returns and not keep_returns:
            chunk = chunk.replace(b"\r", b"\n")
        for start in range(0, len(chunk), _BLOCK_BYTES):
            block, newline, rest = (rest + chunk[start : start + _BLOCK_BYTES]).rpartition(end)
            if newline:
                yield block + newline
    if rest:
        yield rest


def estimated_lines(path: Path, sample: int = 1 << 22) -> int | None:
    """About how many lines a file has, judged by its first ``sample`` bytes; None for a compressed one."""
    with path.open("rb") as file:
        start = file.read(sample)
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"PK\x03\x04", b"\x28\xb5\x2f\xfd")):
        return None
    return round(start.count(b"\n") * path.stat().st_size / max(1, len(start)))
