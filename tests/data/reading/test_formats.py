"""Formats of lines: the parser of blocks gives what the parser of a line gives, or leaves the block to it."""

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from two_tower.data.reading.delimited import TsvFile
from two_tower.data.reading.json_files import JsonRows
from two_tower.errors import BadRow, BadRows

PASSAGE = JsonRows(pa.schema(dict.fromkeys(("_id", "text", "title"), pa.string())))
ENTRY = pa.struct([("docid", pa.string()), ("text", pa.string())])
NESTED = pa.schema(
    [("id", pa.string()), ("grade", pa.int32()), ("ids", pa.list_(pa.string())), ("entries", pa.list_(ENTRY))]
)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def values(table: pa.Table | None) -> list[list]:
    assert table is not None
    return list(map(list, zip(*(column.to_pylist() for column in table.columns), strict=True)))


@given(st.lists(st.fixed_dictionaries({"_id": text, "text": text, "title": text, "url": st.integers()}), min_size=1))
def test_both_json_parsers_agree(objects: list[dict]) -> None:
    for ascii_only in (True, False):
        lines = [json.dumps(o, ensure_ascii=ascii_only).encode() for o in objects]
        block = b"\n".join(lines) + b"\n"
        fast = PASSAGE.at_once(block, len(lines))
        assert values(fast) == [PASSAGE.parse(line) for line in lines]


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
    nested = JsonRows(NESTED)
    lines = [json.dumps(row).encode() for row in rows]
    block = b"\n".join(lines) + b"\n"
    plain = [
        [pa.scalar(v, kind).as_py() for v, kind in zip(row, NESTED.types, strict=True)]
        for row in map(nested.parse, lines)
    ]
    assert values(nested.at_once(block, len(lines))) == plain


@pytest.mark.parametrize(
    ("row_format", "line", "kind", "detail"),
    [
        (PASSAGE, b'{"_id": "e"', "malformed JSON", ""),
        (PASSAGE, b"[" * 100_000, "malformed JSON", ""),
        (PASSAGE, b'{"_id": "h", "text": "\xff"}', "invalid UTF-8", ""),
        (PASSAGE, b'{"_id": "i", "text": "\\ud800"}', "invalid UTF-8", ""),
        (JsonRows(NESTED), b'{"id": 1.5}', "field that is no text", "id 1.5"),
        (JsonRows(NESTED), b'{"ids": "a"}', "field that is no list", "ids"),
        (JsonRows(NESTED), b'{"entries": ["a"]}', "field that is no object", "entries"),
        (JsonRows(NESTED), b'{"entries": [{"docid": {}}]}', "field that is no text", "entries.docid"),
        (JsonRows(NESTED), b'{"entries": [{"text": "\\ud800"}]}', "invalid UTF-8", "pair in entries.text"),
        (JsonRows(NESTED), b'{"grade": "high"}', "value that is no whole number", "grade 'high'"),
        (JsonRows(NESTED), b'{"grade": 2147483648}', "value that is no whole number", "grade '2147483648'"),
    ],
    ids=range(11),
)
def test_what_is_wrong_with_a_line(row_format: JsonRows, line: bytes, kind: str, detail: str) -> None:
    with pytest.raises(BadRow) as error:
        row_format.parse(line)
    assert error.value.kind == kind
    assert detail in error.value.detail


@given(st.lists(st.tuples(st.sampled_from(["a", '"b', "c,d", "'", "é\u2028"]), text, st.integers(-3, 3)), min_size=1))
def test_both_tsv_parsers_agree(tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str, int]]) -> None:
    rows = [(a, b.translate({9: " ", 10: " ", 13: " "}), str(n)) for a, b, n in cells]
    lines = ["\t".join(row) for row in rows]
    for bad_line in ([], ["only one"]):  # with a bad line, the block is parsed line by line
        path = tmp_path_factory.mktemp("tsv") / "a.tsv"
        path.write_text("\n".join([*lines, *bad_line]), encoding="utf-8", newline="")
        file, bad = TsvFile(path, "utf-8", ["query", "document", "grade"]), BadRows(1)
        assert [tuple(row) for table, _ in file.read(file.schema, bad) for row in values(table)] == rows
        assert bad.counts.total() == len(bad_line)
