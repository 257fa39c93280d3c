"""Dual-encoder data through the real `datasets`, on local files of each schema."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rows import bad_summary, check_bad_row, check_refused, everything, values, write_text
from rows import write_rows as write

from two_tower.data.base import CORPUS, QRELS, QUERIES, TRIPLETS
from two_tower.data.huggingface import HuggingFace
from two_tower.data.reading.schemas import TextColumns, recognize

pytestmark = pytest.mark.usefixtures("hub_cache")
Rows = Sequence[dict[str, Any]]

ANIMALS: Rows = [
    {"query": "big cat", "positive": "A tiger.", "negative": "A river."},
    {"query": "water", "positive": "A river.", "negative": "A tree."},
    {"query": "big cat", "positive": "A lion.", "negative": "A tiger."},
    {"query": "oak", "positive": "A tree.", "negative": None},
]
# The positives and, by query, the passages that are not.
PAIRS = {("big cat", "A tiger."), ("water", "A river."), ("big cat", "A lion."), ("oak", "A tree.")}
TRIPLES = {("big cat", "A tiger.", "A river."), ("big cat", "A lion.", "A river."), ("water", "A river.", "A tree.")}


def read(path: Path, **settings: Any) -> HuggingFace:  # noqa: ANN401
    return HuggingFace(str(path), **{"dev_share": 0, **settings})


def refused(path: Path, message: str, **settings: Any) -> None:  # noqa: ANN401
    check_refused(lambda: list(HuggingFace(str(path), **settings).corpus()), message)


def texts(source: HuggingFace, split: str = "train") -> tuple[list[str], set[tuple], set[tuple] | None]:
    """The corpus, the relevant pairs of a split and the triplets, as texts."""
    corpus = values(source.corpus(), CORPUS)
    passages = {name: f"{title} {text}".strip() for name, title, text in corpus}
    assert len(passages) == len(corpus)
    queries, judged = dict(values(source.queries(split), QUERIES)), values(source.qrels(split), QRELS)
    assert {query for query, _, _ in judged} == set(queries)
    relevant = {(queries[query], passages[name]) for query, name, grade in judged if grade > 0}
    if source.triplets() is None:
        return list(passages.values()), relevant, None
    found = values(source.triplets(), TRIPLETS)
    assert len(set(found)) == len(found)
    train = dict(values(source.queries("train")))
    return list(passages.values()), relevant, {(train[q], passages[p], passages[n]) for q, p, n in found}


@pytest.mark.parametrize(
    ("file", "streaming"),
    [("train.parquet", True), ("train.jsonl", True), ("data/train-00000-of-00001.parquet", False)],
)
def test_texts(tmp_path: Path, file: str, streaming: bool) -> None:
    write(tmp_path / "animals" / file, ANIMALS)
    source = read(tmp_path / "animals", streaming=streaming)
    corpus, *found = texts(source)
    assert sorted(corpus) == ["A lion.", "A river.", "A tiger.", "A tree."]
    assert found == [PAIRS, TRIPLES]  # "A tiger." is a positive of "big cat" in another row
    assert [text for _, text in values(source.queries("train"))] == ["big cat", "water", "oak"]
    assert {grade for _, _, grade in values(source.qrels("train"))} == {1}  # negatives were not judged
    assert (source.splits(), source.name, bad_summary(source)) == (("train",), "animals", "")
    before = source.fingerprint()
    write(tmp_path / "animals" / file, ANIMALS[:2])
    assert read(tmp_path / "animals").fingerprint() != before


def test_columns_may_be_given(tmp_path: Path) -> None:
    rows = [{"a": row["query"], "b": row["positive"], "negative": "Nothing.", "c": row["negative"]} for row in ANIMALS]
    given = partial(read, write(tmp_path / "animals.parquet", rows), query_column="a", positive_column="b")
    assert texts(given(negative_columns=["c"]))[1:] == (PAIRS, TRIPLES)
    assert texts(given(negative_columns=[]))[1:] == (PAIRS, None)
    assert ("oak", "A tree.", "Nothing.") in (texts(given())[2] or ())


def test_several_negatives_and_lists(tmp_path: Path) -> None:
    columns = {"query": "q", "positive": "p", "negative_1": "n1", "negative_2": None, "negative_10": "n10"}
    for row in (columns, {"query": "q", "pos": ["p"], "neg": ["n1", "n10"]}):
        found = texts(read(write(tmp_path / "a.parquet", [row])))
        assert found == (["p", "n1", "n10"], {("q", "p")}, {("q", "p", "n1"), ("q", "p", "n10")})


def test_ids_are_the_same_everywhere(tmp_path: Path) -> None:
    one, more = (read(write(tmp_path / name, ANIMALS[i:])) for name, i in (("one.jsonl", 3), ("more.parquet", 0)))
    assert values(one.corpus()) == [("75625272dde3c3b7", "", "A tree.")]  # runs and their files rely on it
    assert values(one.corpus())[0] in values(more.corpus())
    assert values(one.queries("train"))[0] in values(more.queries("train"))


MANY: Rows = [
    {"query": f"{'Q' if i % 2 else 'q'}uery {i // 3}", "answer": f"text {i}", "negative": "nothing"}
    for i in range(3000)
]


def test_a_part_of_train_becomes_dev(tmp_path: Path) -> None:
    path = write(tmp_path / "many.parquet", MANY)
    source = read(path, dev_share=0.2)
    assert source.splits() == ("train", "dev")
    train, dev = ({text for _, text in values(source.queries(split))} for split in ("train", "dev"))
    assert train | dev == {row["query"] for row in MANY}
    assert not {text.lower() for text in train} & {text.lower() for text in dev}
    assert 0.15 < len(dev) / 2000 < 0.25
    pairs = {(row["query"], row["answer"]) for row in MANY}
    for split, queries in (("train", train), ("dev", dev)):
        assert texts(source, split)[1] == {pair for pair in pairs if pair[0] in queries}
    assert texts(source)[2] == {(*pair, "nothing") for pair in pairs if pair[0] in train}  # triplets are of train only
    again, other = read(path, dev_share=0.2), read(path, dev_share=0.2, dev_seed=1)
    assert values(again.queries("dev")) == values(source.queries("dev")) != values(other.queries("dev"))
    assert len({s.fingerprint() for s in (source, other, HuggingFace(str(path)), read(path))}) == 4


def test_the_splits_of_the_data(tmp_path: Path) -> None:
    for split, rows in (("train", ANIMALS[:2]), ("validation", ANIMALS[3:]), ("test", ANIMALS[2:3])):
        write(tmp_path / f"{split}.jsonl", rows)
    source = HuggingFace(str(tmp_path))
    assert source.splits() == ("train", "dev", "test")
    assert texts(source, "dev")[1] == {("oak", "A tree.")}
    assert texts(source, "test")[1] == {("big cat", "A lion.")}
    assert texts(source)[2] == {("big cat", "A tiger.", "A river."), ("water", "A river.", "A tree.")}
    check_refused(lambda: source.qrels("dve"), "has no split 'dve': did you mean 'dev'")
    write(tmp_path / "validation.jsonl", [{"query": "oak", "positive": "A tree."}])  # a split may lack the negatives
    assert texts(HuggingFace(str(tmp_path)), "dev")[1] == {("oak", "A tree.")}


def test_splits_and_configurations_may_be_given(tmp_path: Path) -> None:
    readme = "configs:\n- {config_name: named, data_files: one.jsonl}\n- config_name: default\n  data_files:\n"
    for name, rows in (("two", ANIMALS[:2]), ("all", ANIMALS), ("one", ANIMALS[3:])):
        write(tmp_path / f"{name}.jsonl", rows)
        readme += f"  - {{split: {name}, path: {name}.jsonl}}\n"
    write_text(tmp_path / "README.md", f"---\n{readme}---\n")
    source = HuggingFace(str(tmp_path), splits={"train": "two", "dev": "one"})
    assert source.splits() == ("train", "dev")
    assert len(source.queries("train")) == 2
    refused(tmp_path, r"splits two, all, one: choose with data\.splits\.train=SPLIT")
    refused(tmp_path, r"data\.splits\.dev=tow does not exist .* did you mean 'two'", splits={"dev": "tow"})
    assert values(read(tmp_path, config="named").queries("train"))[0][1] == "oak"
    refused(tmp_path, "BuilderConfig 'nmed' not found", config="nmed")


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
    path = write(tmp_path / f"rows.{suffix}", [*IDS, {**IDS[0], "query_id": "4", "positive_document_ids": ["x"]}])
    refused(path, rf"positive_document_ids of .*rows\.{suffix} holds ids: set data\.corpus to")
    corpus = str(write(tmp_path / f"corpus.{suffix}", [passage(name) for name in "abcd"]))
    source = read(path, corpus=corpus)
    assert ("4", "x", 1) in values(source.qrels("train"))
    assert "4" in dict(values(source.queries("train")))
    assert not bad_summary(source)


@pytest.mark.parametrize(
    ("line", "kind"),
    [(b"null", "malformed JSON"), (b'{"query": "a", "positive": ["b"]}', "field that is no text"),
     (b'{"positive": "b"}', "query without text"), (b'{"query": "a", "positive": ""}', "empty passage")],
)  # fmt: skip
def test_bad_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture, line: bytes, kind: str) -> None:
    lines = [json.dumps(row).encode() for row in ANIMALS]
    expected = everything(read(write(tmp_path / "good.jsonl", ANIMALS)))
    path = write_text(tmp_path / "animals" / "train.jsonl.gz", b"\n".join([*lines[:2], line, *lines[2:]]) + b"\n")
    check_bad_row(partial(read, path.parent), expected, f"{path}, row 3: {kind}", kind, caplog)


def test_each_file_of_lines_has_its_own_limit_and_row_numbers(tmp_path: Path) -> None:
    for part, count in enumerate((1, 0, 2)):
        rows = [{"query": f"q{part} {i}", "positive": f"p {i}"} for i in range(1000)]
        path = write(tmp_path / f"train-{part}.jsonl", rows)
        path.write_text(path.read_text() + "{\n" * count)
    message = r"train-2\.jsonl, row 1001: malformed JSON \(.*\); 2 of 1002 rows are bad"
    refused(tmp_path, message, dev_share=0)
    source = read(tmp_path, max_bad_rows=0.002)
    assert len(source.queries("train")) == 3000
    assert sorted(Path(place).name for place in source.bad_rows) == [f"train-{part}.jsonl" for part in range(3)]


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


def test_a_csv_file_holds_texts_and_a_json_file_may_be_one_list(tmp_path: Path) -> None:
    path = write_text(tmp_path / "train.csv", 'query,positive\nNA,"None, or\nnull"\n1984,2001\n')
    assert texts(read(tmp_path))[1] == {("NA", "None, or\nnull"), ("1984", "2001")}
    path.unlink()
    (tmp_path / "train.json").write_text(json.dumps(ANIMALS, indent=1))
    assert texts(read(tmp_path))[1:] == (PAIRS, TRIPLES)


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
    check_refused(lambda: texts(read(path)), rf"rows\.parquet train, row 4: {kind}")
    source = read(path, max_bad_rows=0.5)
    assert sorted(texts(source)[0]) == ["A text a", "text b", "text c", "text d"]
    assert f"1 with {kind}" in bad_summary(source)


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({"query_column": "qery"}, r"data\.query_column: the column qery of .* does not exist; did you mean 'query'"),
        ({"positive_column": "n"}, r"data\.positive_column: the column n of .* holds no text"),
        ({"negative_columns": ["query"]}, r"data\.negative_columns: the column query of .* or is used already"),
        ({"dev_share": 1}, r"dev_share=1 must be a fraction"),
        ({"corpus": ".", "qrels": "."}, "set one of them"),
    ],
)
def test_mistakes_in_the_settings(tmp_path: Path, settings: dict[str, Any], answer: str) -> None:
    refused(write(tmp_path / "rows.parquet", [{**row, "n": 1} for row in ANIMALS]), answer, **settings)


def test_an_unknown_schema_lists_the_columns_and_the_known_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", [{"premise": "a", "hypothesis": "b", "label": 1}])
    columns = r"premise \(string\), hypothesis \(string\), label \(int64\)"
    check_refused(HuggingFace(str(path)).triplets, f"rows.parquet train.*{columns}.*Tevatron.*BEIR")


@pytest.mark.parametrize(
    ("name", "content", "answer"),
    [
        ("train.jsonl", b'{"query": "a", "pos', r"train\.jsonl holds no JSON object in its first lines"),
        ("train.csv", b"", r"train\.csv is empty"),
        ("train.parquet", b"PAR1", r"train\.parquet cannot be read"),
        ("train.json", b'[{"query": "a"', r"train\.json, row 1: malformed JSON \(.*\), after which"),
        ("x.bin", b"", r"cannot be read"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, answer: str) -> None:
    refused(write_text(tmp_path / name, content).parent, answer)


@pytest.mark.parametrize("name", ["train.jsonl.gz", "train.parquet", "train.csv.gz"])
def test_a_cut_file_is_named(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / name, [{"query": f"query {i}", "positive": f"text {i * i}"} for i in range(4000)])
    path.write_bytes(path.read_bytes()[:-200])
    refused(tmp_path, f"{name} cannot be read")
    assert capfd.readouterr().err == ""  # the library does not say it again


@pytest.mark.parametrize(
    "names", ["anchor positive", "question answer negative", "query passage hard_negative", "query positive negative_1"]
)
def test_columns_of_texts_are_known_by_their_names(names: str) -> None:
    columns = pa.schema(dict.fromkeys(names.split(), pa.string()))
    others = [pa.field("negative_id", pa.int64()), pa.field("negated", pa.string())]
    assert recognize(pa.unify_schemas([columns, pa.schema(others)]), "x") == TextColumns(columns)


def test_large_lists_are_read_as_lists() -> None:
    schema = pa.schema({"query": pa.string(), "answers": pa.list_(pa.large_string())})
    assert recognize(schema, "x") == TextColumns(schema.set(1, pa.field("answers", pa.list_(pa.string()))))
