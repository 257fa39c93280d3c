"""Dual-encoder data through the real `datasets`, on local files of each schema."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from two_tower.data.huggingface import HuggingFace
from two_tower.data.reading.schemas import TevatronColumns, TextColumns, recognise
from two_tower.data.source import CORPUS, QRELS, QUERIES, TRIPLETS
from two_tower.errors import UserError

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


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The library keeps locks and downloads there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def write(path: Path, rows: Rows, schema: pa.Schema | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows), schema), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(table: Any) -> list[tuple]:  # noqa: ANN401
    if not isinstance(table, pa.Table):
        table = pa.Table.from_batches(table)
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def texts(source: HuggingFace, split: str = "train") -> tuple[list[str], set[tuple], set[tuple] | None]:
    """The corpus, the relevant pairs of a split and the triplets, as texts."""
    batches = list(source.corpus())
    assert all(batch.schema == CORPUS for batch in batches)
    passages = {name: f"{title} {text}".strip() for name, title, text in rows_of(batches)}
    assert len(passages) == sum(map(len, batches))
    queries = dict(rows_of(source.queries(split)))
    assert source.queries(split).schema == QUERIES
    assert source.qrels(split).schema == QRELS
    judged = rows_of(source.qrels(split))
    assert {query for query, _, _ in judged} == set(queries)
    relevant = {(queries[query], passages[name]) for query, name, grade in judged if grade > 0}
    triplets = source.triplets()
    if triplets is None:
        return list(passages.values()), relevant, None
    found = rows_of(pa.Table.from_batches(triplets, TRIPLETS))
    assert len(set(found)) == len(found)
    train = dict(rows_of(source.queries("train")))
    return list(passages.values()), relevant, {(train[q], passages[p], passages[n]) for q, p, n in found}


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("file_name", ["train.parquet", "train.jsonl", "data/train-00000-of-00001.parquet"])
def test_texts(tmp_path: Path, file_name: str, streaming: bool) -> None:
    write(tmp_path / "animals" / file_name, ANIMALS)
    source = HuggingFace(str(tmp_path / "animals"), dev_share=0, streaming=streaming)
    corpus, relevant, triplets = texts(source)
    assert sorted(corpus) == ["A lion.", "A river.", "A tiger.", "A tree."]
    assert relevant == PAIRS
    assert triplets == TRIPLES  # "A tiger." is a positive of "big cat" in another row
    assert [text for _, text in rows_of(source.queries("train"))] == ["big cat", "water", "oak"]
    assert {grade for _, _, grade in rows_of(source.qrels("train"))} == {1}  # negatives were not judged
    assert source.splits() == ("train",)
    assert source.name == "animals"
    assert source.bad_rows_summary() is None


@pytest.mark.parametrize(
    "names",
    [
        {"query": "anchor"},
        {"query": "question", "positive": "answer"},
        {"positive": "pos", "negative": "neg"},
        {"positive": "passage", "negative": "hard_negative"},
        {"negative": "negative_1"},
    ],
)
def test_columns_have_many_names(tmp_path: Path, names: dict[str, str]) -> None:
    renamed = [{names.get(key, key): value for key, value in row.items()} for row in ANIMALS]
    source = HuggingFace(
        str(write(tmp_path / "animals.jsonl", [{"score": 0.5, **row} for row in renamed])), dev_share=0
    )
    assert texts(source)[1:] == (PAIRS, TRIPLES)


def test_columns_may_be_given(tmp_path: Path) -> None:
    rows = [{"a": row["query"], "b": row["positive"], "negative": "Nothing.", "c": row["negative"]} for row in ANIMALS]
    path = str(write(tmp_path / "animals.parquet", rows))
    given: dict[str, Any] = {"query_column": "a", "positive_column": "b", "dev_share": 0}
    assert texts(HuggingFace(path, negative_columns=["c"], **given))[1:] == (PAIRS, TRIPLES)
    assert texts(HuggingFace(path, negative_columns=[], **given))[1:] == (PAIRS, None)
    assert ("oak", "A tree.", "Nothing.") in (texts(HuggingFace(path, **given))[2] or ())


def test_several_negatives_and_lists(tmp_path: Path) -> None:
    columns = [{"query": "q", "positive": "p", "negative_1": "n1", "negative_2": None, "negative_10": "n10"}]
    lists = [{"query": "q", "pos": ["p"], "neg": ["n1", "n10"]}, {"query": "r", "pos": ["s", "t"], "neg": []}]
    source = HuggingFace(str(write(tmp_path / "columns.parquet", columns)), dev_share=0)
    assert texts(source) == (["p", "n1", "n10"], {("q", "p")}, {("q", "p", "n1"), ("q", "p", "n10")})
    source = HuggingFace(str(write(tmp_path / "lists.parquet", lists)), dev_share=0)
    assert texts(source)[1] == {("q", "p"), ("r", "s"), ("r", "t")}
    assert texts(source)[2] == {("q", "p", "n1"), ("q", "p", "n10")}


def test_ids_are_the_same_everywhere(tmp_path: Path) -> None:
    source = HuggingFace(str(write(tmp_path / "animals.parquet", ANIMALS)), dev_share=0)
    other = HuggingFace(str(write(tmp_path / "one.jsonl", ANIMALS[3:])), dev_share=0)
    assert set(rows_of(other.corpus())) < set(rows_of(source.corpus()))
    assert set(rows_of(other.queries("train"))) < set(rows_of(source.queries("train")))
    assert rows_of(other.corpus()) == [("75625272dde3c3b7", "", "A tree.")]  # runs and their files rely on it


MANY: Rows = [{"query": f"{'Q' if i % 2 else 'q'}uery {i // 3}", "answer": f"text {i}"} for i in range(3000)]


def test_a_part_of_train_becomes_dev(tmp_path: Path) -> None:
    path = str(write(tmp_path / "many.parquet", MANY))
    source = HuggingFace(path, dev_share=0.2)
    assert source.splits() == ("train", "dev")
    train, dev = ({text for _, text in rows_of(source.queries(split))} for split in ("train", "dev"))
    assert train | dev == {row["query"] for row in MANY}
    assert not {text.lower() for text in train} & {text.lower() for text in dev}
    assert 0.15 < len(dev) / 2000 < 0.25
    pairs = {(row["query"], row["answer"]) for row in MANY}
    assert texts(source, "train")[1] == {pair for pair in pairs if pair[0] in train}
    assert texts(source, "dev")[1] == {pair for pair in pairs if pair[0] in dev}
    again, other = HuggingFace(path, dev_share=0.2), HuggingFace(path, dev_share=0.2, dev_seed=1)
    assert rows_of(again.queries("dev")) == rows_of(source.queries("dev")) != rows_of(other.queries("dev"))
    assert len({s.fingerprint() for s in (source, other, HuggingFace(path), HuggingFace(path, dev_share=0))}) == 4


def test_triplets_are_of_train_only(tmp_path: Path) -> None:
    rows = [{**row, "negative": "nothing"} for row in MANY]
    source = HuggingFace(str(write(tmp_path / "many.parquet", rows)), dev_share=0.5)
    _, relevant, triplets = texts(source)
    assert triplets == {(query, positive, "nothing") for query, positive in relevant}
    assert 0 < len(relevant) < len(rows)


@pytest.mark.parametrize("name", ["dev", "validation"])
def test_the_splits_of_the_data(tmp_path: Path, name: str) -> None:
    for split, rows in (("train", ANIMALS[:2]), (name, ANIMALS[3:]), ("test", ANIMALS[2:3])):
        write(tmp_path / f"{split}.jsonl", rows)
    source = HuggingFace(str(tmp_path))
    assert source.splits() == ("train", "dev", "test")
    assert texts(source, "dev")[1] == {("oak", "A tree.")}
    assert texts(source, "test")[1] == {("big cat", "A lion.")}
    assert texts(source)[2] == {("big cat", "A tiger.", "A river."), ("water", "A river.", "A tree.")}
    with pytest.raises(UserError, match="has no split 'dve': did you mean 'dev'"):
        source.qrels("dve")


def test_splits_may_be_given(tmp_path: Path) -> None:
    readme = "configs:\n- config_name: default\n  data_files:\n"
    for split, rows in (("small", ANIMALS[:2]), ("large", ANIMALS), ("matched", ANIMALS[3:])):
        write(tmp_path / f"{split}.jsonl", rows)
        readme += f"  - split: {split}\n    path: {split}.jsonl\n"
    (tmp_path / "README.md").write_text(f"---\n{readme}---\n")
    source = HuggingFace(str(tmp_path), splits={"train": "small", "dev": "matched"})
    assert source.splits() == ("train", "dev")
    assert len(source.queries("train")) == 2
    with pytest.raises(UserError, match=r"splits small, large, matched: choose with data\.splits\.train=SPLIT"):
        HuggingFace(str(tmp_path)).splits()
    with pytest.raises(UserError, match=r"data\.splits\.dev=match does not exist .* did you mean 'matched'"):
        HuggingFace(str(tmp_path), splits={"dev": "match"}).splits()


def test_configurations(tmp_path: Path) -> None:
    write(tmp_path / "pairs/train.parquet", ANIMALS[:2])
    write(tmp_path / "others/train.parquet", ANIMALS[3:])
    assert len(HuggingFace(str(tmp_path), "pairs", dev_share=0).queries("train")) == 2
    (tmp_path / "README.md").write_text("---\nconfigs:\n- config_name: named\n  data_files: others/*.parquet\n---\n")
    assert rows_of(HuggingFace(str(tmp_path), "named", dev_share=0).queries("train"))[0][1] == "oak"
    with pytest.raises(UserError, match="BuilderConfig 'nmed' not found"):
        HuggingFace(str(tmp_path), "nmed").splits()


def passage(name: str | int, title: str = "") -> dict[str, Any]:
    return {"docid": str(name), "title": title, "text": f"text {name}"}


TEVATRON: Rows = [
    {
        "query_id": "1",
        "query": "first",
        "positive_passages": [passage("a", "A")],
        "negative_passages": [passage("b"), passage("c")],
    },
    {"query_id": "2", "query": "second", "positive_passages": [passage("b"), passage("d")], "negative_passages": []},
    {"query_id": "3", "query": "third", "positive_passages": [], "negative_passages": [passage("a", "A")]},
]
LISTS_OF_STRUCTS = pa.list_(pa.struct([("docid", pa.string()), ("title", pa.string()), ("text", pa.string())]))
STRUCTS_OF_LISTS = pa.struct([(name, pa.list_(pa.string())) for name in ("docid", "title", "text")])


def tevatron_schema(kind: pa.DataType) -> pa.Schema:
    return pa.schema(
        [
            ("query_id", pa.string()),
            ("query", pa.string()),
            ("positive_passages", kind),
            ("negative_passages", kind),
        ]
    )


@pytest.mark.parametrize("kind", [LISTS_OF_STRUCTS, STRUCTS_OF_LISTS])
def test_tevatron(tmp_path: Path, kind: pa.DataType, caplog: pytest.LogCaptureFixture) -> None:
    rows = TEVATRON
    if kind == STRUCTS_OF_LISTS:
        rows = [
            {
                key: {name: [p[name] for p in value] for name in ("docid", "title", "text")}
                if isinstance(value, list)
                else value
                for key, value in row.items()
            }
            for row in TEVATRON
        ]
    source = HuggingFace(str(write(tmp_path / "tevatron.parquet", rows, tevatron_schema(kind))), dev_share=0)
    with caplog.at_level(logging.WARNING):
        corpus, relevant, triplets = texts(source)
    assert sorted(corpus) == ["A text a", "text b", "text c", "text d"]
    assert ("a", "A", "text a") in rows_of(source.corpus())
    assert rows_of(source.queries("train")) == [("1", "first"), ("2", "second")]
    assert rows_of(source.qrels("train")) == [("1", "a", 1), ("2", "b", 1), ("2", "d", 1)]
    assert relevant == {("first", "A text a"), ("second", "text b"), ("second", "text d")}
    assert triplets == {("first", "A text a", "text b"), ("first", "A text a", "text c")}
    assert [r.getMessage() for r in caplog.records] == [
        "tevatron.parquet, split train: 1 of 3 queries have no passage that is marked as an answer; left out."
    ]


def test_tevatron_with_a_corpus(tmp_path: Path) -> None:
    write(tmp_path / "corpus/train.jsonl", [passage(name, "T") for name in "zyxdcba"])
    rows = write(tmp_path / "rows/train.jsonl", TEVATRON)
    source = HuggingFace(str(rows.parent), corpus=str(tmp_path / "corpus"), dev_share=0)
    corpus, relevant, triplets = texts(source)
    assert corpus == [f"T text {name}" for name in "zyxdcba"]
    assert relevant == {("first", "T text a"), ("second", "T text b"), ("second", "T text d")}
    assert triplets == {("first", "T text a", "T text b"), ("first", "T text a", "T text c")}
    before = source.fingerprint()
    write(tmp_path / "corpus/train.jsonl", [passage(name, "T") for name in "zyxdcb"])
    source = HuggingFace(str(rows.parent), corpus=str(tmp_path / "corpus"), dev_share=0)
    assert source.fingerprint() != before
    with pytest.raises(UserError, match=r"rows train, row 1: unknown passage id \(a\)"):
        list(source.corpus())
    pairs = write(tmp_path / "pairs.parquet", ANIMALS)
    with pytest.raises(
        UserError, match=r"data\.corpus is for Tevatron's schema, and the columns query, positive, negat"
    ):
        list(HuggingFace(str(pairs), corpus=str(tmp_path / "corpus")).corpus())


def beir(folder: Path) -> tuple[str, str]:
    """A data set with configurations, and its judgements."""
    write(
        folder / "animals/corpus/corpus.jsonl", [{"_id": f"d{i}", "title": "T", "text": f"text {i}"} for i in range(4)]
    )
    write(
        folder / "animals/queries/queries.jsonl", [{"_id": f"q{i}", "title": "", "text": f"ask {i}"} for i in range(4)]
    )
    for split, lines in (("train", "q2\td1\t1\nq0\td0\t2\nq2\td3\t0\n"), ("test", "q1\td2\t1\n")):
        path = folder / f"animals-qrels/{split}.tsv"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"query-id\tcorpus-id\tscore\n{lines}")
    return str(folder / "animals"), str(folder / "animals-qrels")


def test_beir(tmp_path: Path) -> None:
    path, qrels = beir(tmp_path)
    source = HuggingFace(path, qrels=qrels, dev_share=0)
    assert rows_of(source.corpus()) == [(f"d{i}", "T", f"text {i}") for i in range(4)]
    assert source.splits() == ("train", "test")
    assert rows_of(source.queries("train")) == [("q2", "ask 2"), ("q0", "ask 0")]
    assert rows_of(source.qrels("train")) == [("q2", "d1", 1), ("q2", "d3", 0), ("q0", "d0", 2)]
    assert rows_of(source.qrels("test")) == [("q1", "d2", 1)]
    assert source.triplets() is None
    fingerprints = {source.fingerprint()}
    for file in ("animals/corpus/corpus.jsonl", "animals/queries/queries.jsonl", "animals-qrels/test.tsv"):
        (tmp_path / file).write_text((tmp_path / file).read_text().replace("1", "2"))
        fingerprints.add(HuggingFace(path, qrels=qrels, dev_share=0).fingerprint())
    assert len(fingerprints) == 4


def test_beir_without_a_column(tmp_path: Path) -> None:
    path, qrels = beir(tmp_path)
    write(tmp_path / "animals/queries/queries.jsonl", [{"_id": "q1", "query": "ask"}])
    with pytest.raises(UserError, match="queries train has no column text, but _id, query"):
        HuggingFace(path, qrels=qrels).queries("test")


@pytest.mark.parametrize(("line", "kind"), [("q9\td1\t1", "query without text"), ("q1\td9\t1", "unknown passage id")])
def test_unknown_ids_in_judgements_are_bad_rows(tmp_path: Path, line: str, kind: str) -> None:
    path, qrels = beir(tmp_path)
    with (tmp_path / "animals-qrels/test.tsv").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(UserError, match=f"animals-qrels test, row 2: {kind}"):
        HuggingFace(path, qrels=qrels).qrels("test")
    source = HuggingFace(path, qrels=qrels, max_bad_rows=0.5)
    assert rows_of(source.qrels("test")) == [("q1", "d2", 1)]
    assert f"1 with {kind}" in str(source.bad_rows_summary())


def test_a_score_that_is_no_number(tmp_path: Path) -> None:
    path, qrels = beir(tmp_path)
    (tmp_path / "animals-qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td2\thigh\n")
    with pytest.raises(UserError, match=r"animals-qrels test (has a column that does not hold|cannot be read)"):
        HuggingFace(path, qrels=qrels).qrels("test")


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"query": " "}, "query without text"),
        ({"query_id": None}, "missing query_id"),
        ({"query_id": "1"}, "query_id that another query had before"),
        ({"negative_passages": [{**passage("b"), "text": "other"}]}, "passage id that another text had before"),
        ({"negative_passages": [{"docid": "e", "title": "", "text": " "}]}, "empty passage"),
        ({"negative_passages": [{**passage("e"), "docid": None}]}, "missing passage id"),
    ],
)
def test_bad_rows_of_tevatron(tmp_path: Path, row: dict[str, Any], kind: str) -> None:
    row = {"query_id": "4", "query": "fourth", "positive_passages": [passage("a", "A")], "negative_passages": [], **row}
    path = write(tmp_path / "rows.parquet", [*TEVATRON, row], tevatron_schema(LISTS_OF_STRUCTS))
    with pytest.raises(UserError, match=rf"rows\.parquet train, row 4: {kind}"):
        texts(HuggingFace(str(path), dev_share=0))
    source = HuggingFace(str(path), dev_share=0, max_bad_rows=0.5)
    assert sorted(texts(source)[0]) == ["A text a", "text b", "text c", "text d"]
    assert f"1 with {kind}" in str(source.bad_rows_summary())


def test_a_repeated_row_is_no_mistake(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", [*TEVATRON, *TEVATRON], tevatron_schema(LISTS_OF_STRUCTS))
    source = HuggingFace(str(path), dev_share=0)
    assert len(source.qrels("train")) == 3
    assert source.bad_rows_summary() is None


def test_double_encoded_text_is_repaired_on_request(tmp_path: Path) -> None:
    row = {"query": "cafÃ©", "positive": ["itâ\x80\x99s"], "negative": "it’s"}
    path = str(write(tmp_path / "rows.parquet", [row]))
    source = HuggingFace(path, dev_share=0, repair_encoding=True)
    assert texts(source) == (["it’s"], {("café", "it’s")}, set())
    assert texts(HuggingFace(path, dev_share=0))[1] == {("cafÃ©", "itâ\x80\x99s")}
    assert source.fingerprint() != HuggingFace(path, dev_share=0).fingerprint()


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({"query_column": "qery"}, r"data\.query_column: the column qery of .* does not exist; did you mean 'query'"),
        ({"positive_column": "n"}, r"data\.positive_column: the column n of .* holds no text"),
        ({"negative_columns": ["query"]}, r"data\.negative_columns: the column query of .* or is used already"),
        ({"dev_share": 1}, r"data\.dev_share=1 must be a fraction"),
        ({"max_bad_rows": -1}, r"data\.max_bad_rows=-1 must be a fraction"),
        ({"corpus": ".", "qrels": "."}, "set one of them"),
    ],
)
def test_mistakes_in_the_settings(tmp_path: Path, settings: dict[str, Any], answer: str) -> None:
    path = str(write(tmp_path / "rows.parquet", [{**row, "n": 1} for row in ANIMALS]))
    with pytest.raises(UserError, match=answer):
        list(HuggingFace(path, **settings).corpus())


def test_an_unknown_schema_lists_the_columns_and_the_known_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", [{"premise": "a", "hypothesis": "b", "label": 1}])
    with pytest.raises(UserError) as error:
        HuggingFace(str(path)).triplets()
    for part in ("rows.parquet train", "premise (string), hypothesis (string), label (int64)", "Tevatron", "BEIR"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content"), [("train.jsonl", b'{"query": "a", "pos'), ("train.csv", b""), ("x.bin", b"")]
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_bytes(content)
    with pytest.raises(UserError, match=r"data train cannot be read|data cannot be read"):
        list(HuggingFace(str(tmp_path / "data")).corpus())
    if name == "x.bin":
        with pytest.raises(UserError, match=r"x\.bin is none of the formats that are read: \.parquet, \.json, \.jsonl"):
            HuggingFace(str(tmp_path / "data" / name)).splits()


def test_schemas_are_recognised() -> None:
    def schema(**columns: pa.DataType) -> pa.Schema:
        return pa.schema(list(columns.items()))

    text, many = pa.string(), pa.list_(pa.large_string())
    assert recognise(schema(query=text, positive=text), "x") == TextColumns("query", "positive", ())
    assert recognise(schema(id=pa.int64(), anchor=text, answers=many), "x") == TextColumns("anchor", "answers", ())
    found = recognise(schema(query=text, document=text, negatives=many, negative_id=pa.int64(), negated=text), "x")
    assert found == TextColumns("query", "document", ("negatives",))
    numbered = {f"negative_{i}": text for i in range(1, 4)}
    assert recognise(schema(question=text, pos=text, **numbered), "x").columns[2:] == tuple(numbered)
    columns = {"query_id": text, "query": text, "positive_passages": LISTS_OF_STRUCTS}
    assert recognise(schema(**columns), "x") == TevatronColumns(has_negatives=False)
    everything = schema(**columns, negative_passages=STRUCTS_OF_LISTS)
    assert recognise(everything, "x") == TevatronColumns(has_negatives=True)
    for first, second in product(("q", "sentence1"), ("label", "sentence2")):
        with pytest.raises(UserError):
            recognise(schema(**{first: text, second: text}), "x")
