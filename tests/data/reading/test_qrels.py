"""Judgements in every form that tools write; what cannot be taken exactly is refused."""

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import bad_summary, check_refused, values, write_rows, write_text

from two_tower.data.beir import Beir
from two_tower.data.huggingface import HuggingFace
from two_tower.data.reading.qrels import qrels_rows
from two_tower.errors import BadRows

ROWS = [("q1", "d1", 1), ("q2", "d2", 0), ("q3", "d3", 2)]
HEADERS = [
    None, ("query-id", "corpus-id", "score"), ("topic", "doc", "rel"), ("Query_ID", "DocID", "Relevance"),
    ("Frage", "Dokument", "Note"),
]  # fmt: skip


def read(path: Path, text: str | bytes, limit: float = 0) -> list[tuple]:
    write_text(path, text)
    bad = BadRows(limit)
    found = [row for table, _ in qrels_rows(path).read(bad) for row in values(table)]
    bad.check()
    return found


def lines(rows: list[tuple], delimiter: str = "\t", quote: str = "") -> str:
    return "".join(delimiter.join(f"{quote}{cell}{quote}" for cell in row) + "\n" for row in rows)


@pytest.mark.parametrize(("delimiter", "columns"), product(["\t", " ", "  ", " \t", ",", ";", "|"], [2, 3, 4]))
def test_any_delimiter_and_number_of_columns(
    tmp_path: Path, delimiter: str, columns: int, caplog: pytest.LogCaptureFixture
) -> None:
    rows: list[tuple] = [(q, "Q0", d, g) if columns == 4 else (q, d, g)[:columns] for q, d, g in ROWS]
    expected = [(q, d, 1) for q, d, _ in ROWS] if columns == 2 else ROWS
    assert read(tmp_path / "dev.tsv", lines(rows, delimiter)) == expected
    assert ("taken as relevant" in caplog.text) == (columns == 2)


@pytest.mark.parametrize(("header", "delimiter", "quote"), product(HEADERS, "\t,", ["", '"']))
def test_any_header(tmp_path: Path, header: tuple | None, delimiter: str, quote: str) -> None:
    rows = [*([header] if header else []), *ROWS]
    assert read(tmp_path / "dev.tsv", lines(rows, delimiter, quote)) == ROWS


def test_names_decide_the_order(tmp_path: Path) -> None:
    swapped = [("corpus-id", "score", "query-id", "note"), *((d, g, q, "x") for q, d, g in ROWS)]
    assert read(tmp_path / "dev.tsv", lines(swapped)) == ROWS
    trec = [("qid", "did", "pid", "relevancy"), *((q, 0, d, g) for q, d, g in ROWS)]
    assert read(tmp_path / "dev.tsv", lines(trec)) == ROWS


@pytest.mark.parametrize("text", ["\ufeffq1\td1\t1.0\r\n", "q1\td1\t 1\n\n", "q1\td1\t1\r", "q1\td1\t+1\n"])
def test_what_is_the_same(tmp_path: Path, text: str) -> None:
    assert read(tmp_path / "dev.tsv", text) == [("q1", "d1", 1)]


@given(st.lists(st.tuples(st.sampled_from(["007", "1e5", "NA", "a b", "null"]), st.integers(-2, 4)), min_size=1))
def test_ids_are_kept_exactly(tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, int]]) -> None:
    rows = [(f"{i}", document, grade) for i, (document, grade) in enumerate(cells)]
    assert read(tmp_path_factory.mktemp("qrels") / "a.tsv", lines(rows)) == rows


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("q9", "d9", "0.5"), r"row 4: grade 0\.5, but grades must be whole numbers"),
        (("q9", "d9", "0,5"), r"row 4: grade 0\.5, but grades must be whole numbers"),
        (("q9", "d9", ""), "row 4: empty grade; 1 of 4"),
        (("q9", "d9", "high"), r"row 4: value that is no number \(high\); 1 of 4"),
        (("q9", "d9"), r"row 4: wrong number of columns \(2 instead of 3\); 1 of 4"),
        (("", "d9", "1"), "row 4: empty query_id; 1 of 4"),
    ],
)
def test_what_cannot_be_taken(tmp_path: Path, row: tuple, message: str) -> None:
    check_refused(lambda: read(tmp_path / "dev.tsv", lines([*ROWS, row])), message)


def test_a_first_row_with_a_word_for_a_grade_is_no_header(tmp_path: Path) -> None:
    path = tmp_path / "dev.tsv"
    check_refused(lambda: read(path, lines([("q9", "d9", "high"), *ROWS])), "row 1: value that is no number")
    check_refused(lambda: read(path, lines([("q1", "d1", "low")])), "1 of 1 rows are bad.*: correct the file$")
    check_refused(lambda: read(path, "q1\nq2\n"), "row 1: has q1; expected a query, a passage and a grade")


NAMES = [
    "qrels/dev.tsv", "qrels/dev.txt", "qrels/dev.qrels", "qrels/qrels.dev.tsv", "qrels.dev.tsv", "qrels/valid.tsv",
    "qrels/val.csv", "qrels/DEV.TSV.gz", "qrels/dev", "qrels/qrels-dev.small.txt", "dev.qrels",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_files_of_a_split(tmp_path: Path, name: str) -> None:
    write_rows(tmp_path / "corpus.jsonl", [{"_id": d, "text": d} for _, d, _ in ROWS])
    write_rows(tmp_path / "queries.jsonl", [{"_id": q, "text": q} for q, _, _ in ROWS])
    write_text(tmp_path / name, lines([(q, 0, d, g) for q, d, g in ROWS], " "))
    source = Beir(tmp_path)
    assert source.splits() == ("dev",)
    assert values(source.qrels("dev")) == ROWS
    assert not bad_summary(source)


@pytest.mark.usefixtures("hub_cache")
def test_data_sets_of_the_hub_take_all_forms_from_local_files(tmp_path: Path) -> None:
    for kind, letter in (("corpus", "d"), ("queries", "q")):
        write_rows(tmp_path / f"set/{kind}/{kind}.jsonl", [{"_id": f"{letter}{i}", "text": "x"} for i in (1, 2, 3)])
    write_text(tmp_path / "qrels/train.tsv", lines([(q, "Q0", d, g) for q, d, g in ROWS], " "))
    source = HuggingFace(tmp_path / "set", qrels=tmp_path / "qrels", dev_share=0)
    assert sorted(values(source.qrels("train"))) == [row for row in ROWS if row[2] > 0]
