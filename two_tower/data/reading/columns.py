"""Named text columns from a CSV, TSV, JSON lines or Parquet file, in batches of bounded size."""

from __future__ import annotations

import csv
import gzip
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.data.reading.arrays import valid_rows
from two_tower.data.reading.formats import JsonRows, TsvRows, first_objects
from two_tower.data.reading.rows import BadRows, read_rows, readable
from two_tower.errors import UserError

__all__ = ["ColumnFile", "CsvFile", "JsonFile", "ParquetFile", "TsvFile", "lines_about", "open_columns"]

Batches = Iterator[tuple[pa.Table, np.ndarray]]

_BATCH_ROWS = 10_000
_BAD_QUOTES = "malformed quoting"
_CELL_CHARACTERS = 1 << 24  # the csv module allows 131,072 by default, and long documents have more


class ColumnFile(ABC):
    """A file of rows with named columns.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def names(self) -> list[str]:
        """The columns, in order.

        Raises:
            UserError: the file is empty or cannot be read.
        """

    def about(self) -> int | None:
        """About how many rows there are, see `lines_about`."""
        return lines_about(self.path)

    @abstractmethod
    def _batches(self, columns: Sequence[str], required: Sequence[str], bad: BadRows) -> Batches:
        """Rows of text columns, "" for what is missing; blank cells may be in them."""

    def read(self, columns: Sequence[str], required: Sequence[str], bad: BadRows) -> Batches:
        """The rows with text in all required columns; white space around texts is removed.

        Args:
            columns: names of different columns.
            required: those of them that must hold text.
            bad: takes the bad rows, also those that the caller finds while it reads.

        Yields:
            Rows of strings without nulls, and the number (from 1) of each, int64: its line, or its row in Parquet.

        Raises:
            UserError: the file cannot be read, or at its end too many rows were bad.
        """
        for table, rows in self._batches(columns, required, bad):
            trimmed = [pc.utf8_trim_whitespace(table[name]) for name in columns]
            table, good = pa.table(trimmed, names=list(columns)), np.ones(len(table), bool)
            for name in required:
                blank = pc.equal(table[name], "").to_numpy() & good
                for row in np.flatnonzero(blank):
                    bad.add(f"empty {name}", self.path, int(rows[row]))
                good &= ~blank
            yield (table, rows) if good.all() else (table.filter(pa.array(good)), rows[good])


class TsvFile(ColumnFile):
    """Tab-separated values without quoting.

    Args:
        path: the file, perhaps ``.gz``.
        header: whether the first line names the columns; otherwise they are called ``1``, ``2`` …
    """

    def __init__(self, path: Path, header: bool = True) -> None:
        super().__init__(path)
        self.header = header

    def names(self) -> list[str]:
        """The cells of the first line, or their numbers."""
        with _text(self.path) as file:
            cells = file.readline().split("\t")
        return _distinct(cells if self.header else map(str, range(1, len(cells) + 1)), self.path)

    def _batches(self, columns: Sequence[str], required: Sequence[str], bad: BadRows) -> Batches:
        names = self.names()
        header = frozenset({names[0].lower()} if self.header else ())
        row_format = TsvRows(pa.schema([(name, pa.string()) for name in names]), header)
        return read_rows(self.path, row_format, bad)


class JsonFile(ColumnFile):
    """One JSON object per line; the first 1,000 lines name the columns."""

    def names(self) -> list[str]:
        """The fields that occur in the first lines."""
        return list(dict.fromkeys(name for row in first_objects(self.path) for name in row))

    def _batches(self, columns: Sequence[str], required: Sequence[str], bad: BadRows) -> Batches:
        optional = [name for name in columns if name not in required]
        return read_rows(self.path, JsonRows(required, optional), bad)


class CsvFile(ColumnFile):
    """Comma- or semicolon-separated values with quoting; the first row names the columns."""

    def names(self) -> list[str]:
        """The cells of the first row."""
        with _text(self.path, newline="") as file:
            return _distinct(next(self._rows(file, BadRows(1)), (1, []))[1], self.path)

    def _batches(self, columns: Sequence[str], required: Sequence[str], bad: BadRows) -> Batches:
        names = self.names()
        places, total = [names.index(name) for name in columns], 0
        with _text(self.path, newline="") as file:
            rows = self._rows(file, bad)
            next(rows)
            while read := list(itertools.islice(rows, _BATCH_ROWS)):
                total += len(read)
                good = [(line, *(row[p] for p in places)) for line, row in read if self._is_good(line, row, names, bad)]
                lines, *cells = zip(*good, strict=True) if good else [()] * (len(places) + 1)
                table = pa.table([pa.array(column, pa.string()) for column in cells], names=list(columns))
                yield table, np.array(lines, np.int64)
        bad.check(total + bad.counts[_BAD_QUOTES])

    def _rows(self, file: TextIO, bad: BadRows) -> Iterator[tuple[int, list[str]]]:
        """Each row that is not empty, with the number of its first line; wrongly quoted lines are bad."""
        csv.field_size_limit(_CELL_CHARACTERS)
        first = file.readline()
        delimiter = max(",;\t", key=first.count)
        reader = csv.reader(itertools.chain([first], file), delimiter=delimiter, strict=True)
        while True:
            line = reader.line_num + 1
            try:
                if row := next(reader):
                    yield line, row
            except StopIteration:
                return
            except csv.Error as error:  # a quote that is not closed takes the following lines with it
                for number in range(line, reader.line_num + 1):
                    bad.add(_BAD_QUOTES, self.path, number, str(error))

    def _is_good(self, line: int, row: list[str], names: list[str], bad: BadRows) -> bool:
        if len(row) != len(names):
            bad.add("wrong number of columns", self.path, line, f"{len(row)} instead of {len(names)}")
            return False
        try:
            "".join(row).encode()
        except UnicodeEncodeError:
            bad.add("invalid UTF-8", self.path, line)
            return False
        return True


class ParquetFile(ColumnFile):
    """A Parquet file."""

    def names(self) -> list[str]:
        """The top-level columns."""
        import pyarrow.parquet as pq

        with readable(self.path):
            return list(pq.read_schema(self.path).names)

    def about(self) -> int:
        """How many rows there are."""
        import pyarrow.parquet as pq

        with readable(self.path):
            return int(pq.read_metadata(self.path).num_rows)

    def _batches(self, columns: Sequence[str], required: Sequence[str], bad: BadRows) -> Batches:
        import pyarrow.parquet as pq

        total = 0
        with readable(self.path), pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=list(columns)):
                read, rows = pa.Table.from_batches([batch]), np.arange(total + 1, total + len(batch) + 1)
                valid = valid_rows(read)
                for row in rows[~valid]:
                    bad.add("invalid UTF-8", self.path, int(row))
                good = read.filter(pa.array(valid))
                yield pa.table([self._as_text(good[name], name) for name in columns], list(columns)), rows[valid]
                total += len(batch)
        bad.check(total)

    def _as_text(self, column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
        try:
            return pc.fill_null(column.cast(pa.string()), "")
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UserError(f"Column {name!r} of {self.path} holds {column.type}, not text: choose another") from error


_KINDS = {
    ".csv": CsvFile, ".tsv": TsvFile, ".jsonl": JsonFile, ".ndjson": JsonFile, ".parquet": ParquetFile,
}  # fmt: skip


def open_columns(path: Path) -> ColumnFile:
    """A file by the end of its name: ``.csv``, ``.tsv``, ``.jsonl``, ``.ndjson`` (each perhaps ``.gz``), ``.parquet``.

    Raises:
        UserError: the file does not exist, is empty, or its name ends otherwise.
    """
    if not path.is_file():
        raise UserError(f"{path} is no file: data.path must be a .csv, .tsv, .jsonl or .parquet file")
    kind = _KINDS.get(Path(path.name.removesuffix(".gz")).suffix.lower())
    if kind is None:
        raise UserError(
            f"{path} is of no known kind: its name must end in {', '.join(_KINDS)} (all but .parquet also in .gz)"
        )
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty: it must hold rows with a query and a passage each")
    return kind(path)


def lines_about(path: Path, sample: int = 1 << 22) -> int | None:
    """About how many lines a file has, by those of its beginning; None for a compressed one.

    Args:
        path: the file.
        sample: bytes that are read.
    """
    if path.suffix == ".gz":
        return None
    with path.open("rb") as file:
        start = file.read(sample)
    return round(start.count(b"\n") * path.stat().st_size / max(1, len(start)))


def _distinct(cells: Iterable[str], path: Path) -> list[str]:
    names = [cell.strip() for cell in cells]
    if names in ([], [""]):
        raise UserError(f"{path} is empty: it must hold rows with a query and a passage each")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"{path} has two columns that are called {twice[0]!r}: rename one")
    return names


@contextmanager
def _text(path: Path, newline: str = "\n") -> Iterator[TextIO]:
    """The file as text; bytes that are no UTF-8 become lone surrogates, so that they can be counted row by row."""
    read = gzip.open if path.suffix == ".gz" else open
    with readable(path), read(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline=newline) as file:
        yield cast(TextIO, file)
