"""`data=passages`: every kind of file gives the same passages; bad rows are counted; there is nothing to train on."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rows import bad_summary, values

from two_tower.data.passages import Passages
from two_tower.data.reading.columns import estimated_lines
from two_tower.errors import UserError

ROWS = [("a", "One", "the first"), ("b", "", "the second, with a comma"), ("c", "Three", "ünïcode 東京")]


def write(path: Path, rows: list[tuple[str, str, str]], names: tuple[str, str, str] = ("id", "title", "text")) -> Path:
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        pq.write_table(pa.table({n: [r[i] for r in rows] for i, n in enumerate(names)}), path)
        return path
    if kind == "jsonl":
        lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
    else:
        mark = "\t" if kind == "tsv" else ";"
        lines = [mark.join(row) for row in [names, *rows]]
    content = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def read(source: Passages) -> list[tuple[str, str, str]]:
    return values(source.corpus())


@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p.jsonl", "p.jsonl.gz", "p.tsv.gz", "p.parquet"])
def test_every_kind_of_file_gives_the_same(name: str, tmp_path: Path) -> None:
    source = Passages(str(write(tmp_path / name, ROWS)))
    assert read(source) == ROWS == read(source)
    assert source.name == "p"
    assert source.splits() == ()
    rows = {"csv": 4, "tsv": 4, "gz": None}.get(name.rpartition(".")[2], 3)  # a header is counted too
    assert source.estimated_size() == rows


def test_columns_are_found_or_named(tmp_path: Path) -> None:
    usual = write(tmp_path / "usual.jsonl", ROWS, ("docid", "passage_title", "contents"))
    assert read(Passages(str(usual))) == ROWS
    other = write(tmp_path / "other.jsonl", ROWS, ("key", "heading", "words"))
    named = Passages(str(other), text_column="words", title_column="heading", id_column="key")
    assert read(named) == ROWS
    assert read(Passages(str(other), text_column="words")) == [(str(i), "", r[2]) for i, r in enumerate(ROWS, 1)]
    with pytest.raises(UserError, match=r"set data\.text_column to one of its columns, key, heading, words"):
        Passages(str(other))
    with pytest.raises(ValueError, match=r"id_column=kee is no column .*key"):
        Passages(str(other), text_column="words", id_column="kee")


def test_a_tsv_without_header_is_ids_and_texts(tmp_path: Path) -> None:
    (tmp_path / "collection.tsv").write_text("7\tone two\n8\tthree\n")
    assert read(Passages(str(tmp_path / "collection.tsv"))) == [("7", "", "one two"), ("8", "", "three")]


def test_bad_rows_are_counted_and_left_out(tmp_path: Path) -> None:
    rows = [(str(i), "", f"text {i}") for i in range(20)]
    path = write(tmp_path / "p.jsonl", [*rows, ("3", "", "again"), ("x", "", " ")])
    source = Passages(str(path), max_bad_rows=0.2)
    assert read(source) == rows
    summary = bad_summary(source)
    assert "1 with id that another row had before" in summary
    assert "row 21" in summary
    assert "1 with empty text" in summary
    with pytest.raises(UserError, match="more than"):
        read(Passages(str(path)))
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"text": ""}\n')
    with pytest.raises(UserError):
        read(Passages(str(empty), max_bad_rows=1))


def test_its_fingerprint_is_of_the_text_and_of_how_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", ROWS)
    one = Passages(str(path)).fingerprint()
    assert Passages(str(path)).fingerprint() == one
    assert Passages(str(path), text_column="title").fingerprint() != one
    write(path, ROWS[:2])
    assert Passages(str(path)).fingerprint() != one


def test_it_cannot_be_trained_on(tmp_path: Path) -> None:
    source = Passages(str(write(tmp_path / "p.jsonl", ROWS)))
    with pytest.raises(UserError, match=r"no queries: data=passages is for embed\.py"):
        source.queries("train")


@pytest.mark.parametrize("sample", [1000, 1 << 22])
def test_lines_are_estimated_by_the_beginning(tmp_path: Path, sample: int) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"a line with number {number:06}\n" for number in range(5000)), encoding="utf-8")
    assert estimated_lines(path, sample) == pytest.approx(5000, rel=0.05)
    (tmp_path / "empty").touch()
    assert estimated_lines(tmp_path / "empty") == 0
