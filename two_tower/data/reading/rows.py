"""Tolerant reading of tables, most of them files of lines: bad rows are counted and left out.

A block of whole lines is parsed at once; only a block that is refused is parsed line by line, to find the bad
rows and their numbers. Lines end with a line feed (U+0085 and U+2028 are text), or all with a carriage return.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from two_tower.data.reading.content import CHUNK_BYTES, UNPACK, File, chunks
from two_tower.errors import BadRow, BadRows, UserError

Tables = Iterator[tuple[pa.Table, np.ndarray]]  # rows, and the number of each (int64, from 1)

_BLOCK_BYTES = CHUNK_BYTES
_BATCH_ROWS = 10_000
_SAMPLE_BYTES = 1 << 22


@dataclass(frozen=True)
class Rows:
    """A table to read."""

    place: File | str  # its file, or what it is called in messages
    read: Callable[[BadRows], Tables]  # reads its rows, anew each time; takes the bad rows


def read_all(parts: Iterable[Rows], bad: BadRows) -> Iterator[tuple[File | str, pa.Table, np.ndarray]]:
    """The rows of several tables, each with its place."""
    return ((part.place, table, numbers) for part in parts for table, numbers in part.read(bad))


class TableFile(ABC):
    """Rows with named columns, whatever their format."""

    path: File | str

    @property
    @abstractmethod
    def schema(self) -> pa.Schema:
        """The columns and what they hold, as far as the beginning of the file tells."""

    @abstractmethod
    def read(self, fields: pa.Schema, bad: BadRows, others: bool = False) -> Tables:
        """The columns ``fields``, of these types; what the file or a row lacks is null.

        With ``others``, a column `FIELDS` with a JSON object of all other scalars of each row.
        """

    def estimated_size(self) -> int | None:
        """About how many rows there are; None where one would have to read them all."""
        return None


class LineFile(TableFile):
    """A file of lines; ``encoding`` is the user's, see `content.chunks`."""

    path: File

    def __init__(self, path: File, encoding: str | None = None) -> None:
        self.path, self.encoding = path, encoding

    def estimated_size(self) -> int | None:
        """Judged by the first bytes; None for a compressed file."""
        if not isinstance(self.path, Path):
            return None
        with self.path.open("rb") as file:
            start = file.read(_SAMPLE_BYTES)
        if start.startswith(tuple(UNPACK)):
            return None
        return round(start.count(b"\n") * self.path.stat().st_size / max(1, len(start)))

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """The text in blocks of whole lines, each with the number of its first line; the last may lack its line feed.

        Where all lines end with a carriage return, as on old Macintoshes, line feeds replace them.
        """
        first, rest, returns = 1, b"", None
        for chunk in chunks(self.path, self.encoding):
            if returns is None:
                returns = b"\r" in chunk and b"\n" not in chunk
            if returns:
                chunk = chunk.replace(b"\r", b"\n")
            for start in range(0, len(chunk), _BLOCK_BYTES):
                block, newline, rest = (rest + chunk[start : start + _BLOCK_BYTES]).rpartition(b"\n")
                if newline:
                    yield first, block + newline
                    first += _line_feeds(block) + 1
        if rest:
            yield first, rest

    def start(self) -> bytes:
        """The first block that is not empty, read anew; a UserError where there is none."""
        found = next((block for _, block in self.blocks() if block.strip()), None)
        if found is None:
            raise UserError(f"{self.path} is empty: it must hold rows of text")
        return found


def _line_feeds(block: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(block, np.uint8) == ord("\n")))  # in half of the time of bytes.count


def parse_lines(
    block: bytes, first: int, at_once: Callable[[bytes, int], pa.Table | None],
    parse: Callable[[bytes], Sequence[object]], schema: pa.Schema, path: File, bad: BadRows,
) -> Tables:  # fmt: skip
    """The rows of a block of whole lines, the ``first`` of which has this number; empty lines are left out silently.

    ``at_once`` is Arrow's parser, which takes a block and how many lines it has; where not every line is a good row, it
    gives None, an ArrowInvalid or another number of rows. Then ``parse`` takes line by line, as in `parse_each`.
    """
    lines, table = _line_feeds(block) + (block[-1:] != b"\n"), None
    returns_within = b"\r" in block and block.count(b"\r") != block.count(b"\r\n")  # where Arrow would end a line
    with suppress(pa.ArrowInvalid):
        table = None if returns_within else at_once(block, lines)
    if table is not None and len(table) == lines:
        bad.rows += lines
        yield table, np.arange(first, first + lines)
    else:
        numbered = ((number, line) for number, line in enumerate(block.split(b"\n"), first) if line.strip())
        yield from parse_each(numbered, parse, schema, path, bad)


def parse_each(
    rows: Iterable[tuple[int, Any]], parse: Callable[[Any], Sequence[object]], schema: pa.Schema, place: File | str,
    bad: BadRows,
) -> Tables:  # fmt: skip
    """What ``parse`` makes of rows with their numbers, 10,000 at a time; a BadRow that it raises is counted."""
    rows = iter(rows)
    while batch := list(itertools.islice(rows, _BATCH_ROWS)):
        bad.rows += len(batch)
        good, numbers = [], []
        for number, row in batch:
            try:
                good.append(parse(row))
                numbers.append(number)
            except BadRow as error:
                bad.add(error.kind, place, number, error.detail)
        columns = zip(*good, strict=True) if good else [()] * len(schema)
        arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
        yield pa.table(arrays, schema), np.array(numbers, np.int64)
