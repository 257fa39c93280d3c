"""Files of JSON: an object on each line, one array of objects, or objects one after another over any lines."""

from __future__ import annotations

import codecs
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.json as pj

from two_tower.data.base import FIELDS
from two_tower.data.reading.arrow import json_of_scalars
from two_tower.data.reading.content import chunks
from two_tower.data.reading.rows import LineFile, Tables, parse_each, parse_lines
from two_tower.errors import BadRow, BadRows, UserError

_FIRST_ROWS = 1000
_BETWEEN = re.compile(r"[\s,]*")


class JsonFile(LineFile):
    """Objects whose fields are the columns; the first 1,000 name them."""

    def _lines(self) -> list[str]:
        lines = self.start().split(b"\n", _FIRST_ROWS)[:_FIRST_ROWS]
        return [line.decode("utf-8", "surrogateescape") for line in lines if line.strip()]

    @cached_property
    def _has_lines(self) -> bool:
        """Whether each line is an object, as the first tells that is not empty."""
        first, *others = self._lines()
        with suppress(BadRow):
            if isinstance(json_value(first), dict) or others:
                return True
        with suppress(UserError):  # objects over several lines, at least the first
            return not (first.lstrip().startswith("[") or isinstance(next(self._objects(), None), dict))
        return True

    @cached_property
    def schema(self) -> pa.Schema:
        found = [value for value in self._first_values() if isinstance(value, dict)]
        if not any(found):
            raise UserError(f"{self.path} holds no JSON object in its first lines: each row must be one, as in {{…}}")
        return pa.schema(list(_type_of(found)))

    def _first_values(self) -> Iterator[object]:
        if not self._has_lines:
            yield from itertools.islice(self._objects(), _FIRST_ROWS)
            return
        for line in self._lines():
            with suppress(BadRow):
                yield json_value(line)

    def estimated_size(self) -> int | None:
        return super().estimated_size() if self._has_lines else None

    def read(self, fields: pa.Schema, bad: BadRows, others: bool = False) -> Tables:
        numbers = pa.schema(list(_with_numbers(pa.struct(list(fields)), pa.struct(list(self.schema)))))
        rows = JsonRows(fields, numbers, others)
        if not self._has_lines:
            yield from parse_each(enumerate(self._objects(), 1), rows.values, rows.schema, self.path, bad)
            return
        for first, block in self.blocks():
            yield from parse_lines(block, first, rows.at_once, rows.parse, rows.schema, self.path, bad)

    def _objects(self) -> Iterator[object]:
        """The values of the array, or those that follow each other."""
        decode, rest, count = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode, "", 0
        parse, opened, error = json.JSONDecoder().raw_decode, None, None
        for chunk in chunks(self.path, self.encoding):
            rest, at = rest + decode(chunk), 0
            if opened is None:
                opened = rest.lstrip().startswith("[")
                at = rest.index("[") + 1 if opened else 0
            while (at := _BETWEEN.match(rest, at).end()) < len(rest):  # type: ignore[union-attr]
                if opened and rest[at] == "]":
                    at, opened = at + 1, False
                    continue
                try:
                    value, at = parse(rest, at)
                except (json.JSONDecodeError, RecursionError) as cause:
                    error = cause
                    break
                count, error = count + 1, None
                yield value
            rest = rest[at:]
            if error and not _may_go_on(error, at, rest):
                break
        if rest.strip() or opened:
            what = getattr(error, "msg", "the array has no end").removesuffix(" at")
            raise UserError(
                f"{self.path}, row {count + 1}: malformed JSON ({what}), after which no row can be told from another: "
                "correct the file"
            )


def _may_go_on(error: Exception, at: int, rest: str) -> bool:
    """Whether what could not be parsed may be whole once more of the file is there."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.msg.startswith("Unterminated string") or error.pos - at > len(rest) - 20


def _with_numbers(wanted: pa.DataType, found: pa.DataType) -> pa.DataType:
    """The wanted type with int64 for strings where the file has whole numbers."""
    if pa.types.is_struct(wanted) and pa.types.is_struct(found):
        types = {field.name: field.type for field in found}
        return pa.struct([(f.name, _with_numbers(f.type, types.get(f.name, f.type))) for f in wanted])
    if pa.types.is_list(wanted) and pa.types.is_list(found):
        return pa.list_(_with_numbers(wanted.value_type, found.value_type))
    return found if pa.types.is_string(wanted) and pa.types.is_int64(found) else wanted


def _type_of(values: Sequence[Any]) -> pa.DataType:
    """The type of most of the values; string where all are null."""
    kinds = Counter(float if type(value) is int else type(value) for value in values)
    kind = max((str, list, dict, bool, float), key=kinds.__getitem__)
    most: list[Any] = [value for value in values if type(value) is kind]
    if kind is list:
        return pa.list_(_type_of([*itertools.chain.from_iterable(most)]))
    if kind is dict:
        names = dict.fromkeys(itertools.chain.from_iterable(most))
        return pa.struct([(name, _type_of([value.get(name) for value in most])) for name in names])
    if kind is float and not most:
        return pa.int64()
    return {str: pa.string(), bool: pa.bool_(), float: pa.float64()}[kind]


class JsonRows:
    """One JSON object per line, with fields of given types; other fields are ignored, whatever they hold.

    The fields are strings, int32, lists and structs of these. An integer in place of a string becomes its decimal text;
    what is absent is null. ``numbers`` is the schema with int64 for strings that are probably all written as numbers:
    Arrow's parser does not read a number as a string, and the plain parser takes four times as long. With ``others``,
    a column `FIELDS` holds all other fields that are scalars (`json_of_scalars`).
    """

    def __init__(self, fields: pa.Schema, numbers: pa.Schema | None = None, others: bool = False) -> None:
        self._fields, self._numbers, self._others = fields, numbers or fields, others
        self.schema = fields.append(pa.field(FIELDS, pa.string())) if others else fields

    def at_once(self, block: bytes, lines: int) -> pa.Table | None:
        """All rows of a block of whole lines; see `parse_lines`."""
        # Every line must begin with its object: Arrow (26.0) crashes on a first line ``null``, and takes two
        # objects on a line, or one on two, for rows.
        objects = block.startswith(b"{") + block.count(b"\n{")
        if objects != lines or self._others:  # it would have to guess types, and makes dates of some texts
            return None
        options = pj.ParseOptions(explicit_schema=self._numbers, unexpected_field_behavior="ignore")
        table = pj.read_json(pa.BufferReader(block), parse_options=options)
        table.validate(full=True)  # UTF-8 is checked here only
        return table.cast(self.schema)

    def parse(self, line: bytes) -> Sequence[object]:
        """The values of one row; a BadRow says why it cannot be used."""
        try:
            return self.values(json_value(line.decode()))
        except UnicodeDecodeError as error:
            raise BadRow("invalid UTF-8", f"byte {error.start + 1}") from error

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
