"""A user's own pairs: kinds of files, columns, splits without leaks, clear mistakes."""

from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import bad_summary, check_bad_row, check_refused, check_split_refused, everything, values, write_text
from rows import write_rows as write

from two_tower.data.pairs import PairsSource

KINDS = ["csv", "csv.gz", "semicolon.csv", "tsv", "tsv.gz", "jsonl", "jsonl.gz", "parquet"]
Row = dict[str, Any]

ROWS = [
    {"query": "water", "title": "River", "passage": "A river, wide.", "negative": "A tree."},
    {"query": "stripes", "title": "Tiger", "passage": 'A "big" cat.', "negative": ""},
    {"query": "water", "title": "", "passage": "A lake.", "negative": "A river, wide."},
    {"query": "cat", "title": "Tiger", "passage": 'A "big" cat.', "negative": "A lake."},
    {"query": "water", "title": "River", "passage": "A river, wide.", "negative": ""},
]


def texts(source: PairsSource) -> dict[str, str]:
    """What stands behind each id."""
    found = {i: f"{title}|{text}" for i, title, text in values(source.corpus())}
    return found | {i: text for split in source.splits() for i, text in values(source.queries(split))}


def judged(source: PairsSource) -> list[tuple[str, str]]:
    """The relevant pairs of all splits, sorted."""
    pairs = [row for split in source.splits() for row in values(source.qrels(split))]
    assert all(grade == 1 for *_, grade in pairs)
    name = texts(source)
    return sorted((name[query], name[passage]) for query, passage, _ in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_of_files(tmp_path: Path, kind: str) -> None:
    source = PairsSource(str(write(tmp_path / f"mine.{kind}", ROWS)), dev_share=0.3)
    assert source.name == ("mine.semicolon" if "semicolon" in kind else "mine")
    passages, _, train_queries, _, dev_queries, triplets, _ = everything(source)
    assert sorted(row[1:] for row in passages) == [
        ("", "A lake."), ("", "A river, wide."), ("", "A tree."), ("River", "A river, wide."), ("Tiger", 'A "big" cat.')
    ]  # fmt: skip
    assert source.splits() == ("train", "dev")
    name = texts(source)
    assert sorted(text for _, text in train_queries + dev_queries) == ["cat", "stripes", "water"]
    assert judged(source) == [
        ("cat", 'Tiger|A "big" cat.'), ("stripes", 'Tiger|A "big" cat.'),
        ("water", "River|A river, wide."), ("water", "|A lake."),
    ]  # fmt: skip
    expected = [
        ("water", "River|A river, wide.", "|A tree."), ("water", "|A lake.", "|A river, wide."),
        ("cat", 'Tiger|A "big" cat.', "|A lake."),
    ]  # fmt: skip
    trained = {text for _, text in train_queries}
    assert [tuple(name[i] for i in row) for row in triplets] == [row for row in expected if row[0] in trained]
    assert not bad_summary(source)


def test_ids_never_change(tmp_path: Path) -> None:
    rows = [{"q": "water", "p": "A lake.", "title": "Lake"}, {"q": "fire", "p": "A fire.", "title": ""}]
    found = texts(PairsSource(str(write(tmp_path / "a.jsonl", rows)), "q", "p"))
    assert found == {
        "197aacac2d5a244b": "water", "6b651fe4313ea86f": "Lake|A lake.",
        "cbc51ed1abb0b164": "fire", "2b9444529152413c": "|A fire.",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("row", "passage"),
    [
        ({"anchor": "a", "positive": "b"}, "|b"),
        ({"text": "b", "Query": "a", "title": "c"}, "c|b"),
        ({"id": "7", "question": "a", "document": "b", "url": "u"}, "|b"),
    ],
)
def test_usual_names_are_known(tmp_path: Path, row: Row, passage: str) -> None:
    other = {key: value + "2" for key, value in row.items()}
    source = PairsSource(str(write(tmp_path / "mine.csv", [row, other])))
    assert ("a", passage) in judged(source)
    assert source.triplets() is None


def test_a_json_field_may_be_missing_in_some_rows(tmp_path: Path) -> None:
    rows = [{"query": f"q{i}", "passage": f"p{i}"} | ({"negative": "n"} if i > 3 else {}) for i in range(40)]
    assert 20 < len(values(PairsSource(str(write(tmp_path / "a.jsonl", rows)), dev_share=0.1).triplets())) <= 36


def test_columns_can_be_named(tmp_path: Path) -> None:
    rows = [{"query": "no", "frage": f"f{i}", "antwort": f"a{i}", "titel": "t", "falsch": f"n{i}"} for i in range(5)]
    source = PairsSource(str(write(tmp_path / "mine.tsv", rows)), "frage", "antwort", "titel", "falsch")
    assert {text for _, title, text in values(source.corpus()) if title == "t"} == {f"a{i}" for i in range(5)}
    assert {text for _, text in values(source.queries("train"))} < {f"f{i}" for i in range(5)}
    assert source.triplets() is not None


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_tsv_file_of_two_columns_needs_no_header(
    tmp_path: Path, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = ending.join(['who "was" it\tA "man', "where\tThere"])
    source = PairsSource(str(write_text(tmp_path / "mine.tsv", text)))
    assert set(texts(source).values()) == {'who "was" it', '|A "man', "where", "|There"}
    assert "taken for query and positive" in caplog.text


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
def test_given_ids_are_kept(tmp_path: Path, kind: str) -> None:
    rows = [
        {"qid": query_id, "query": query, "pid": passage_id, "passage": "x", "negative": negative}
        for query_id, query, passage_id, negative in ((7, "a", "p1", "z"), (8, "b", "p2", "z"), (7, "a", "p2", ""))
    ]
    source = PairsSource(str(write(tmp_path / f"a.{kind}", rows)), query_id_column="qid", passage_id_column="pid")
    pairs = [row[:2] for split in source.splits() for row in values(source.qrels(split))]
    assert sorted(pairs) == [("7", "p1"), ("7", "p2"), ("8", "p2")]
    passages = values(source.corpus())
    assert len(passages) == 3
    assert [text for i, _, text in passages if i in ("p1", "p2")] == ["x", "x"]


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("uvwxyz")), min_size=1, max_size=30),
    st.floats(0.01, 0.99),
    st.integers(0, 5),
)
def test_no_query_is_on_both_sides_and_none_is_lost(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]], share: float, seed: int
) -> None:
    # Equal but for case and white space: different queries, but one of them would give the other away.
    pairs = [(form, p) for q, p in pairs for form in (q, f" {q.upper()}  ?", f"{q} ?")] + [("z", "z")]
    path = write(tmp_path_factory.mktemp("pairs") / "mine.jsonl", [{"query": q, "passage": p} for q, p in pairs])
    source = PairsSource(str(path), dev_share=share, dev_seed=seed)
    train, dev = ({" ".join(t.lower().split()) for _, t in values(source.queries(s))} for s in ("train", "dev"))
    assert train
    assert dev
    assert not train & dev
    assert judged(source) == sorted({(q.strip(), f"|{p}") for q, p in pairs})


