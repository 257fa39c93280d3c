"""Arrow columns whose types a file decided."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from two_tower.data.base import FIELDS
from two_tower.errors import BadRows, UserError

Column: TypeAlias = pa.Array | pa.ChunkedArray

_NUMBER = r"^[-+]?(\d+([.,]\d*)?|\.\d+)([eE][-+]?\d+)?$"


def blank(column: Column) -> np.ndarray:
    """Which texts (N,) are null, empty or white space, (N,) bool."""
    found = pc.or_(pc.equal(pc.binary_length(column), 0), pc.utf8_is_space(column))
    return pc.fill_null(found, True).to_numpy(zero_copy_only=False)


def empty(count: int) -> pa.Array:
    """``count`` empty texts."""
    return pa.repeat(pa.scalar("", pa.string()), count)


def kept(table: pa.Table, rows: np.ndarray, good: np.ndarray) -> tuple[pa.Table, np.ndarray]:
    """The rows where ``good`` (N,) bool is true, and their numbers."""
    return (table, rows) if good.all() else (table.filter(pa.array(good)), rows[good])


def leave_out(
    table: pa.Table, rows: np.ndarray, wrong: np.ndarray, kind: str, place: object, bad: BadRows,
    details: Column | None = None,
) -> tuple[pa.Table, np.ndarray]:  # fmt: skip
    """The rows (N,) where ``wrong`` (N,) bool is false; the others are bad."""
    bad.add_where(wrong, kind, place, rows, details)
    return kept(table, rows, ~wrong)


def _valid_rows(table: pa.Table) -> np.ndarray:
    """Which rows hold nothing but valid UTF-8, (N,) bool."""
    with suppress(pa.ArrowInvalid):
        table.validate(full=True)
        return np.ones(len(table), bool)
    if (half := len(table) // 2) == 0:
        return np.zeros(1, bool)
    return np.concatenate([_valid_rows(table.slice(0, half)), _valid_rows(table.slice(half))])


def without_invalid(table: pa.Table, rows: np.ndarray, place: object, bad: BadRows) -> tuple[pa.Table, np.ndarray]:
    """The rows (N,) that are valid UTF-8; the others are bad."""
    return leave_out(table, rows, ~_valid_rows(table), "invalid UTF-8", place, bad)


def without_blank(
    table: pa.Table, rows: np.ndarray, columns: Sequence[str], place: object, bad: BadRows
) -> tuple[pa.Table, np.ndarray]:
    """The rows (N,) in which one of the columns of texts at least holds more than white space; the others are bad."""
    wrong = np.logical_and.reduce([blank(table[name]) for name in columns])
    return leave_out(table, rows, wrong, f"empty {' and '.join(columns)}", place, bad)


def with_numbers(
    table: pa.Table, rows: np.ndarray, columns: Sequence[str], place: object, bad: BadRows
) -> tuple[pa.Table, np.ndarray]:
    """The rows (N,) in which the columns of texts hold numbers, and these as float64; the others are bad."""
    for name in columns:
        wrong = ~pc.match_substring_regex(table[name], _NUMBER).to_numpy()
        table, rows = leave_out(table, rows, wrong, "value that is no number", place, bad, table[name])
        numbers = pc.cast(pc.replace_substring(table[name], ",", "."), pa.float64())
        table = table.set_column(table.column_names.index(name), name, numbers)
    return table, rows


def is_text(kind: pa.DataType) -> bool:
    """Whether values are texts, or whole numbers, which have one way to be written; fractions and dates have many."""
    if pt.is_dictionary(kind):
        return is_text(kind.value_type)
    texts = (pt.is_string, pt.is_large_string, pt.is_string_view, pt.is_binary, pt.is_large_binary)
    return pt.is_integer(kind) or pt.is_null(kind) or any(test(kind) for test in texts)


def as_text(column: Column, name: str = "") -> pa.Array:
    """Texts and ids (N,) as strings, whole numbers in decimal digits; an error of Arrow names another column."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if not is_text(column.type):
        raise pa.ArrowTypeError(f"column {name} holds {column.type}, neither text nor whole numbers")
    return column.cast(pa.string())


def text_of(column: Column, name: str = "") -> pa.Array:
    """`as_text`, with "" for null."""
    return pc.fill_null(as_text(column, name), "")


@contextmanager
def column_types(label: object) -> Iterator[None]:
    """Around work with columns whose types come from a file: an unexpected type becomes a UserError."""
    try:
        yield
    except pa.ArrowException as error:
        cause = str(error).split("\n")[0]
        raise UserError(f"{label} has a column that does not hold what its name says ({cause})") from error


def scalars(schema: pa.Schema) -> list[str]:
    """The columns that hold neither lists nor objects."""
    return [field.name for field in schema if not pt.is_nested(field.type)]


def json_of_scalars(row: Mapping[str, Any]) -> str:
    """The texts, numbers and booleans of a row as a JSON object; "" where there are none. Dates become texts."""
    kept = {
        name: value if isinstance(value, (str, int, float)) else str(value)
        for name, value in row.items()
        if not (value is None or isinstance(value, (list, dict, bytes)))
        and not (isinstance(value, float) and not math.isfinite(value))
    }
    return json.dumps(kept, ensure_ascii=False).encode("utf-8", "replace").decode() if kept else ""


def choose(table: pa.Table, fields: pa.Schema, others: bool, nothing: str | None = None) -> pa.Table:
    """The columns ``fields``, null where there is none, and perhaps `FIELDS`; see `TableFile.read`.

    ``nothing`` is what a cell holds that is empty.
    """
    missing = pa.nulls(len(table), pa.string())
    chosen = [table[name] if name in table.column_names else missing for name in fields.names]
    if not others:
        return pa.table(chosen, fields.names)
    more = table.select([name for name in scalars(table.schema) if name not in fields.names]).to_pylist()
    texts = [json_of_scalars({name: value for name, value in row.items() if value != nothing}) for row in more]
    return pa.table([*chosen, pa.array(texts, pa.string())], [*fields.names, FIELDS])


def is_list(kind: pa.DataType) -> bool:
    """Whether it is a type of lists of any length."""
    return pt.is_list(kind) or pt.is_large_list(kind)


def list_lengths(lists: pa.Array) -> np.ndarray:
    """How long each list is, (N,) int64; 0 for null."""
    return pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)


def flat_lists(column: pa.ChunkedArray, fields: Iterable[str]) -> list[tuple[np.ndarray, pa.Array]]:
    """Of each field of (N,) structs of lists, or lists of structs, the lengths of the lists and all their elements.

    Data sets have both forms for the same. The lengths are (N,) int64, 0 for null.
    """
    array = column.combine_chunks()
    lists = [pc.struct_field(array if pt.is_struct(array.type) else pc.list_flatten(array), f) for f in fields]
    if pt.is_struct(array.type):
        return [(list_lengths(values), pc.list_flatten(values)) for values in lists]
    return [(list_lengths(array), values) for values in lists]


def list_fields(kind: pa.DataType) -> list[str]:
    """The names of the fields in structs of lists, or lists of structs; none for other types."""
    inner = kind.value_type if is_list(kind) else kind
    return [field.name for field in inner] if pt.is_struct(inner) else []


def list_type(like: pa.DataType, fields: Mapping[str, pa.DataType]) -> pa.DataType:
    """A struct of lists where ``like`` is one, else a list of structs, with these fields."""
    if pt.is_struct(like):
        return pa.struct([(name, pa.list_(kind)) for name, kind in fields.items()])
    return pa.list_(pa.struct(list(fields.items())))
