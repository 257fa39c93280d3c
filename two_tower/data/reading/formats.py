"""How lines become rows: JSON objects, values between tabs or other delimiters.

Each format has two parsers: Arrow's for a block in which every line is a good row, and a plain one for a single
line, which says what is wrong with it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv
import pyarrow.json as pj

from two_tower.data.base import FIELDS
from two_tower.data.reading.arrow import is_blank
from two_tower.data.reading.rows import RowFormat
from two_tower.errors import BadRow


def _has_lone_return(block: bytes) -> bool:
    """Whether there is a carriage return within a line, where Arrow would end it."""
    return b"\r" in block and block.count(b"\r") != block.count(b"\r\n")


def json_object(line: bytes) -> dict[str, Any]:
    """The object on a line; a BadRow says why there is none."""
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


def _json_text(value: object, name: str) -> str:
    if type(value) is int:  # ids are numbers in some collections; bool is a subclass
        value = str(value)
    if not isinstance(value, str):
        shown = "" if isinstance(value, (list, dict)) else f" {json.dumps(value)}"
        raise BadRow("field that is no text", f"{name}{shown}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRow("invalid UTF-8", f"half a surrogate pair in {name}") from error
    return value


def json_of_scalars(row: Mapping[str, Any]) -> str:
    """The texts, numbers and booleans of a row as a JSON object; "" where there are none. Dates become texts."""
    kept = {
        name: value if isinstance(value, (str, int, float)) else str(value)
        for name, value in row.items()
        if not (
            value is None or isinstance(value, (list, dict, bytes)) or value != value or value in (math.inf, -math.inf)
        )
    }
    return json.dumps(kept, ensure_ascii=False).encode("utf-8", "replace").decode() if kept else ""


class JsonRows(RowFormat):
    """One JSON object per line, with fields of given types; other fields are ignored, whatever they hold.

    The fields are strings, int32, lists and structs of these. An integer in place of a string becomes its decimal text;
    what is absent is null. ``numbers`` is the schema with int64 for strings that are probably all written as numbers:
    Arrow's parser does not read a number as a string, and the plain parser takes four times as long. With ``others``,
    the fields that are to be left out of it, a column `FIELDS` holds all others that are scalars (`json_of_scalars`).
    """

    def __init__(
        self, fields: pa.Schema, numbers: pa.Schema | None = None, others: frozenset[str] | None = None
    ) -> None:
        self._fields, self._numbers, self._others = fields, numbers or fields, others
        self.schema = fields if others is None else fields.append(pa.field(FIELDS, pa.string()))

    def parse_block(self, block: bytes, starts: np.ndarray) -> pa.Table | None:
        # Every line must begin with its object: Arrow (26.0) crashes on a first line ``null``, and takes two
        # objects on a line, or one on two, for rows.
        if _has_lone_return(block) or not (np.frombuffer(block, np.uint8)[starts] == ord("{")).all():
            return None
        if self._others is not None:  # Arrow would have to guess types, and makes dates of some texts
            return None
        options = pj.ParseOptions(explicit_schema=self._numbers, unexpected_field_behavior="ignore")
        try:
            table = pj.read_json(pa.BufferReader(block), parse_options=options)
            table.validate(full=True)  # UTF-8 is checked here only
        except pa.ArrowInvalid:
            return None
        return table.cast(self.schema) if len(table) == len(starts) else None

    def parse_line(self, line: bytes) -> Sequence[object]:
        return self.values(json_object(line))

    def values(self, row: object) -> Sequence[object]:
        """The values of what was parsed."""
        if not isinstance(row, dict):
            raise BadRow("malformed JSON", "not an object")
        found = [_fitted(row.get(field.name), field.type, field.name) for field in self._fields]
        if self._others is None:
            return found
        return [*found, json_of_scalars({name: row[name] for name in row if name not in self._others})]


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
    return number(str(value), name, kind) if pa.types.is_int32(kind) else _json_text(value, name)


class DelimitedRows(RowFormat):
    """Values between delimiters without quoting (a quote is text); text, int32 and float32 columns.

    ``filled`` columns must hold text.
    """

    def __init__(self, schema: pa.Schema, filled: Sequence[str] = (), delimiter: str = "\t") -> None:
        self.schema, self.filled, self.delimiter = schema, frozenset(filled), delimiter

    def parse_block(self, block: bytes, starts: np.ndarray) -> pa.Table | None:
        if block.startswith(b"\xef\xbb\xbf") or _has_lone_return(block):  # Arrow leaves out a byte order mark
            return None
        types = {field.name: field.type for field in self.schema}
        try:
            table = pv.read_csv(
                pa.BufferReader(block),
                pv.ReadOptions(column_names=self.schema.names),
                pv.ParseOptions(delimiter=self.delimiter, quote_char=False, double_quote=False),
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
            cells = line.removesuffix(b"\r").decode().split(self.delimiter)
        except UnicodeDecodeError as error:
            raise BadRow("invalid UTF-8", f"byte {error.start + 1}") from error
        if len(cells) != len(self.schema):
            raise BadRow("wrong number of columns", f"{len(cells)} instead of {len(self.schema)}")
        for cell, name in zip(cells, self.schema.names, strict=True):
            if name in self.filled and not cell.strip():
                raise BadRow(f"empty {name}")
        return [
            cell if pa.types.is_string(field.type) else number(cell, field.name, field.type)
            for cell, field in zip(cells, self.schema, strict=True)
        ]


def number(cell: str, name: str, kind: pa.DataType) -> float:
    """The number that a cell holds, whole for int32; a BadRow where it holds none."""
    whole = pa.types.is_int32(kind)
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not (value.is_integer() and -(2**31) <= value < 2**31 if whole else math.isfinite(value)):
        raise BadRow(f"value that is no {'whole ' if whole else ''}number", f"{name} {cell!r}")
    return int(value) if whole else value
