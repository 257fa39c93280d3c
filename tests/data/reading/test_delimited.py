"""Delimited text of any writer: the rows that went in come out, whatever the file is called."""

import csv
import io
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import check_refused, values

from two_tower.data.pairs import PairsSource
from two_tower.data.passages import Passages
from two_tower.data.reading.delimited import DelimitedFile
from two_tower.errors import BadRows


def written(rows: list[tuple[str, ...]], **form: object) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, **form).writerows(rows)  # type: ignore[arg-type]
    return text.getvalue()


def read(path: Path, text: str) -> list[tuple]:
    path.write_text(text, encoding="utf-8", newline="")
    file, bad = DelimitedFile(path), BadRows(0)
    found = [row for table, _ in file.read(file.schema, bad) for row in values(table)]
    bad.check()
    return found


cell = st.text(st.sampled_from("ab\"'\t\n,;| \u2028é"), max_size=6)
name = st.sampled_from(["faq.csv", "faq.tsv", "faq.txt", "faq"])


@settings(max_examples=100)
@given(
    st.lists(st.tuples(cell, cell, st.sampled_from(["x", "NA", "007", "1e5", "null"])), min_size=1, max_size=8),
    st.sampled_from(",;"), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), st.sampled_from(["\n", "\r\n"]), name,
)  # fmt: skip
def test_what_a_program_writes_is_read_exactly(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple], delimiter: str, rule: int, end: str, name: str
) -> None:
    path = tmp_path_factory.mktemp("csv") / name
    text = written([("query", "text", "id"), *rows], delimiter=delimiter, quoting=rule, lineterminator=end)
    assert read(path, text) == rows


@given(st.lists(st.tuples(cell, cell), min_size=1, max_size=8), name)
def test_quoted_tsv_is_read_with_its_quotes(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple], name: str
) -> None:
    path = tmp_path_factory.mktemp("tsv") / name
    text = written([("query", "text"), *rows], delimiter="\t", quoting=csv.QUOTE_ALL)
    assert read(path, text) == rows


plain = st.text(st.sampled_from("ab'\", ;é"), max_size=6)


@given(st.lists(st.tuples(plain, plain), min_size=1, max_size=8))
def test_lone_quotes_of_tsv_are_text(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple]) -> None:
    rows = [*((f"{i}{a}", f"x{b}") for i, (a, b) in enumerate(rows)), ("9", '"He said')]  # one that cannot be quoted
    text = "".join(f"{a}\t{b}\n" for a, b in [("query", "text"), *rows])
    assert read(tmp_path_factory.mktemp("tsv") / "a.tsv", text) == rows


PASSAGES = [("1", 'He said "no" and left.', "Doe"), ("2", "a\tb", "Tab"), ("3", "first\nsecond", "Break")]


