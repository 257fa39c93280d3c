"""`data=passages`: every kind of file gives the same passages; bad rows are counted; there is nothing to train on."""

from pathlib import Path

import pytest
from rows import Values, bad_summary, check_refused, values, write_rows

from two_tower.data.passages import Passages
from two_tower.data.reading import rows
from two_tower.data.reading.delimited import TsvFile

ROWS = [("a", "One", "the first"), ("b", "", "the second, with a comma"), ("c", "Three", "ünïcode 東京")]


def write(path: Path, rows: list[tuple[str, str, str]], *names: str) -> str:
    names = names or ("id", "title", "text")
    return str(write_rows(path, [dict(zip(names, row, strict=True)) for row in rows]))


def read(source: Passages) -> Values:
    return values(source.corpus())


@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p.jsonl", "p.jsonl.gz", "p.tsv.gz", "p.parquet"])
def test_every_kind_of_file_gives_the_same(name: str, tmp_path: Path) -> None:
    source = Passages(write(tmp_path / name, ROWS))
    assert read(source) == ROWS == read(source)
    assert (source.name, source.splits()) == ("p", ())
    check_refused(lambda: source.queries("train"), r"no queries: data=passages is for embed\.py")
    rows = {"csv": 4, "tsv": 4, "gz": None}.get(name.rpartition(".")[2], 3)  # a header is counted too
    assert source.estimated_size() == rows


def test_columns_are_found_or_named(tmp_path: Path) -> None:
    assert read(Passages(write(tmp_path / "usual.jsonl", ROWS, "docid", "passage_title", "contents"))) == ROWS
    other = write(tmp_path / "other.jsonl", ROWS, "key", "heading", "words")
    assert read(Passages(other, text_column="words", title_column="heading", id_column="key")) == ROWS
    assert read(Passages(other, text_column="words")) == [(str(i), "", r[2]) for i, r in enumerate(ROWS, 1)]
    check_refused(
        lambda: Passages(other),
        r"has the fields key, heading, words; expected a text \(text, .*: set data\.text_column",
    )
    check_refused(lambda: Passages(other, text_column="words", id_column="kee"), "^id_column=kee is no column .*key")


def test_a_tsv_without_header_is_ids_and_texts(tmp_path: Path) -> None:
    (tmp_path / "collection.tsv").write_text("7\tone two\n8\tthree\n")
    assert read(Passages(str(tmp_path / "collection.tsv"))) == [("7", "", "one two"), ("8", "", "three")]


def test_bad_rows_are_counted_and_left_out(tmp_path: Path) -> None:
    rows = [(str(i), "", f"text {i}") for i in range(20)]
    path = write(tmp_path / "p.jsonl", [*rows, ("3", "", "again"), ("x", "", " "), rows[3]])
    source = Passages(path, max_bad_rows=0.2)
    assert read(source) == rows
    for part in ("1 with id that another text had before", "row 21", "1 with empty text"):
        assert part in bad_summary(source)
    check_refused(lambda: read(Passages(path)), "more than")


def test_its_fingerprint_is_of_the_text_and_of_how_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", ROWS)
    one = Passages(path).fingerprint()
    assert Passages(path).fingerprint() == one
    assert Passages(path, text_column="title").fingerprint() != one
    write(tmp_path / "p.jsonl", ROWS[:2])
    assert Passages(path).fingerprint() != one


@pytest.mark.parametrize("sample", [1000, 1 << 22])
def test_lines_are_estimated_by_the_beginning(tmp_path: Path, sample: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_SAMPLE_BYTES", sample)
    path = tmp_path / "lines.txt"
    for count in (0, 5000):
        path.write_text("".join(f"a line with number {number:06}\n" for number in range(count)))
        assert TsvFile(path).estimated_size() == pytest.approx(count, rel=0.05)
