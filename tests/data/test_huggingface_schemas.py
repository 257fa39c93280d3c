"""Data sets of the hub in the schemas of Tevatron and BEIR."""

from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hub_rows import ANIMALS, Rows, read, refused, texts
from rows import bad_summary, check_bad_row, check_refused, everything, values, write_text
from rows import write_rows as write

from two_tower.data.huggingface import HuggingFace

pytestmark = pytest.mark.usefixtures("hub_cache")


def passage(name: str | int, title: str = "") -> dict[str, Any]:
    return {"docid": str(name), "title": title, "text": f"text {name}"}


def tevatron_row(number: int, query: str, positives: list[dict], negatives: list[dict]) -> dict[str, Any]:
    passages = {"positive_passages": positives, "negative_passages": negatives}
    return {"query_id": str(number), "query": query, **passages}


TEVATRON: Rows = [
    tevatron_row(1, "first", [passage("a", "A")], [passage("b"), passage("c")]),
    tevatron_row(2, "second", [passage("b"), passage("d")], []),
    tevatron_row(3, "third", [], [passage("a", "A")]),
]
LISTS_OF_STRUCTS = pa.list_(pa.struct(dict.fromkeys(("docid", "title", "text"), pa.string())))
STRUCTS_OF_LISTS = pa.struct(dict.fromkeys(("docid", "title", "text"), pa.list_(pa.string())))


def tevatron_schema(kind: pa.DataType) -> pa.Schema:
    passages = dict.fromkeys(("positive_passages", "negative_passages"), kind)
    return pa.schema({"query_id": pa.string(), "query": pa.string(), **passages})


@pytest.mark.parametrize("kind", [LISTS_OF_STRUCTS, STRUCTS_OF_LISTS])
def test_tevatron(tmp_path: Path, kind: pa.DataType, caplog: pytest.LogCaptureFixture) -> None:
    rows = [dict(row) for row in TEVATRON]
    if kind == STRUCTS_OF_LISTS:
        for row, name in product(rows, ("positive_passages", "negative_passages")):
            row[name] = {field: [p[field] for p in row[name]] for field in ("docid", "title", "text")}
    # A row that comes again is no mistake.
    source = read(write(tmp_path / "tevatron.parquet", [*rows, *rows], tevatron_schema(kind)))
    assert not bad_summary(source)
    corpus, relevant, triplets = texts(source)
    assert sorted(corpus) == ["A text a", "text b", "text c", "text d"]
    assert ("a", "A", "text a") in values(source.corpus())
    assert values(source.queries("train")) == [("1", "first"), ("2", "second")]
    assert values(source.qrels("train")) == [("1", "a", 1), ("2", "b", 1), ("2", "d", 1)]
    assert relevant == {("first", "A text a"), ("second", "text b"), ("second", "text d")}
    assert triplets == {("first", "A text a", "text b"), ("first", "A text a", "text c")}
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
        "tevatron.parquet, split train: 1 of 3 queries have no passage that is marked as an answer; left out."
    ]