@pytest.mark.parametrize("late", [False, True])
def test_a_tsv_file_of_the_csv_module(tmp_path: Path, late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("two_tower.data.reading.rows._BLOCK_BYTES", 500)
    others = [(str(i), f"plain {i}", "T") for i in range(4, 200)]
    rows = [*others, *PASSAGES] if late else [*PASSAGES, *others]
    path = tmp_path / "psgs.tsv"
    path.write_text(written([("id", "text", "title"), *rows], delimiter="\t"), encoding="utf-8", newline="")
    assert values(Passages(path).corpus()) == [(i, title, text) for i, text, title in rows]


def test_cells_that_begin_with_a_quote_do_not_swallow_the_rows_below(tmp_path: Path) -> None:
    rows = [('"', '"a', "1"), ('"', "gone", "1"), ("ab", 'a"a', "1")]
    text = "".join("\t".join(row) + "\n" for row in [("query-id", "corpus-id", "score"), *rows])
    assert read(tmp_path / "dev.tsv", text) == rows


def test_rows_before_the_first_quoted_one_count_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("two_tower.data.reading.rows._BLOCK_BYTES", 500)
    path = tmp_path / "psgs.tsv"
    rows = [("id", "text", "title"), *((str(i), f"plain {i}", "T") for i in range(4, 200)), *PASSAGES, ("x", "\n")]
    path.write_text(written(rows, delimiter="\t"), encoding="utf-8", newline="")
    file, bad = DelimitedFile(path), BadRows(0.01)
    assert sum(len(table) for table, _ in file.read(file.schema, bad)) == 199
    assert (bad.rows, bad.counts) == (200, {"wrong number of columns": 1})


@pytest.mark.parametrize(
    "text", ['7\t"To be or not to be"\n8\tThat\n', '7\t"He said\n8\tno" way\n', '7\t"a" b\n8\t"c" d\n']
)
def test_quotes_that_no_program_wrote_stay(tmp_path: Path, text: str) -> None:
    (tmp_path / "collection.tsv").write_text(text)
    expected = [tuple(line.split("\t")) for line in text.splitlines()]
    assert [(i, text) for i, _, text in values(Passages(tmp_path / "collection.tsv").corpus())] == expected


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\r\nquestion;answer\r\nwho?;me, I\r\nyou?;no\r\n", "\ufeffquestion,answer\rwho?,\"me, I\"\ryou?,no\r",
        "question|answer\nwho?|me, I\nyou?|no\n", "question\tanswer\r\nwho?\tme, I\r\nyou?\tno",
        '"question";"answer"\n"who?";"me, I"\n"you?";"no"\n', "\n\nquestion;answer\n\nwho?;me, I\nyou?;no\n\n",
        ",question,answer\n0,who?,\"me, I\"\n1,you?,no\n", "question;answer;\nwho?;me, I;\nyou?;no;\n",
        '"question"\t"answer"\n"who?"\t"me, I"\n"you?"\t"no"\n', '"question"\t"answer"\r"who?"\t"me, I"\r"you?"\t"no"',
    ],
    ids=range(10),
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a"])
def test_the_rows_decide_the_form(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    source = PairsSource(tmp_path / name)
    assert [row[2] for row in values(source.corpus())] == ["me, I", "no"]
    assert sorted(text for split in source.splits() for _, text in values(source.queries(split))) == ["who?", "you?"]


HEADERS = [
    ('"Frage, kurz, klar";"Antwort"\nwie geht es;gut\nwas nun;nichts\n', "has the fields Frage, kurz, klar, Antwort"),
    ('"question";"answer, long, text"\nwie geht es;gut danke\n', r"expected.*set data\.positive_column"),
    ('"question "x"",answer\nwie,gut\nwas,nichts\n', "row 1: malformed quoting in the names of the columns"),
    ("Frage\tAntwort\nwie geht es?\tgut.\nwas nun?\tnichts.\n", "has the fields Frage, Antwort; expected a query"),
    ('"Frage"\t"Antwort"\n"wie?"\t"gut."\n', "has the fields Frage, Antwort; expected a query"),
    ("wie geht es?,gut.\nwas nun?,nichts.\n", r"columns' numbers \(data\.query_column=1\) if row 1 names none"),
    ("question,question\na,b\nc,d\n", "two columns that are called 'question'"),
]


@pytest.mark.parametrize(("text", "message"), HEADERS, ids=range(len(HEADERS)))
def test_a_header_is_never_skipped(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    check_refused(lambda: list(PairsSource(tmp_path / "a.txt").corpus()), message)


def test_columns_without_names_have_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("0,wie geht es?,gut.\n1,was nun?,nichts.\n")
    source = PairsSource(tmp_path / "a.csv", query_column="2", positive_column="3")
    assert [text for *_, text in values(source.corpus())] == ["gut.", "nichts."]


def test_a_file_with_one_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text\n"Hello, world"\n"Bye, x"\n')
    assert [text for *_, text in values(Passages(tmp_path / "a.csv").corpus())] == ["Hello, world", "Bye, x"]
    (tmp_path / "a.txt").write_text("Hello, world.\nBye.\n")
    source = Passages(tmp_path / "a.txt", text_column="1")
    assert [text for *_, text in values(source.corpus())] == ["Hello, world.", "Bye."]


def test_what_a_row_lacks_is_null(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("query\na\n")
    fields = pa.schema({"other": pa.string(), "query": pa.string()})
    assert [values(table) for table, _ in DelimitedFile(tmp_path / "a.csv").read(fields, BadRows(0))] == [[(None, "a")]]
