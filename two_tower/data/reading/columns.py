"""Named text columns from a CSV, TSV, JSON lines or Parquet file, in batches of bounded size."""

from __future__ import annotations

import csv
import io
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from two_tower.cache import notice
from two_tower.data.reading.formats import JsonRows, TsvRows, first_objects
from two_tower.data.reading.rows import Tables, open_bytes, read_rows, readable, without_invalid
from two_tower.errors import BadRows, UserError, one_of

_BATCH_ROWS = 10_000
_BAD_QUOTES = "malformed quoting"
_CELL_CHARACTERS = 1 << 24  # the csv module allows 131,072 by default, and long documents have more


class ColumnFile(ABC):
    """A file of rows with named columns."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def names(self) -> list[str]: ...

    def estimated_size(self) -> int | None:
        return estimated_lines(self.path)

    @abstractmethod
    def _batches(self, columns: Sequence[str], required: Sequence[str], bad: BadRows) -> Tables:
        """Rows of text columns, "" for what is missing; blank cells may be in them."""

    def read(self, columns: Sequence[str], required: Sequence[str], bad: BadRows) -> Tables:
        """The rows with text in all required columns, as trimmed strings without nulls; ``bad`` takes the others."""
        for table, rows in self._batches(columns, required, bad):
            trimmed = [pc.utf8_trim_whitespace(table[name]) for name in columns]
            table, good = pa.table(trimmed, names=list(columns)), np.ones(len(table), bool)
            for name in required:
                blank = pc.equal(table[name], "").to_numpy() & good
                bad.add_where(blank, f"empty {name}", self.path, rows)
                good &= ~blank
            yield (table, rows) if good.all() else (table.filter(pa.array(good)), rows[good])


class TsvFile(ColumnFile):
    """Tab-separated values without quoting; the columns of a file without ``header`` are ``1``, ``2`` and so on."""

    def __init__(self, path: Path, header: bool = True) -> None:
        super().__init__(path)
        self.header = header

    def names(self) -> list[str]:
        with _text(self.path) as file:
            cells = file.readline().split("\t")
        return _distinct(cells if self.header else map(str, range(1, len(cells) + 1)), self.path)

    def _batches(self, columns: Sequence[str], required: Sequence[str], bad: BadRows) -> Tables:
        names = self.names()
        header = frozenset({names[0].lower()} if self.header else ())
        row_format = TsvRows(pa.schema([(name, pa.string()) for name in names]), header)
        return read_rows(self.path, row_format, bad)


class JsonFile(ColumnFile):
    """One JSON object per line; the first 1,000 lines name the columns."""

    def names(self) -> list[str]:
        return list(dict.fromkeys(name for row in first_objects(self.path) for name in row))

    def _batches(self, columns: Sequence[str], required: Sequence[str], bad: BadRows) -> Tables:
        optional = [name for name in columns if name not in required]
        return read_rows(self.path, JsonRows(required, optional), bad)


class CsvFile(ColumnFile):
    """Comma- or semicolon-separated values with quoting; the first row names the columns."""

    def names(self) -> list[str]:
        with _text(self.path, newline="") as file:
            return _distinct(next(self._rows(file, BadRows(1)), (1, []))[1], self.path)

    def _batches(self, columns: Sequence[str], required: Sequence[str], bad: BadRows) -> Tables:
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
        """Each row that is not empty and the number of its first line; wrongly quoted lines are bad."""
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
        with readable(self.path):
            return list(pq.read_schema(self.path).names)

    def estimated_size(self) -> int:
        with readable(self.path):
            return int(pq.read_metadata(self.path).num_rows)

    def _batches(self, columns: Sequence[str], required: Sequence[str], bad: BadRows) -> Tables:
        total = 0
        with readable(self.path), pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=list(columns)):
                numbers = np.arange(total + 1, total + len(batch) + 1)
                total += len(batch)
                good, numbers = without_invalid(pa.Table.from_batches([batch]), numbers, self.path, bad)
                yield pa.table([self._as_text(good[name], name) for name in columns], list(columns)), numbers
        bad.check(total)

    def _as_text(self, column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
        try:
            return pc.fill_null(column.cast(pa.string()), "")
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UserError(f"Column {name!r} of {self.path} holds {column.type}, not text: choose another") from error


_KINDS = {
    ".csv": CsvFile, ".tsv": TsvFile, ".jsonl": JsonFile, ".ndjson": JsonFile, ".parquet": ParquetFile,
}  # fmt: skip


def _open(path: Path) -> ColumnFile:
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


def estimated_lines(path: Path, sample: int = 1 << 22) -> int | None:
    """About how many lines a file has, judged by its first ``sample`` bytes; None for a compressed one."""
    if path.suffix == ".gz":
        return None
    with path.open("rb") as file:
        start = file.read(sample)
    return round(start.count(b"\n") * path.stat().st_size / max(1, len(start)))


def find_columns(
    path: Path,
    chosen: Mapping[str, str | None],
    usual: Mapping[str, Sequence[str]],
    required: Sequence[str],
    plain: tuple[str, str],
) -> tuple[ColumnFile, dict[str, str]]:
    """Open a file and find the column of each role: the one that the user chose, or the first with a usual name.

    ``required`` roles must have a column; ``plain`` are the roles of the two columns of a TSV file without header.
    """
    file = _open(path)
    names = file.names()
    columns: dict[str, str] = {}
    for role, name in chosen.items():
        if name is None:
            continue
        if name not in names:
            raise ValueError(f"{role}_column={name} is no column of {path}; {one_of(name, names)}")
        if name in columns.values():
            raise ValueError(f"{role}_column={name} has another role already: name different columns")
        columns[role] = name
    free = {name.lower(): name for name in names if name not in columns.values()}
    for role, candidates in usual.items():
        found = next((free[name] for name in candidates if name in free), None)
        if role not in columns and found is not None:
            columns[role] = found
    if not columns and isinstance(file, TsvFile) and len(names) == 2:
        notice(f"{path}: no usual name in the first line, so its columns are taken for {' and '.join(plain)}.")
        return TsvFile(path, header=False), {plain[0]: "1", plain[1]: "2"}
    for role in required:
        if role not in columns:
            raise UserError(
                f"{path} has no column with a usual name for a {role} ({', '.join(usual[role])}): "
                f"set data.{role}_column to one of its columns, {', '.join(names)[:200]}"
            )
    return file, columns


def name_of(path: Path) -> str:
    """A file's name without its endings ``.KIND`` and ``.gz``."""
    return path.name.removesuffix(".gz").rpartition(".")[0]


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
    """The file as text; invalid UTF-8 becomes lone surrogates, so that it can be counted row by row."""
    with readable(path), open_bytes(path) as file:
        yield io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline=newline)
