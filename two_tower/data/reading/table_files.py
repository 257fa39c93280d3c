"""Tables in files that anybody may have written: their format by content, their columns by usual names or by keys."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from two_tower.cache import file_fingerprint, notice
from two_tower.data.base import FIELDS
from two_tower.data.reading.archive import PACKED
from two_tower.data.reading.arrow import (
    choose,
    column_types,
    empty,
    is_text,
    scalars,
    text_of,
    without_blank,
    without_invalid,
)
from two_tower.data.reading.content import bare_name, check_encoding, kind_of, readable
from two_tower.data.reading.delimited import DelimitedFile
from two_tower.data.reading.json_files import JsonFile
from two_tower.data.reading.names import first_of
from two_tower.data.reading.rows import LineFile, Rows, TableFile, Tables
from two_tower.errors import BadRows, UserError, one_of
from two_tower.files import refuse_stand_in

KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_DESCRIPTIONS = ("dataset_infos.json", "dataset_dict.json", "state.json")  # of data sets, by `datasets`
_BATCH_ROWS = 10_000


class ColumnFile(TableFile):
    """A table whose columns have types of their own."""

    @abstractmethod
    def tables(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """All rows of these columns, some at a time."""

    def read(self, fields: pa.Schema, bad: BadRows, others: bool = False) -> Tables:
        wanted, first = {*fields.names, *(scalars(self.schema) if others else ())}, 1
        for table in self.tables([name for name in self.schema.names if name in wanted]):
            bad.rows += len(table)
            numbers = np.arange(first, first + len(table))
            first += len(table)
            table, numbers = without_invalid(table, numbers, self.path, bad)
            yield choose(table, fields, others), numbers


class ParquetFile(ColumnFile):
    """A Parquet file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def schema(self) -> pa.Schema:
        with readable(self.path):
            return pq.read_schema(self.path).remove_metadata()

    def estimated_size(self) -> int:
        with readable(self.path):
            return int(pq.read_metadata(self.path).num_rows)

    def tables(self, names: Sequence[str]) -> Iterator[pa.Table]:
        with readable(self.path), pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=names):
                yield pa.Table.from_batches([batch])


def open_table(path: Path, encoding: str | None = None) -> TableFile:
    """A file of rows: its first bytes say whether it holds Parquet, JSON or delimited text."""
    if not path.is_file():
        raise UserError(f"{path} is no file: data.path must be one of CSV, TSV, JSON or Parquet, or a folder of these")
    with readable(path), path.open("rb") as file:
        start = file.read(1000)
    if start.startswith(b"PAR1") or kind_of(path) == ".parquet":
        refuse_stand_in(path, start)
        return ParquetFile(path)
    table = JsonFile(path, encoding)
    if re.search(rb"^\s*[{\[]", table.start()[:1_000_000], re.MULTILINE):
        with suppress(UserError):
            if "json" in kind_of(path) or table.schema:
                return table
    return DelimitedFile(path, encoding)


def data_files(folder: Path) -> list[Path]:
    """The files of known kinds in a folder and its folders, in the order of their names; hidden ones are not."""
    found = (path for path in sorted(folder.rglob("*")) if kind_of(path) in KINDS and path.name not in _DESCRIPTIONS)
    return [p for p in found if p.is_file() and not any(n[0] in "._" for n in p.relative_to(folder).parts)]


def open_tables(path: Path, encoding: str | None = None) -> list[TableFile]:
    """A file, or the `data_files` of a folder; a ValueError where the ``encoding`` is unknown."""
    check_encoding(encoding)
    if not path.is_dir():
        return [open_table(path, encoding)]
    if not (found := data_files(path)):
        endings = f"{', '.join(KINDS)}, each perhaps with {', '.join(PACKED)}"
        raise UserError(f"{path} holds no file of a known kind: {endings}")
    return [open_table(file, encoding) for file in found]


def find_named(folder: Path, name: str, kinds: Sequence[str] = (*KINDS, "")) -> Path | None:
    """The file of this name and of one of these kinds, however compressed, or the folder of this name."""
    named = [path for path in sorted(folder.iterdir()) if bare_name(path).lower() == name]
    files = [path for path in named if path.is_file() and kind_of(path) in kinds]
    folders = [path for path in named if path.is_dir() and len(kinds) > 1]
    return next(iter([*sorted(files, key=lambda path: kinds.index(kind_of(path))), *folders]), None)


