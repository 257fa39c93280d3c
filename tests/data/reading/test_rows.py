"""Row reading against a plain line-by-line reference: good and bad rows, block borders, damaged files."""

import gzip
import json
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import write_text

from two_tower.data.reading import rows
from two_tower.data.reading.delimited import DelimitedFile
from two_tower.data.reading.json_files import JsonFile, JsonRows
from two_tower.data.reading.rows import Tables, parse_lines
from two_tower.errors import BadRows, UserError

PASSAGE = JsonRows(pa.schema(dict.fromkeys(("_id", "text", "title"), pa.string())))

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def read(path: Path, bad: BadRows | None = None) -> list[tuple]:
    """(line number, value, value, …) of every row."""
    file, bad = JsonFile(path), bad or BadRows(1)
    tables = (
        parse_lines(block, first, PASSAGE.at_once, PASSAGE.parse, PASSAGE.schema, path, bad)
        for first, block in file.blocks()
    )
    return listed(chain.from_iterable(tables))


def listed(tables: Tables) -> list[tuple]:
    found: list[tuple] = []
    for table, numbers in tables:
        assert len(table) == len(numbers)
        found += zip(numbers.tolist(), *(column.to_pylist() for column in table.columns), strict=True)
    return found


GOOD = b'{"_id": "a", "title": "T", "text": "x y", "metadata": {"n": [1, null]}}'
LINES = [
    GOOD, GOOD + b"\r", b'{"_id": 7, "text": "\xc3\xa9"}', b'{"text": "w", "_id": "b", "metadata": "m"}',
    b'{"_id": "c", "title": "only", "text": ""}', b'{"_id": "d", "title": " ", "text": ""}', b"", b"  ",
    b"null", b"3", b"[]", b'{"_id": "e"', GOOD + GOOD, GOOD + b" null " + GOOD, b'{"_id": null, "text": "x"}',
    b'{"_id": "f", "text": null}', b'{"_id": true, "text": "x"}', b'{"_id": "g", "text": ["x"]}',
    b'{"_id": "h", "text": "\xff"}', b'{"_id": "i", "text": "\\ud800"}', b'{"_id": "j", "text": "x\ry"}',
    b"\r", b'{"_id": "\\u00e9", "text": "x"}',
    '{"_id": "k", "text": "one\u2028row\u0085still"}'.encode(), b'{"_id": "l", "text": "q", "text": "r"}',
]  # fmt: skip


def reference(content: bytes) -> tuple[list[tuple], list[int]]:
    """Good rows and the numbers of bad ones, by the plainest code."""
    good, bad = [], []
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode())
            values = [row.get(name) for name in ("_id", "text", "title")]
            values = [str(value) if type(value) is int else value for value in values]
            assert all(value is None or isinstance(value, str) for value in values)
            "".join(value or "" for value in values).encode()
            good.append((number, *values))
        except (ValueError, AttributeError, AssertionError):
            bad.append(number)
    return good, bad


@given(st.lists(st.sampled_from(LINES), max_size=12), st.booleans(), st.integers(1, 200))
def test_any_mixture_of_lines_and_any_block_size(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], last_newline: bool, block_bytes: int
) -> None:
    content = b"\n".join(lines) + b"\n" * last_newline
    path = write_text(tmp_path_factory.mktemp("rows") / "corpus.jsonl", content)
    bad = BadRows(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_BLOCK_BYTES", block_bytes)
        found = read(path, bad)
    good, wrong = reference(content if b"\n" in content else content.replace(b"\r", b"\n"))
    assert found == good
    assert (bad.rows, bad.counts.total()) == (len(good) + len(wrong), len(wrong))
    if wrong:
        bad.max_bad_rows = 0
        with pytest.raises(UserError, match=rf"corpus\.jsonl, row {wrong[0]}: "):
            bad.check()


def test_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    assert read(write_text(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + GOOD)) == [(1, "a", "x y", "T")]


def test_tsv_rows_of_all_kinds(tmp_path: Path) -> None:
    content = b'QID\tdocument\tgrade\r\nq\td\t1\r\nq\td\n\nq\te\t1.0\nq\t\xff\t1\nq\t"h\t-1\n'
    bad = BadRows(1)
    expected = [(2, "q", "d", "1"), (5, "q", "e", "1.0"), (7, "q", '"h', "-1")]
    file = DelimitedFile(write_text(tmp_path / "dev.tsv", content))
    assert listed(file.read(file.schema, bad)) == expected
    assert bad.counts == {"wrong number of columns": 1, "invalid UTF-8": 1}


WHOLE = gzip.compress(b"\n".join(b'{"_id": "%d", "text": "%d"}' % (i, i * i) for i in range(5000)), mtime=0)


@pytest.mark.parametrize("content", [WHOLE[: len(WHOLE) // 2], WHOLE[:-20], None])
def test_a_cut_damaged_or_missing_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "corpus.jsonl.gz"
    if content:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"corpus\.jsonl\.gz" + " cannot be read to its end" * bool(content)):
        read(path)


def test_the_summary_counts_all_and_shows_few() -> None:
    bad = BadRows(1)
    for row in range(1, 51):
        bad.add("empty text", "queries.jsonl", row)
    bad.add("malformed JSON", "queries.jsonl", 60)
    summary = str(bad.summary())
    assert "51 bad rows were left out: 50 with empty text, 1 with malformed JSON" in summary
    assert summary.count("queries.jsonl, row") == 4


def test_the_limit_is_a_fraction() -> None:
    for fraction in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="max_bad_rows"):
            BadRows(fraction)


def test_bad_rows_are_allowed_up_to_the_limit() -> None:
    bad = BadRows(0.1)
    bad.add("empty passage", "train.jsonl", 7, "d7")
    bad.add("malformed JSON", "train.jsonl", 3)
    bad.rows = 20
    bad.check()
    with pytest.raises(UserError, match=r"train\.jsonl, row 3: malformed JSON; 2 of 19 rows are bad"):
        bad.check(19)
    assert "2 bad rows were left out: 1 with empty passage, 1 with malformed JSON" in str(bad.summary())
