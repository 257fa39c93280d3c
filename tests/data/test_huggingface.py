"""Dual-encoder data through the real `datasets`, on local files of each schema."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hub_rows import ANIMALS, Rows, read, refused, texts
from rows import bad_summary, check_bad_row, check_refused, everything, values, write_text
from rows import write_rows as write

from two_tower.data.huggingface import HuggingFace
from two_tower.data.reading.schemas import TextColumns, recognize

pytestmark = pytest.mark.usefixtures("hub_cache")
# The positives and, by query, the passages that are not.
PAIRS = {("big cat", "A tiger."), ("water", "A river."), ("big cat", "A lion."), ("oak", "A tree.")}
TRIPLES = {("big cat", "A tiger.", "A river."), ("big cat", "A lion.", "A river."), ("water", "A river.", "A tree.")}


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
    for part, count in enumerate((1, 0, 3)):
        rows = [{"query": f"q{part} {i}", "positive": f"p {i}"} for i in range(1000)]
        path = write(tmp_path / f"train-{part}.jsonl", rows)
        path.write_text(path.read_text() + "{\n" * count)
    message = r"train-2\.jsonl, row 1001: malformed JSON \(.*\); 3 of 2003 rows are bad"
    refused(tmp_path, message, dev_share=0)
    source = read(tmp_path, max_bad_rows=0.002)
    assert len(source.queries("train")) == 3000
    assert sorted(Path(place).name for place in source.bad_rows) == [f"train-{part}.jsonl" for part in range(3)]


def test_a_csv_file_holds_texts_and_a_json_file_may_be_one_list(tmp_path: Path) -> None:
    path = write_text(tmp_path / "train.csv", 'query,positive\nNA,"None, or\nnull"\n1984,2001\n')
    assert texts(read(tmp_path))[1] == {("NA", "None, or\nnull"), ("1984", "2001")}
    path.unlink()
    (tmp_path / "train.json").write_text(json.dumps(ANIMALS, indent=1))
    assert texts(read(tmp_path))[1:] == (PAIRS, TRIPLES)


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


@pytest.mark.parametrize("name", ["msmarco-passage", "other"])
def test_a_loading_script_beside_the_files_is_not_run(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / name
    write(folder / "train.jsonl.gz", ANIMALS[:2])
    write(folder / "dev.jsonl.gz", ANIMALS[3:])
    for name, text in (("msmarco-passage.py", "raise SystemExit\n"), ("README.md", ""), ("dataset_infos.json", "{}")):
        write_text(folder / name, text)
    source = HuggingFace(folder)
    assert source.splits() == ("train", "dev")
    assert texts(source, "dev")[1] == {("oak", "A tree.")}
    assert len(source.queries("train")) == 2
    assert source.fingerprint()
    assert not caplog.text + "".join(capfd.readouterr())  # no library says anything


@pytest.mark.parametrize("column", ["query_id", "positive"])
@pytest.mark.parametrize("value", [1.5, True])
def test_fractions_are_no_ids_and_no_texts(tmp_path: Path, column: str, value: object) -> None:
    row = {"query_id": "1", "query": "a", "positive_passages": [{"docid": "b", "title": "", "text": "c"}]}
    row = {**row, "query_id": value} if column == "query_id" else {"query": "a", "positive": value}
    for kind in ("parquet", "jsonl"):
        refused(write(tmp_path / f"a.{kind}", [row]), "column query_id holds|has the columns|field that is no text")


def test_fractions_are_no_grades(tmp_path: Path) -> None:
    for kind in ("corpus", "queries"):
        write(tmp_path / f"set/{kind}/{kind}.jsonl", [{"_id": "1", "text": "x"}])
    path = write(tmp_path / "qrels/train.parquet", [{"query-id": "1", "corpus-id": "1", "score": 0.5}])
    refused(tmp_path / "set", "grades must be whole numbers", qrels=path.parent)
    write(path, [{"query-id": "1", "corpus-id": "1", "score": 1.0}])
    assert values(HuggingFace(tmp_path / "set", qrels=path.parent, dev_share=0).qrels("train")) == [("1", "1", 1)]