@dataclass(frozen=True)
class RoleTables:
    """The files of one table, and the column of each role that has one."""

    files: Sequence[TableFile]
    columns: Mapping[str, str]

    def __contains__(self, role: str) -> bool:
        return role in self.columns

    @cached_property
    def has_others(self) -> bool:
        """Whether there are columns of scalars beside those of the roles."""
        return any(set(scalars(file.schema)) - set(self.columns.values()) for file in self.files)

    def rows(self, roles: Sequence[str], filled: Sequence[Sequence[str]], fields: bool = False) -> list[Rows]:
        """The rows of each file: a column of texts for each of the roles, "" for what is missing; perhaps `FIELDS`.

        Of each group of roles in ``filled`` one at least must hold more than white space.
        """
        read = partial(self._read, roles, filled, fields and self.has_others)
        return [Rows(file.path, partial(read, file)) for file in self.files]

    def _read(
        self, roles: Sequence[str], filled: Sequence[Sequence[str]], fields: bool, file: TableFile, bad: BadRows
    ) -> Tables:
        names, more = list(self.columns.values()), [FIELDS] if fields else []
        wanted = pa.schema(dict.fromkeys(names, pa.string()))
        for table, numbers in file.read(wanted, bad, fields):
            with column_types(file.path):
                texts = [text_of(table[name], name) for name in names]
            table = pa.table([*texts, *map(table.column, more)], [*names, *more])
            for group in filled:
                if own := [self.columns[role] for role in group if role in self.columns]:
                    table, numbers = without_blank(table, numbers, own, file.path, bad)
            found = [table[self.columns[role]] if role in self.columns else empty(len(table)) for role in roles]
            yield pa.table([*found, *map(table.column, more)], [*roles, *more]), numbers

    def estimated_size(self) -> int | None:
        sizes = [file.estimated_size() for file in self.files]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def fingerprint(self) -> list[str]:
        """Of each file its name and a hash of its bytes; and how it is read."""
        paths = [Path(str(file.path)) for file in self.files]
        files = [f"{path.name} {file_fingerprint(path)}" for path in paths]
        encodings = {file.encoding for file in self.files if isinstance(file, LineFile)} - {None}
        return [*files, str(dict(self.columns)), *map(str, encodings)]


def find_columns(
    files: Sequence[TableFile], chosen: Mapping[str, str | None], usual: Mapping[str, Sequence[str]],
    required: Sequence[str], without_header: Sequence[str] = (),
) -> RoleTables:  # fmt: skip
    """Find the column of each role: the one that the user chose, or the first with a usual name.

    ``required`` roles must have a column; ``without_header`` are the roles of the two columns of a file without names.
    """
    columns = {role: name for role, name in chosen.items() if name is not None}
    first, numbers = files[0], {name for name in columns.values() if name.isdecimal()}
    if isinstance(first, DelimitedFile) and len(columns) == len(numbers) > 0 and not numbers & {*first.schema.names}:
        files, usual = _numbered(files), {}
        first = files[0]
    _check_chosen(first, columns)
    free = [name for name in scalars(first.schema) if name not in columns.values()]
    for role, candidates in usual.items():
        found = first_of(candidates, free) or (first_of(candidates, first.schema.names) if role in required else None)
        if role not in columns and found is not None and found not in columns.values():
            columns[role] = found
            free = [name for name in free if name != found]
    if not columns and isinstance(first, DelimitedFile) and first.has_no_header(len(without_header)):
        roles = " and ".join(without_header)
        notice(f"{first.path}: no usual name in the first line, so its columns are taken for {roles}.")
        return RoleTables(_numbered(files), dict(zip(without_header, "12", strict=True)))
    for file in files:
        _check(file, columns, usual, required)
    return RoleTables(files, {role: columns[role] for role in chosen if role in columns})


def _numbered(files: Sequence[TableFile]) -> list[TableFile]:
    return [file.numbered() if isinstance(file, DelimitedFile) else file for file in files]


def _check_chosen(file: TableFile, columns: Mapping[str, str]) -> None:
    """Raise a ValueError unless the file has these columns, and each one role."""
    last = {name: role for role, name in columns.items()}
    for role, name in columns.items():
        if name not in file.schema.names:
            raise ValueError(f"{role}_column={name} is no column of {file.path}; {one_of(name, file.schema.names)}")
        if last[name] != role:
            raise ValueError(f"{last[name]}_column={name} has another role already: name different columns")


def _check(
    file: TableFile, columns: Mapping[str, str], usual: Mapping[str, Sequence[str]], required: Sequence[str]
) -> None:
    """Raise a UserError unless the file has the required columns, and each holds texts."""
    kinds = {field.name: field.type for field in file.schema}
    missing = [role for role in required if columns.get(role) not in kinds]
    if missing:
        known = {role: ", ".join(usual.get(role, ())[:6]) for role in required}
        what = " and ".join(f"{'an' if role == 'id' else 'a'} {role} ({names} …)" for role, names in known.items())
        there = " ".join(", ".join(kinds).split())[:200]
        keys = " and ".join(f"data.{role}_column" for role in missing)
        if isinstance(file, DelimitedFile):
            keys += f", or to the columns' numbers (data.{missing[0]}_column=1) if row 1 names none"
        raise UserError(f"{file.path}, row 1: has the fields {there}; expected {what}: set {keys}")
    for role, name in columns.items():
        if name in kinds and not is_text(kinds[name]):
            raise UserError(
                f"Column {name!r} of {file.path} holds {kinds[name]}, not text or whole numbers: write it as text, or "
                f"choose another with data.{role}_column"
            )