def test_the_share_is_kept_and_queries_stay_when_the_file_grows(tmp_path: Path) -> None:
    rows = [{"query": f"query {i}", "passage": f"passage {i % 100}"} for i in range(2000)]

    def dev(path: Path, **arguments: Any) -> set[str]:  # noqa: ANN401
        return {text for _, text in values(PairsSource(str(path), **arguments).queries("dev"))}

    few, many = write(tmp_path / "few.csv", rows[:1000]), write(tmp_path / "many.csv", rows)
    assert 140 < len(dev(many)) < 260
    assert dev(few) == {text for text in dev(many) if int(text.split()[1]) < 1000}
    assert dev(many, dev_seed=1) != dev(many)
    assert dev(many, dev_share=0.2) > dev(many)


def test_values_that_need_quotes(tmp_path: Path) -> None:
    rows = [{"query": 'two\nlines, "quoted"', "passage": "a;b\tc"}, {"query": "plain", "passage": "y" * 200_000}]
    source = PairsSource(str(write(tmp_path / "mine.csv", rows)))
    assert set(texts(source).values()) == {'two\nlines, "quoted"', "|a;b\tc", "plain", "|" + "y" * 200_000}


@pytest.mark.parametrize(
    ("name", "line", "kind"),
    [
        ("a.csv", b"q9,p9,more\n", "wrong number of columns"),
        ("a.csv.gz", b'"q9,p9\n', "malformed quoting"),
        ("a.csv", b" ,p9\n", "empty query"),
        ("a.csv.gz", b"q9,\xff\n", "invalid UTF-8"),
        ("a.tsv", b"q9\t\xe2\x80\xa8 \n", "empty passage"),
        ("a.jsonl.gz", b'{"query": "q9", "passage": ""}\n', "empty passage"),
    ],
)
def test_bad_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, line: bytes, kind: str) -> None:
    kind_of_file = name.removesuffix(".gz")
    path = write(tmp_path / kind_of_file, [{"query": f"q{i}", "passage": f"p{i}"} for i in range(4)])
    expected, content = everything(PairsSource(str(path))), path.read_bytes()
    path = write_text(tmp_path / name, content + line)
    message = rf"{path.name}, row {content.count(chr(10).encode()) + 1}: {kind}"
    check_bad_row(partial(PairsSource, str(path)), expected, message, kind, caplog)


