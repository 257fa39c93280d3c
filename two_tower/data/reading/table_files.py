"""Tables in files that anybody may have written: their format by content, their columns by usual names or by keys."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
from two_tower.data.reading.arrow import blank, column_types, empty, is_text, kept, text_of, without_invalid
from two_tower.data.reading.content import bare_name, chunks, kind_of, readable
from two_tower.data.reading.delimited import DelimitedFile
from two_tower.data.reading.formats import json_of_scalars
from two_tower.data.reading.json_files import JsonFile
from two_tower.data.reading.names import first_of
from two_tower.data.reading.rows import Rows, Tables
from two_tower.data.reading.table_file import TableFile
from two_tower.errors import BadRows, UserError, one_of
from two_tower.files import refuse_stand_in

KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_DESCRIPTIONS = ("dataset_infos.json", "dataset_dict.json", "state.json")  # of data sets, by `datasets`
_BATCH_ROWS = 10_000


class ParquetFile(TableFile):
    """A Parquet file; its columns keep their own types."""

    @cached_property
    def schema(self) -> pa.Schema:
        with readable(self.path):
            return pq.read_schema(self.path).remove_metadata()

    def estimated_size(self) -> int:
        with readable(self.path):
            return int(pq.read_metadata(self.path).num_rows)

    def read(self, fields: pa.Schema, bad: BadRows, others: frozenset[str] | None = None) -> Tables:
        more = (
            []
            if others is None
            else [f.name for f in self.schema if f.name not in others and not pa.types.is_nested(f.type)]
        )
        total, there = 0, [name for name in fields.names if name in self.schema.names]
        with readable(self.path), pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=[*there, *more]):
                numbers = np.arange(total + 1, total + len(batch) + 1)
                total += len(batch)
                table, numbers = without_invalid(pa.Table.from_batches([batch]), numbers, self.path, bad)
                found = table.select(there)
                for name in set(fields.names) - set(there):
                    found = found.append_column(name, pa.nulls(len(table), pa.string()))
                found = found.select(fields.names)
                if others is not None:
                    texts = pa.array(map(json_of_scalars, table.select(more).to_pylist()), pa.string())
                    found = found.append_column(FIELDS, texts)
                yield found, numbers
        bad.check(total)


def scalars(schema: pa.Schema) -> list[str]:
    """The columns that hold neither lists nor objects."""
    return [field.name for field in schema if not pa.types.is_nested(field.type)]


def open_table(path: Path, encoding: str | None = None) -> TableFile:
    """A file of rows: its first bytes say whether it holds Parquet, JSON or delimited text."""
    if not path.is_file():
        raise UserError(f"{path} is no file: data.path must be one of CSV, TSV, JSON or Parquet, or a folder of these")
    with readable(path), path.open("rb") as file:
        start = file.read(1000)
    if start.startswith(b"PAR1") or kind_of(path) == ".parquet":
        refuse_stand_in(path, start)
        return ParquetFile(path)
    text = next((text for chunk in chunks(path, encoding) if (text := chunk.lstrip())), b"")
    if not text:
        raise UserError(f"{path} is empty: it must hold rows of text")
    if re.search(rb"^\s*[{\[]", text[:1_000_000], re.MULTILINE):
        objects = JsonFile(path, encoding)
        with suppress(UserError):
            if "json" in kind_of(path) or objects.schema:
                return objects
    return DelimitedFile(path, encoding)


def data_files(folder: Path) -> list[Path]:
    """The files of known kinds in a folder and its folders, in the order of their names; hidden ones are not."""
    found = (path for path in sorted(folder.rglob("*")) if kind_of(path) in KINDS and path.name not in _DESCRIPTIONS)
    return [p for p in found if p.is_file() and not any(n[0] in "._" for n in p.relative_to(folder).parts)]


def open_tables(path: Path, encoding: str | None = None) -> list[TableFile]:
    """A file, or the `data_files` of a folder."""
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
        groups = [[role for role in group if role in self.columns] for group in filled]
        read = partial(self._read, roles, [group for group in groups if group], fields and self.has_others)
        return [Rows(file.path, partial(read, file)) for file in self.files]

    def _read(
        self, roles: Sequence[str], filled: Sequence[Sequence[str]], fields: bool, file: TableFile, bad: BadRows
    ) -> Tables:
        wanted = pa.schema([(name, pa.string()) for name in self.columns.values()])
        for table, numbers in file.read(wanted, bad, frozenset(self.columns.values()) if fields else None):
            with column_types(file.path):
                texts = {name: text_of(table[name], name) for name in wanted.names}
            more = {FIELDS: table[FIELDS]} if fields else {}
            table = pa.table([*texts.values(), *more.values()], [*texts, *more])
            for group in filled:
                names = [self.columns[role] for role in group]
                wrong = np.logical_and.reduce([blank(table[name]) for name in names])
                bad.add_where(wrong, f"empty {' and '.join(names)}", file.path, numbers)
                table, numbers = kept(table, numbers, ~wrong)
            nothing = empty(len(table))
            found = [table[self.columns[role]] if role in self.columns else nothing for role in roles]
            yield pa.table([*found, *(table[name] for name in more)], [*roles, *more]), numbers

    def estimated_size(self) -> int | None:
        sizes = [file.estimated_size() for file in self.files]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def fingerprint(self) -> list[str]:
        """Of each file its name and a hash of its bytes; and how it is read."""
        files = [f"{file.path.name} {file_fingerprint(file.path)}" for file in self.files]
        encodings = {file.encoding for file in self.files} - {None}
        return [*files, str(dict(self.columns)), *map(str, encodings)]


def find_columns(
    files: Sequence[TableFile], chosen: Mapping[str, str | None], usual: Mapping[str, Sequence[str]],
    required: Sequence[str], without_header: Sequence[str] = (),
) -> RoleTables:  # fmt: skip
    """Find the column of each role: the one that the user chose, or the first with a usual name.

    ``required`` roles must have a column; ``without_header`` are the roles of the two columns of a file without names.
    """
    first = files[0]
    wanted = [name for name in chosen.values() if name is not None]
    by_number = isinstance(first, DelimitedFile) and wanted and all(name.isdecimal() for name in wanted)
    if by_number and not set(wanted) & set(first.schema.names):
        files, usual = [_numbered(file) for file in files], {}
        first = files[0]
    columns = _chosen(first, chosen)
    free = [name for name in scalars(first.schema) if name not in columns.values()]
    for role, candidates in usual.items():
        found = first_of(candidates, free) or (first_of(candidates, first.schema.names) if role in required else None)
        if role not in columns and found is not None and found not in columns.values():
            columns[role] = found
            free = [name for name in free if name != found]
    if (
        not columns
        and isinstance(first, DelimitedFile)
        and first.has_no_header()
        and len(first.first_rows[0]) == len(without_header)
    ):
        notice(
            f"{first.path}: no usual name in the first line, so its columns are taken for "
            f"{' and '.join(without_header)}."
        )
        return RoleTables([_numbered(file) for file in files], dict(zip(without_header, "12", strict=True)))
    for file in files:
        _check(file, columns, usual, required)
    return RoleTables(files, {role: columns[role] for role in chosen if role in columns})


def _numbered(file: TableFile) -> TableFile:
    numbered = DelimitedFile(file.path, file.encoding)
    numbered.numbered = True
    return numbered


def _chosen(file: TableFile, chosen: Mapping[str, str | None]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for role, name in chosen.items():
        if name is None:
            continue
        if name not in file.schema.names:
            raise ValueError(f"{role}_column={name} is no column of {file.path}; {one_of(name, file.schema.names)}")
        if name in columns.values():
            raise ValueError(f"{role}_column={name} has another role already: name different columns")
        columns[role] = name
    return columns


def _check(
    file: TableFile, columns: Mapping[str, str], usual: Mapping[str, Sequence[str]], required: Sequence[str]
) -> None:
    """Raise a UserError unless the file has the required columns, and each holds texts."""
    kinds = {field.name: field.type for field in file.schema}
    missing = [role for role in required if columns.get(role) not in kinds]
    if missing:
        what = " and ".join(f"{_article(role)} {role} ({', '.join(usual.get(role, ())[:6])} …)" for role in required)
        keys = " and ".join(f"data.{role}_column" for role in missing)
        there = " ".join(", ".join(kinds).split())[:200]
        hint = f", or to the columns' numbers (data.{missing[0]}_column=1) if row 1 names none"
        raise UserError(
            f"{file.path}, row 1: has the fields {there}; expected {what}: set {keys}"
            + (hint if isinstance(file, DelimitedFile) else "")
        )
    for role, name in columns.items():
        if name in kinds and not is_text(kinds[name]):
            raise UserError(
                f"Column {name!r} of {file.path} holds {kinds[name]}, not text or whole numbers: write it as text, or "
                f"choose another with data.{role}_column"
            )


def _article(role: str) -> str:
    return "an" if role[0] in "aeiou" else "a"