def test_tevatron_with_a_corpus(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    write(corpus / "train.jsonl", [passage(name, "T") for name in "zyxdcba"])
    rows = write(tmp_path / "rows/train.jsonl", TEVATRON).parent
    source = read(rows, corpus=str(corpus))
    assert texts(source) == (
        [f"T text {name}" for name in "zyxdcba"],
        {("first", "T text a"), ("second", "T text b"), ("second", "T text d")},
        {("first", "T text a", "T text b"), ("first", "T text a", "T text c")},
    )
    before = source.fingerprint()
    write(corpus / "train.jsonl", [passage(name) for name in "zyxdcba"])
    assert read(rows, corpus=str(corpus)).fingerprint() != before
    pairs = write(tmp_path / "pairs.parquet", ANIMALS)
    refused(pairs, r"data\.corpus is for Tevatron's schema, and the columns query, positive", corpus=str(corpus))


IDS: Rows = [
    {"query_id": "1", "query": "first", "positive_document_ids": ["a"], "negative_document_ids": ["b", "c"]},
    {"query_id": "2", "query": "second", "positive_document_ids": ["b", "d"], "negative_document_ids": []},
    {"query_id": "3", "query": "third", "positive_document_ids": [], "negative_document_ids": ["a"]},
]


@pytest.mark.parametrize(
    ("suffix", "query", "own_id", "text"),
    [("parquet", "query", "_id", "text"), ("jsonl", "query_text", "docid", "contents")],
)
def test_tevatron_with_ids(tmp_path: Path, suffix: str, query: str, own_id: str, text: str) -> None:
    rows = [{query if key == "query" else key: value for key, value in row.items()} for row in IDS]
    rows = [{**row, "query_id": int(row["query_id"]), "answer": None} for row in rows]  # ids may be numbers
    path = write(tmp_path / f"rows.{suffix}", rows)
    corpus = write(tmp_path / f"corpus.{suffix}", [{own_id: name, text: f"text {name}"} for name in "zdcba"])
    source = read(path, corpus=str(corpus))
    assert texts(source) == (
        [f"text {name}" for name in "zdcba"],
        {("first", "text a"), ("second", "text b"), ("second", "text d")},
        {("first", "text a", "text b"), ("first", "text a", "text c")},
    )
    assert values(source.queries("train")) == [("1", "first"), ("2", "second")]
    assert sorted(values(source.qrels("train"))) == [("1", "a", 1), ("2", "b", 1), ("2", "d", 1)]
    assert not bad_summary(source)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_passage_that_the_corpus_lacks_is_missed(tmp_path: Path, suffix: str) -> None:
    lost = {**IDS[0], "query_id": "4", "positive_document_ids": ["x", "x"], "negative_document_ids": ["y"]}
    path = write(tmp_path / f"rows.{suffix}", [*IDS, lost, lost])
    refused(path, rf"positive_document_ids of .*rows\.{suffix} holds ids: set data\.corpus to")
    corpus = str(write(tmp_path / f"corpus.{suffix}", [passage(name) for name in "abcd"]))
    source = read(path, corpus=corpus)
    assert [row for row in values(source.qrels("train")) if row[0] == "4"] == [("4", "x", 1)]  # negatives: not judged
    assert not [row for row in values(source.triplets()) if row[0] == "4"]
    assert "4" in dict(values(source.queries("train")))
    assert not bad_summary(source)


def test_a_corpus_without_any_of_the_answers_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", IDS)
    source = read(path, corpus=write(tmp_path / "corpus.jsonl", [passage("c")]))
    check_refused(lambda: source.queries("train"), "No query of .* train, has a passage that is marked")


def test_what_comes_after_the_first_lines_is_read_too(tmp_path: Path) -> None:
    """Types are guessed from the first 1,000 lines: lists that are empty there, titles that begin later."""
    rows = [
        {"query_id": i, "query": f"q{i}", "positive_passages": [{"docid": i, "text": f"p{i}"}], "negative_passages": []}
        for i in range(1200)
    ]
    rows[1150]["negative_passages"] = [{"docid": "n", "title": "N", "text": "other"}]
    rows[1160]["query_id"] = "x1160"
    source = read(write(tmp_path / "rows.jsonl", rows))
    assert [row for row in values(source.corpus()) if row[0] == "n"] == [("n", "N", "other")]
    assert values(source.triplets()) == [("1150", "1150", "n")]
    assert ("x1160", "1160", 1) in values(source.qrels("train"))
    assert not bad_summary(source)


def beir(folder: Path) -> Callable[..., HuggingFace]:
    """A data set with configurations, and its judgements."""
    for name, title, letter, text in (("corpus", "T", "d", "text"), ("queries", "", "q", "ask")):
        rows = [{"_id": f"{letter}{i}", "title": title, "text": f"{text} {i}"} for i in range(4)]
        write(folder / f"animals/{name}/{name}.jsonl", rows)
    for split, lines in (("train", "q2\td1\t1\nq0\td0\t2\nq2\td3\t0\n"), ("test", "q1\td2\t1\n")):
        write_text(folder / f"animals-qrels/{split}.tsv", f"query-id\tcorpus-id\tscore\n{lines}")
    return partial(read, folder / "animals", qrels=str(folder / "animals-qrels"))


def test_beir(tmp_path: Path) -> None:
    make = beir(tmp_path)
    source = make()
    assert source.splits() == ("train", "test")
    assert everything(source) == [
        [(f"d{i}", "T", f"text {i}") for i in range(4)],
        [("q2", "d1", 1), ("q2", "d3", 0), ("q0", "d0", 2)],
        [("q2", "ask 2"), ("q0", "ask 0")],
        [("q1", "d2", 1)],
        [("q1", "ask 1")],
        [],
        [],
    ]
    fingerprints = {source.fingerprint()}
    for file in ("animals/corpus/corpus.jsonl", "animals/queries/queries.jsonl", "animals-qrels/test.tsv"):
        (tmp_path / file).write_text((tmp_path / file).read_text().replace("1", "2"))
        fingerprints.add(make().fingerprint())
    assert len(fingerprints) == 4
    write(tmp_path / "animals/queries/queries.jsonl", [{"_id": "q1", "words": "ask"}])
    check_refused(lambda: make().queries("test"), r"queries/queries\.jsonl has no column text, but _id, words")


@pytest.mark.parametrize(("line", "kind"), [("q9\td1\t1", "unknown query_id")])
def test_bad_rows_in_judgements(tmp_path: Path, caplog: pytest.LogCaptureFixture, line: str, kind: str) -> None:
    make = beir(tmp_path)
    expected, path = everything(make()), tmp_path / "animals-qrels/test.tsv"
    path.write_text(f"{path.read_text()}{line}\n")
    check_bad_row(make, expected, f"animals-qrels/test.tsv, row 3: {kind}", kind, caplog)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"negative_passages": [{**passage("b"), "text": "other"}]}, "passage id that another text had before"),
        ({"negative_passages": [{**passage("e"), "docid": None}]}, "missing passage id"),
    ],
)
def test_bad_rows_of_tevatron(tmp_path: Path, row: dict[str, Any], kind: str) -> None:
    row = {**tevatron_row(4, "fourth", [passage("a", "A")], []), **row}
    path = write(tmp_path / "rows.parquet", [*TEVATRON, row], tevatron_schema(LISTS_OF_STRUCTS))
    check_refused(lambda: texts(read(path)), rf"rows\.parquet, row 4: {kind}")
    source = read(path, max_bad_rows=0.5)
    assert sorted(texts(source)[0]) == ["A text a", "text b", "text c", "text d"]
    assert f"1 with {kind}" in bad_summary(source)


def test_lists_of_unequal_length_are_bad_rows(tmp_path: Path) -> None:
    lists = {"docid": ["a", "b"], "title": ["", ""], "text": ["x", "y"]}
    rows = [{"query_id": f"{i}", "query": "q", "positive_passages": lists} for i in range(3)]
    rows[1]["positive_passages"] = {**lists, "text": ["x"]}
    path = write(tmp_path / "rows.parquet", rows)
    refused(path, r"rows\.parquet, row 2: lists of unequal length")
    assert sorted(dict(values(read(path, max_bad_rows=0.5).queries("train")))) == ["0", "2"]


def test_passages_without_ids_are_refused(tmp_path: Path) -> None:
    """Each file of a split is looked at."""
    for name, field in (("a", "docid"), ("b", "title")):
        row = {"query_id": name, "query": "q", "positive_passages": [{field: "1", "text": "x"}]}
        write(tmp_path / f"train-{name}.parquet", [row])
    refused(tmp_path, r"train-b\.parquet has a column that does not hold what its name says")
