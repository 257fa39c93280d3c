"""Files of JSON: an object on each line, one array of objects, or objects one after another over any lines."""

from __future__ import annotations

import codecs
import itertools
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from typing import Any

import pyarrow as pa

from two_tower.data.reading.content import chunks
from two_tower.data.reading.formats import JsonRows, json_object
from two_tower.data.reading.rows import Tables, first_lines, parse_each, read_rows
from two_tower.data.reading.table_file import TableFile
from two_tower.errors import BadRow, BadRows, UserError

_BATCH_ROWS = 1000
_FIRST_ROWS = 1000
_BETWEEN = re.compile(r"[\s,]*")


class JsonFile(TableFile):
    """Objects whose fields are the columns; the first 1,000 name them."""

    @cached_property
    def _has_lines(self) -> bool:
        """Whether each line is an object, as the first tells that is not empty."""
        lines = [line for line in first_lines(self.path, self.encoding) if line.strip()]
        with suppress(ValueError, RecursionError):
            if isinstance(json.loads(lines[0]), dict) or len(lines) > 1:
                return True
        return not (lines[0].lstrip().startswith(b"[") or self._begins_an_object())

    def _begins_an_object(self) -> bool:
        """Whether the text can be read as objects over several lines, at least the first."""
        with suppress(UserError):
            return isinstance(next(self._objects(), None), dict)
        return False

    @cached_property
    def schema(self) -> pa.Schema:
        return pa.schema(list(_type_of(self._first_objects)))

    @cached_property
    def _first_objects(self) -> list[dict[str, Any]]:
        found = []
        if self._has_lines:
            for line in first_lines(self.path, self.encoding):
                with suppress(BadRow):
                    found.append(json_object(line))
        else:
            found = [row for row in itertools.islice(self._objects(), _FIRST_ROWS) if isinstance(row, dict)]
        if not any(found):
            raise UserError(f"{self.path} holds no JSON object in its first lines: each row must be one, as in {{…}}")
        return found

    def estimated_size(self) -> int | None:
        return super().estimated_size() if self._has_lines else None

    def read(self, fields: pa.Schema, bad: BadRows, others: frozenset[str] | None = None) -> Tables:
        numbers = pa.schema(list(_with_numbers(pa.struct(list(fields)), pa.struct(list(self.schema)))))
        row_format = JsonRows(fields, numbers, others)
        if self._has_lines:
            return read_rows(self.path, row_format, bad, self.encoding)
        return self._read_objects(row_format, bad)

    def _read_objects(self, row_format: JsonRows, bad: BadRows) -> Tables:
        numbered, total = enumerate(self._objects(), 1), 0
        while read := list(itertools.islice(numbered, _BATCH_ROWS)):
            total += len(read)
            yield parse_each(read, row_format.values, row_format.schema, self.path, bad)
        bad.check(total)

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
                    rest, opened = rest[:at] + " " + rest[at + 1 :], False
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


def _type_of(values: list[Any]) -> pa.DataType:
    """The type of most of the values; string where all are null."""
    kinds: tuple[Any, ...] = (str, list, dict, bool, (int, float))
    groups = {
        kind: [v for v in values if isinstance(v, kind) and (kind is bool or type(v) is not bool)] for kind in kinds
    }
    kind = max(groups, key=lambda kind: len(groups[kind]))
    if kind is str or not groups[kind]:
        return pa.string()
    if kind is list:
        return pa.list_(_type_of([item for value in groups[list] for item in value]))
    if kind is dict:
        names = dict.fromkeys(name for value in groups[dict] for name in value)
        return pa.struct([(name, _type_of([value.get(name) for value in groups[dict]])) for name in names])
    if kind is bool:
        return pa.bool_()
    return pa.int64() if all(type(value) is int for value in groups[kind]) else pa.float64()