def test_rows_after_a_quote_that_is_not_closed_are_all_bad(tmp_path: Path) -> None:
    lines = ["query,passage", *(f"q{i},p{i}" for i in range(50))]
    lines[21] = '"q20,p20'
    source = PairsSource(str(write_text(tmp_path / "a.csv", "\n".join(lines) + "\n")), max_bad_rows=0.5)
    check_refused(lambda: list(source.corpus()), r"a\.csv, row 22: malformed quoting.*30 of 50 rows")


@pytest.mark.parametrize(("passage", "kind"), [(None, "empty passage"), (b"\xff", "invalid UTF-8")])
def test_bad_cells_of_a_parquet_file(tmp_path: Path, passage: bytes | None, kind: str) -> None:
    passages = pa.array([passage if i == 2 else b"p%d" % i for i in range(6)], pa.binary()).view(pa.string())
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"query": [f"q{i}" for i in range(6)], "passage": passages}), path)
    check_refused(lambda: list(PairsSource(str(path)).corpus()), rf"a\.parquet, row 3: {kind}; 1 of 6 rows")
    assert len(values(PairsSource(str(path), max_bad_rows=0.2).corpus())) == 5


def test_a_cut_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [{"query": f"q {i * i}", "passage": f"p {i * i * i}"} for i in range(3000)])
    path.write_bytes(path.read_bytes()[:-300])
    check_refused(lambda: list(PairsSource(str(path)).corpus()), r"a\.parquet cannot be read to its end")


def test_an_id_with_two_texts_is_bad(tmp_path: Path) -> None:
    rows = [{"i": i, "query": q, "passage": p} for i, q, p in
            [("1", "a", "x"), ("2", "b", "y"), ("1", "c", "z"), ("1", "a", "x"), ("1", "c", "w")]]  # fmt: skip
    path = write(tmp_path / "a.jsonl", rows)
    source = PairsSource(str(path), query_id_column="i")
    check_refused(lambda: list(source.corpus()), r"row 3: id that another text had before \(1\); 2 of 5")
    source = PairsSource(str(path), query_id_column="i", max_bad_rows=0.5)
    assert sorted(text for *_, text in values(source.corpus())) == ["x", "y"]
    assert len(judged(source)) == 2


MISTAKES = [
    ("a.csv", b"query,passage\nq,p\n", {"query_column": "qury"}, r"query_column=qury is no column.*mean 'query'\?"),
    ("a.csv", b"frage,antwort\nq,p\n", {}, r"row 1: has the fields frage, antwort; expected a query"),
    ("a.csv", b"query,query\nq,p\n", {}, "two columns that are called 'query'"),
    ("a.csv", b"query,passage\nq,p\n", {"title_column": "query", "query_column": "query"}, "title_column=query has"),
    ("a.csv", b"query,passage\n", {}, "holds no row with a query and a passage"),
    ("a.csv", b"query,passage\nq,p\nq,p2\n", {}, "holds only one query"),
    ("a.csv", b"", {}, "a.csv is empty"),
    ("a.parquet", b"PAR1", {}, r"a\.parquet cannot be read"),
    ("a.csv", b"query,passage\nq,p\n", {"dev_share": 0.0}, r"dev_share=0\.0 must be between"),
    ("b.csv", b"", {}, r"a\.csv is no file"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "arguments", "answer"), MISTAKES)
def test_a_mistake_is_named(tmp_path: Path, name: str, content: bytes, arguments: Row, answer: str) -> None:
    (tmp_path / name).write_bytes(content)
    path = str(tmp_path / name.replace("b.csv", "a.csv"))
    check_refused(lambda: PairsSource(path, **arguments).queries("dev"), answer)


def test_an_unknown_split_and_columns_that_hold_no_text_are_named(tmp_path: Path) -> None:
    check_split_refused(PairsSource(str(write(tmp_path / "a.csv", ROWS))), "test", "no split 'test': valid: dev, train")
    path = write(tmp_path / "a.parquet", [{"query": "a", "passage": ["p1", "p2"]}])
    message = r"Column 'passage' of .*a\.parquet holds list<.*>, not text"
    check_refused(lambda: list(PairsSource(str(path)).corpus()), message)


def test_the_fingerprint_sees_the_file_and_how_it_is_read(tmp_path: Path) -> None:
    path, changed = write(tmp_path / "a.csv", ROWS), write(tmp_path / "b.csv", ROWS[:-1])
    settings_of = [{}, {"positive_column": "title"}, {"dev_share": 0.5}, {"dev_seed": 1}]
    found = [PairsSource(str(path), **arguments).fingerprint() for arguments in settings_of]
    assert len({*found, PairsSource(str(changed)).fingerprint()}) == len(settings_of) + 1
    (tmp_path / "elsewhere").mkdir()
    assert PairsSource(str(path.rename(tmp_path / "elsewhere" / "a.csv"))).fingerprint() == found[0]
