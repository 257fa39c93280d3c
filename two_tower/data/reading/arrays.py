"""Texts, lists and structs out of Arrow columns whose types a file decided."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.data.reading.repair import repair_encoding
from two_tower.errors import UserError

__all__ = ["column_types", "flat_lists", "is_list", "list_fields", "list_lengths", "list_type", "text_of", "valid_rows"]


def text_of(column: pa.Array | pa.ChunkedArray, repair: bool = False) -> pa.Array:
    """Texts and ids as strings, whole numbers in decimal digits; empty where there is none.

    Args:
        column: (N,) texts or numbers.
        repair: whether to repair UTF-8 that was encoded twice.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    text = pc.fill_null(column.cast(pa.string()), "")
    return repair_encoding(text) if repair else text


def flat_lists(column: pa.ChunkedArray, fields: Iterable[str]) -> list[tuple[np.ndarray, pa.Array]]:
    """The lists in a column, one after another.

    Args:
        column: (N,) structs of lists, or lists of structs: data sets have both for the same.
        fields: fields of the structs.

    Returns:
        For each field how long the list of each row is, (N,) int64 (0 where it is null), and all its elements.
    """
    array = column.combine_chunks()
    lists = [pc.struct_field(array if pa.types.is_struct(array.type) else pc.list_flatten(array), f) for f in fields]
    if pa.types.is_struct(array.type):
        return [(list_lengths(values), pc.list_flatten(values)) for values in lists]
    return [(list_lengths(array), values) for values in lists]


def is_list(kind: pa.DataType) -> bool:
    """Whether it is one of the types of lists of any length."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def list_fields(kind: pa.DataType) -> list[str]:
    """The names of the fields in structs of lists, or lists of structs; none for other types."""
    inner = kind.value_type if is_list(kind) else kind
    return [field.name for field in inner] if pa.types.is_struct(inner) else []


def list_type(like: pa.DataType, fields: Mapping[str, pa.DataType]) -> pa.DataType:
    """A struct of lists where ``like`` is one, else a list of structs, with these fields."""
    if pa.types.is_struct(like):
        return pa.struct([(name, pa.list_(kind)) for name, kind in fields.items()])
    return pa.list_(pa.struct(list(fields.items())))


def list_lengths(lists: pa.Array) -> np.ndarray:
    """How long each list is, (N,) int64; 0 for nulls."""
    return pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)


def valid_rows(table: pa.Table) -> np.ndarray:
    """Which rows hold nothing but UTF-8, (N,) bool."""
    try:
        table.validate(full=True)
    except pa.ArrowInvalid:
        if len(table) == 1:
            return np.zeros(1, bool)
        half = len(table) // 2
        return np.concatenate([valid_rows(table.slice(0, half)), valid_rows(table.slice(half))])
    return np.ones(len(table), bool)


@contextmanager
def column_types(label: str) -> Iterator[None]:
    """Around work with columns whose types come from a file.

    Raises:
        UserError: a column cannot be what it should.
    """
    try:
        yield
    except pa.ArrowException as error:
        cause = str(error).split("\n")[0]
        raise UserError(f"{label} has a column that does not hold what its name says ({cause})") from error
