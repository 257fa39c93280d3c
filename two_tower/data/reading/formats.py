"""How lines become rows: JSON objects with texts or with nested lists, tab-separated values.

Each format has two parsers: Arrow's for a block in which every line is a good row, and a plain one for a single
line, which says what is wrong with it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv
import pyarrow.json as pj

from two_tower.data.reading.rows import BYTE_ORDER_MARK, RowFormat, first_lines
from two_tower.errors import BadRow, UserError


def _has_lone_return(block: bytes) -> bool:
    """Whether there is a carriage return within a line, where Arrow would end it."""
    return b"\r" in block and block.count(b"\r") != block.count(b"\r\n")


def is_blank(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Which texts (N,) are empty or white space; null where the text is."""
    return pc.or_(pc.equal(pc.binary_length(column), 0), pc.utf8_is_space(column))


def _json_object(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise BadRow("invalid UTF-8", f"byte {error.start + 1}") from error
    except json.JSONDecodeError as error:
        raise BadRow("malformed JSON", f"{error.msg.removesuffix(' at')} at character {error.pos + 1}") from error
    except (ValueError, RecursionError) as error:
        raise BadRow("malformed JSON", str(error)) from error
    if not isinstance(row, dict):
        raise BadRow("malformed JSON", "not an object")
    return row


def first_objects(path: Path) -> list[dict[str, Any]]:
    """The JSON objects among the first 1,000 lines of a file; none at all is a UserError."""
    found = []
    for line in first_lines(path):
        with suppress(BadRow):
            found.append(_json_object(line))
    if not any(found):
        raise UserError(f"{path} holds no JSON object in its first lines: each line must be one, as in {{…}}")
    return found


def _json_text(value: object, name: str) -> str:
    if type(value) is int:  # ids are numbers in some collections; bool is a subclass
        value = str(value)
    if not isinstance(value, str):
        raise BadRow("field that is no text", name)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRow("invalid UTF-8", f"half a surrogate pair in {name}") from error
    return value


class NestedJsonRows(RowFormat):
    """One JSON object per line, with fields of given types; other fields are ignored, whatever they hold.

    The fields are strings, int32, lists and structs of these. An integer in place of a string becomes its decimal text;
    what is absent is null. ``numbers`` is the schema with int64 for strings that are probably all written as numbers:
    Arrow's parser does not read a number as a string, and the plain parser takes four times as long.
    """

    def __init__(self, schema: pa.Schema, numbers: pa.Schema | None = None) -> None:
        self.schema, self._numbers = schema, numbers or schema

    def parse_block(self, block: bytes, starts: np.ndarray) -> pa.Table | None:
        # Every line must begin with its object: Arrow (26.0) crashes on a first line ``null``, and takes two
        # objects on a line, or one on two, for rows.
        if _has_lone_return(block) or not (np.frombuffer(block, np.uint8)[starts] == ord("{")).all():
            return None
        options = pj.ParseOptions(explicit_schema=self._numbers, unexpected_field_behavior="ignore")
        try:
            table = pj.read_json(pa.BufferReader(block), parse_options=options)
            table.validate(full=True)  # UTF-8 is checked here only
        except pa.ArrowInvalid:
            return None
        return table.cast(self.schema) if len(table) == len(starts) else None

    def parse_line(self, line: bytes) -> Sequence[object]:
        row = _json_object(line)
        return [_fitted(row.get(field.name), field.type, field.name) for field in self.schema]


def _fitted(value: object, kind: pa.DataType, name: str) -> object:
    """The value in a form from which Arrow makes this type."""
    if value is None:
        return None
    if pa.types.is_list(kind):
        if not isinstance(value, list):
            raise BadRow("field that is no list", name)
        return [_fitted(item, kind.value_type, name) for item in value]
    if pa.types.is_struct(kind):
        if not isinstance(value, dict):
            raise BadRow("field that is no object", name)
        return {field.name: _fitted(value.get(field.name), field.type, f"{name}.{field.name}") for field in kind}
    return _number(str(value), name, kind) if pa.types.is_int32(kind) else _json_text(value, name)


class JsonRows(NestedJsonRows):
    """One JSON object per line with texts, "" where an optional one is absent; other fields are ignored.

    At least one of the fields ``some_text`` must hold more than white space.
    """

    def __init__(self, required: Sequence[str], optional: Sequence[str] = (), some_text: Sequence[str] = ()) -> None:
        super().__init__(pa.schema([(name, pa.string()) for name in (*required, *optional)]))
        self.required, self.some_text = frozenset(required), tuple(some_text)

    def parse_block(self, block: bytes, starts: np.ndarray) -> pa.Table | None:
        table = super().parse_block(block, starts)
        if table is None or any(table[name].null_count for name in self.required):
            return None
        table = pa.table([pc.fill_null(column, "") for column in table.columns], self.schema)
        blank = [is_blank(table[name]) for name in self.some_text]
        return None if blank and pc.any(reduce(pc.and_, blank)).as_py() else table

    def parse_line(self, line: bytes) -> Sequence[object]:
        row = dict(zip(self.schema.names, super().parse_line(line), strict=True))
        for name, value in row.items():
            if value is None and name in self.required:
                raise BadRow("missing field", name)
        texts = {name: "" if value is None else str(value) for name, value in row.items()}
        if self.some_text and not any(texts[name].strip() for name in self.some_text):
            raise BadRow("empty " + " and ".join(self.some_text))
        return list(texts.values())


class TsvRows(RowFormat):
    """Tab-separated values without quoting (a quote character is text); text, int32 and float32 columns.

    A first line whose first cell, in lower case, is in ``header`` names the columns. ``filled`` ones must hold text.
    """

    def __init__(self, schema: pa.Schema, header: frozenset[str] = frozenset(), filled: Sequence[str] = ()) -> None:
        self.schema, self.header, self.filled = schema, header, frozenset(filled)

    def is_header(self, line: bytes) -> bool:
        return line.split(b"\t")[0].strip().lower().decode("utf-8", "replace") in self.header

    def parse_block(self, block: bytes, starts: np.ndarray) -> pa.Table | None:
        if block.startswith(BYTE_ORDER_MARK) or _has_lone_return(block):  # Arrow leaves out a byte order mark
            return None
        types = {field.name: field.type for field in self.schema}
        try:
            table = pv.read_csv(
                pa.BufferReader(block),
                pv.ReadOptions(column_names=self.schema.names),
                pv.ParseOptions(delimiter="\t", quote_char=False, double_quote=False),
                pv.ConvertOptions(column_types=types, null_values=[], strings_can_be_null=False),
            )
        except pa.ArrowInvalid:
            return None
        blank = any(pc.any(is_blank(table[name])).as_py() for name in self.filled)
        floats = (table[field.name] for field in self.schema if field.type == pa.float32())
        odd = any(not pc.all(pc.is_finite(column)).as_py() for column in floats)
        return table if len(table) == len(starts) and not blank and not odd else None

    def parse_line(self, line: bytes) -> Sequence[object]:
        try:
            cells = line.removesuffix(b"\r").decode().split("\t")
        except UnicodeDecodeError as error:
            raise BadRow("invalid UTF-8", f"byte {error.start + 1}") from error
        if len(cells) != len(self.schema):
            raise BadRow("wrong number of columns", f"{len(cells)} instead of {len(self.schema)}")
        for cell, name in zip(cells, self.schema.names, strict=True):
            if name in self.filled and not cell.strip():
                raise BadRow(f"empty {name}")
        return [
            cell if pa.types.is_string(field.type) else _number(cell, field.name, field.type)
            for cell, field in zip(cells, self.schema, strict=True)
        ]


def _number(cell: str, name: str, kind: pa.DataType) -> float:
    whole = pa.types.is_int32(kind)
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not (value.is_integer() and -(2**31) <= value < 2**31 if whole else math.isfinite(value)):
        raise BadRow(f"value that is no {'whole ' if whole else ''}number", f"{name} {cell!r}")
    return int(value) if whole else value
