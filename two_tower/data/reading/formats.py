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
import pyarrow.csv as pv
import pyarrow.json as pj

from two_tower.data.base import FIELDS
from two_tower.data.reading.arrow import scalars
from two_tower.data.reading.rows import RowFormat
from two_tower.errors import BadRow


def json_value(line: str) -> object:
    """What a line of JSON holds; a BadRow says why that is nothing."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise BadRow("malformed JSON", f"{error.msg.removesuffix(' at')} at character {error.pos + 1}") from error
    except (ValueError, RecursionError) as error:
        raise BadRow("malformed JSON", str(error)) from error


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


class JsonRows(RowFormat):
    """One JSON object per line, with fields of given types; other fields are ignored, whatever they hold.

    The fields are strings, int32, lists and structs of these. An integer in place of a string becomes its decimal text;
    what is absent is null. ``numbers`` is the schema with int64 for strings that are probably all written as numbers:
    Arrow's parser does not read a number as a string, and the plain parser takes four times as long. With ``others``,
    a column `FIELDS` holds all other fields that are scalars (`json_of_scalars`).
    """

    def __init__(self, fields: pa.Schema, numbers: pa.Schema | None = None, others: bool = False) -> None:
        self._fields, self._numbers, self._others = fields, numbers or fields, others
        self.schema = fields.append(pa.field(FIELDS, pa.string())) if others else fields

    def parse_block(self, block: bytes, starts: np.ndarray) -> pa.Table | None:
        # Every line must begin with its object: Arrow (26.0) crashes on a first line ``null``, and takes two
        # objects on a line, or one on two, for rows.
        objects = (np.frombuffer(block, np.uint8)[starts] == ord("{")).all()
        if not objects or self._others:  # it would have to guess types, and makes dates of some texts
            return None
        options = pj.ParseOptions(explicit_schema=self._numbers, unexpected_field_behavior="ignore")
        try:
            table = pj.read_json(pa.BufferReader(block), parse_options=options)
            table.validate(full=True)  # UTF-8 is checked here only
        except pa.ArrowInvalid:
            return None
        return table.cast(self.schema) if len(table) == len(starts) else None

    def parse_text(self, line: str) -> Sequence[object]:
        return self.values(json_value(line))

    def values(self, row: object) -> Sequence[object]:
        """The values of what was parsed."""
        if not isinstance(row, dict):
            raise BadRow("malformed JSON", "not an object")
        found = [_fitted(row.get(field.name), field.type, field.name) for field in self._fields]
        if not self._others:
            return found
        return [*found, json_of_scalars({name: row[name] for name in row if name not in self._fields.names})]


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
    return _whole(value, name) if pa.types.is_int32(kind) else _json_text(value, name)


def _whole(value: object, name: str) -> int:
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not number.is_integer() or not -(2**31) <= number < 2**31:
        raise BadRow("value that is no whole number", f"{name} {str(value)!r}")
    return int(number)


class DelimitedRows(RowFormat):
    """Columns of texts between delimiters without quoting: a quote is text."""

    def __init__(self, names: Sequence[str], delimiter: str = "\t") -> None:
        self.schema, self.delimiter = pa.schema(dict.fromkeys(names, pa.string())), delimiter

    def parse_block(self, block: bytes, starts: np.ndarray) -> pa.Table | None:
        if block.startswith(b"\xef\xbb\xbf"):  # Arrow leaves out a byte order mark
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
        return table if len(table) == len(starts) else None

    def parse_text(self, line: str) -> Sequence[object]:
        return self.values(line.removesuffix("\r").split(self.delimiter))

    def values(self, cells: Sequence[str]) -> Sequence[str]:
        """The cells of a row, if it has as many as there are columns."""
        if len(cells) != len(self.schema):
            raise BadRow("wrong number of columns", f"{len(cells)} instead of {len(self.schema)}")
        return cells
