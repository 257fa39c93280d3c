"""Files of JSON: an object on each line, one array of objects, or objects one after another over any lines."""

from __future__ import annotations

import codecs
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import pyarrow as pa

from two_tower.data.reading.content import chunks
from two_tower.data.reading.formats import JsonRows, json_value
from two_tower.data.reading.rows import LineFile, Tables, parse_blocks, parse_each
from two_tower.errors import BadRow, BadRows, UserError

_FIRST_ROWS = 1000
_BETWEEN = re.compile(r"[\s,]*")


class JsonFile(LineFile):
    """Objects whose fields are the columns; the first 1,000 name them."""

    def _lines(self) -> list[str]:
        lines = self.start().decode("utf-8", "surrogateescape").split("\n", _FIRST_ROWS)
        return [line for line in lines[:_FIRST_ROWS] if line.strip()]

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
        if self._has_lines:
            return parse_blocks(self.blocks(), rows, self.path, bad)
        return parse_each(enumerate(self._objects(), 1), rows.values, rows.schema, self.path, bad)

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
