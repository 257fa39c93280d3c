"""Local files of a data set whose rows are lines: JSON objects, CSV, TSV; one after another, bad rows left out.

`datasets` reads these too, but its first malformed line is an error for the whole file, and its CSV reader takes
texts such as ``NA`` for missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from two_tower.data.reading.columns import CsvFile, TsvFile
from two_tower.data.reading.formats import NestedJsonRows, TsvRows, first_objects
from two_tower.data.reading.rows import BYTE_ORDER_MARK, BadRows, Rows, open_bytes, read_rows, readable

__all__ = ["column_kinds", "is_line_file", "line_rows"]

_JSON = (".json", ".jsonl", ".ndjson")
_KINDS = (*_JSON, ".csv", ".tsv")


def is_line_file(path: Path) -> bool:
    """Whether the file is one of these, perhaps ``.gz``; a ``.json`` file that is one list of objects is not.

    Raises:
        UserError: the file cannot be read.
    """
    if _kind(path) != ".json":
        return _kind(path) in _KINDS
    with readable(path), open_bytes(path) as file:
        return not file.read(1 << 12).removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"[")


def column_kinds(path: Path) -> pa.Schema:
    """The columns of a file and what they hold: JSON fields as far as the first 1,000 lines tell, else strings.

    Raises:
        UserError: the file cannot be read, or has no columns.
    """
    if _kind(path) in _JSON:
        objects = first_objects(path)
        names = dict.fromkeys(name for row in objects for name in row)
        return pa.schema([(name, _kind_of([row.get(name) for row in objects])) for name in names])
    file = CsvFile(path) if _kind(path) == ".csv" else TsvFile(path)
    return pa.schema([(name, pa.string()) for name in file.names()])


def line_rows(path: Path, fields: pa.Schema) -> Rows:
    """The rows of a file.

    Args:
        path: the file.
        fields: the columns and what they shall hold; what a file or a row lacks is null.
    """
    return Rows(path, partial(_read, path, fields))


def _read(path: Path, fields: pa.Schema, bad: BadRows) -> Iterator[tuple[pa.Table, np.ndarray]]:
    lost = BadRows(bad.max_bad_rows)
    for table, numbers in _tables(path, fields, lost):
        missing = pa.nulls(len(table), pa.string())
        columns = [table[name] if name in table.column_names else missing for name in fields.names]
        yield pa.table(columns, fields.names), numbers
    bad.include(lost)


def _tables(path: Path, fields: pa.Schema, bad: BadRows) -> Iterator[tuple[pa.Table, np.ndarray]]:
    if _kind(path) in _JSON:
        numbers = _numbers(pa.struct(list(fields)), pa.struct(list(column_kinds(path))))
        return read_rows(path, NestedJsonRows(fields, pa.schema(list(numbers))), bad)
    if _kind(path) == ".csv":
        file = CsvFile(path)
        return file.read([name for name in fields.names if name in file.names()], (), bad)
    names = TsvFile(path).names()
    typed = [fields.field(name) if name in fields.names else pa.field(name, pa.string()) for name in names]
    return read_rows(path, TsvRows(pa.schema(typed), frozenset({names[0].lower()})), bad)


def _kind(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def _numbers(wanted: pa.DataType, found: pa.DataType) -> pa.DataType:
    """The wanted type with whole numbers for strings where the file has them."""
    if pa.types.is_struct(wanted) and pa.types.is_struct(found):
        kinds = {field.name: field.type for field in found}
        return pa.struct([(field.name, _numbers(field.type, kinds.get(field.name, field.type))) for field in wanted])
    if pa.types.is_list(wanted) and pa.types.is_list(found):
        return pa.list_(_numbers(wanted.value_type, found.value_type))
    return found if pa.types.is_string(wanted) and pa.types.is_int64(found) else wanted


def _kind_of(values: list[Any]) -> pa.DataType:
    """What most of the values are; strings where all are null."""
    kinds: tuple[Any, ...] = (str, list, dict, (int, float))
    groups = {kind: [value for value in values if isinstance(value, kind)] for kind in kinds}
    kind = max(groups, key=lambda kind: len(groups[kind]))
    if kind is str or not groups[kind]:
        return pa.string()
    if kind is list:
        return pa.list_(_kind_of([item for value in groups[list] for item in value]))
    if kind is dict:
        names = dict.fromkeys(name for value in groups[dict] for name in value)
        return pa.struct([(name, _kind_of([value.get(name) for value in groups[dict]])) for name in names])
    return pa.int64() if all(type(value) is int for value in groups[kind]) else pa.float64()
