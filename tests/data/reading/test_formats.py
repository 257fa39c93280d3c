"""Formats of lines: the parser of blocks gives what the parser of a line gives, or leaves the block to it."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from two_tower.data.reading.formats import JsonRows, NestedJsonRows, TsvRows, first_objects
from two_tower.errors import BadRow, UserError

PASSAGE = JsonRows(required=("_id", "text"), optional=("title",), some_text=("title", "text"))
GRADES = TsvRows(pa.schema([("query", pa.string()), ("document", pa.string()), ("grade", pa.int32())]))
ENTRY = pa.struct([("docid", pa.string()), ("text", pa.string())])
NESTED = pa.schema(
    [("id", pa.string()), ("grade", pa.int32()), ("ids", pa.list_(pa.string())), ("entries", pa.list_(ENTRY))]
)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def values(table: pa.Table | None) -> list[list]:
    assert table is not None
    return list(map(list, zip(*(column.to_pylist() for column in table.columns), strict=True)))


def starts(block: bytes) -> np.ndarray:
    return np.cumsum([0, *(len(line) + 1 for line in block.split(b"\n")[:-2])])


@given(st.lists(st.fixed_dictionaries({"_id": text, "text": text, "title": text, "url": st.integers()}), min_size=1))
def test_both_json_parsers_agree(objects: list[dict]) -> None:
    for ascii_only in (True, False):
        lines = [json.dumps(o, ensure_ascii=ascii_only).encode() for o in objects]
        block = b"\n".join(lines) + b"\n"
        fast = PASSAGE.parse_block(block, starts(block))
        if all((o["text"] + o["title"]).strip() for o in objects):  # it leaves doubtful blocks to the other
            assert values(fast) == [PASSAGE.parse_line(line) for line in lines]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b'{"_id": "e"', "malformed JSON"),
        (b"[1]", "malformed JSON"),
        (b"[" * 100_000, "malformed JSON"),
        (b'{"text": "x"}', "missing field"),
        (b'{"_id": "a"}', "missing field"),
        (b'{"_id": 1.5, "text": "x"}', "field that is no text"),
        (b'{"_id": "h", "text": "\xff"}', "invalid UTF-8"),
        (b'{"_id": "i", "text": "\\ud800"}', "invalid UTF-8"),
        (b'{"_id": "d", "title": " ", "text": "\\n"}', "empty title and text"),
    ],
)
def test_what_is_wrong_with_a_json_line(line: bytes, kind: str) -> None:
    with pytest.raises(BadRow) as error:
        PASSAGE.parse_line(line)
    assert error.value.kind == kind


def or_null(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.one_of(st.none(), values)


entries = st.fixed_dictionaries({"docid": or_null(text)}, optional={"text": or_null(text), "score": st.floats(0, 1)})
objects = st.fixed_dictionaries(
    {"id": or_null(text)},
    optional={
        "grade": st.integers(-5, 5),
        "ids": or_null(st.lists(or_null(text), max_size=3)),
        "entries": or_null(st.lists(or_null(entries), max_size=3)),
        "more": st.sampled_from([1, "x", [], {"y": [None]}]),
    },
)


@given(st.lists(objects, min_size=1))
def test_both_parsers_of_nested_objects_agree(rows: list[dict]) -> None:
    nested = NestedJsonRows(NESTED)
    lines = [json.dumps(row).encode() for row in rows]
    block = b"\n".join(lines) + b"\n"
    plain = [
        [pa.scalar(v, kind).as_py() for v, kind in zip(row, NESTED.types, strict=True)]
        for row in map(nested.parse_line, lines)
    ]
    assert values(nested.parse_block(block, starts(block))) == plain


def test_numbers_are_texts_where_a_file_has_them_for_ids() -> None:
    line = json.dumps({"id": 7, "ids": [8, 9], "entries": [{"docid": 10, "text": "x"}]}).encode() + b"\n"
    whole = pa.int64()
    entry = pa.struct([("docid", whole), ("text", pa.string())])
    found = pa.schema([("id", whole), ("grade", pa.int32()), ("ids", pa.list_(whole)), ("entries", pa.list_(entry))])
    expected = [["7", None, ["8", "9"], [{"docid": "10", "text": "x"}]]]
    table = NestedJsonRows(NESTED, found).parse_block(line, starts(line))
    assert values(table) == expected == [NestedJsonRows(NESTED).parse_line(line)]
    assert table.schema == NESTED  # type: ignore[union-attr]
    assert NestedJsonRows(NESTED).parse_block(line, starts(line)) is None


@pytest.mark.parametrize(
    ("row", "kind", "detail"),
    [
        ({"id": 1.5}, "field that is no text", "id"),
        ({"id": True}, "field that is no text", "id"),
        ({"id": ["a"]}, "field that is no text", "id"),
        ({"ids": "a"}, "field that is no list", "ids"),
        ({"ids": [["a"]]}, "field that is no text", "ids"),
        ({"entries": ["a"]}, "field that is no object", "entries"),
        ({"entries": {"docid": ["a"]}}, "field that is no list", "entries"),
        ({"entries": [{"docid": {}}]}, "field that is no text", "entries.docid"),
        ({"entries": [{"text": "\ud800"}]}, "invalid UTF-8", "half a surrogate pair in entries.text"),
        ({"grade": "high"}, "value that is no whole number", "grade 'high'"),
        ({"grade": 0.5}, "value that is no whole number", "grade '0.5'"),
        ({"grade": 2**31}, "value that is no whole number", "grade '2147483648'"),
    ],
)
def test_what_is_wrong_with_a_nested_object(row: dict, kind: str, detail: str) -> None:
    with pytest.raises(BadRow) as error:
        NestedJsonRows(NESTED).parse_line(json.dumps(row).encode())
    assert (error.value.kind, error.value.detail) == (kind, detail)


def test_the_first_objects_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('[1]\n{"a": 1}\n{"b"\n\n{"c": null}\n')
    assert first_objects(path) == [{"a": 1}, {"c": None}]
    path.write_text("{}\n" * 1500 + '{"a": 1}\n')
    with pytest.raises(UserError, match=r"a\.jsonl holds no JSON object in its first lines"):
        first_objects(path)


@given(st.lists(st.tuples(st.sampled_from(["a", '"b', "c,d", "'", "é\u2028"]), text, st.integers(-3, 3)), min_size=1))
def test_both_tsv_parsers_agree(cells: list[tuple[str, str, int]]) -> None:
    lines = ["\t".join([a, b.translate({9: " ", 10: " ", 13: " "}), str(n)]).encode() for a, b, n in cells]
    block = b"\n".join(lines) + b"\n"
    assert values(GRADES.parse_block(block, starts(block))) == [GRADES.parse_line(line) for line in lines]
