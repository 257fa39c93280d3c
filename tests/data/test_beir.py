"""BEIR folders: whole ones, ones with every kind of bad row, and what a mistake is answered with."""

import gzip
import json
import shutil
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from rows import bad_summary, check_bad_row, everything, values

from two_tower.data.base import CORPUS, QRELS, QUERIES, TRIPLETS
from two_tower.data.beir import Beir
from two_tower.errors import UserError

SAMPLES = Path(__file__).parents[3] / "shared" / "data"

FILES = {
    "corpus.jsonl": '{"_id": "d1", "title": "Tiger", "text": "A big cat."}\n'
    '{"_id": "d2", "text": "A river."}\n'
    '{"_id": 3, "title": null, "text": "A tree."}\n',
    "queries.jsonl": '{"_id": "q2", "text": "cat with stripes"}\n'
    '{"_id": "q1", "text": "water"}\n'
    '{"_id": "q3", "text": "oak"}\n',
    "qrels/train.tsv": "query-id\tcorpus-id\tscore\nq1\td2\t1\nq2\td1\t2\nq2\td2\t0\n",
    "qrels/dev.tsv": "q3\t3\t1\n",
    "triples.tsv": "query-id\tpos-id\tneg-id\nq2\td1\td2\nq2\td1\t3\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "animals"
    (path / "qrels").mkdir(parents=True)
    for name, content in FILES.items():
        (path / name).write_text(content)
    return path


def compress(folder: Path) -> None:
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


@pytest.mark.parametrize("compressed", [False, True])
def test_a_whole_folder(folder: Path, compressed: bool) -> None:
    if compressed:
        compress(folder)
    source = Beir(str(folder))
    assert values(source.queries("dev")) == [("q3", "oak")]  # before the corpus is read
    batches = list(source.corpus())
    assert all(batch.schema == CORPUS for batch in batches)
    assert values(batches) == [("d1", "Tiger", "A big cat."), ("d2", "", "A river."), ("3", "", "A tree.")]
    assert values(list(source.search_corpus())) == values(batches)
    assert source.name == "animals"
    assert source.splits() == ("train", "dev")
    assert source.qrels("train").schema == QRELS
    assert values(source.qrels("train")) == [("q1", "d2", 1), ("q2", "d1", 2), ("q2", "d2", 0)]
    assert source.queries("train").schema == QUERIES
    assert values(source.queries("train")) == [("q2", "cat with stripes"), ("q1", "water")]
    assert values(source.qrels("dev")) == [("q3", "3", 1)]
    assert values(source.queries("dev")) == [("q3", "oak")]
    triplets = source.triplets()
    assert triplets is not None
    table = pa.Table.from_batches(triplets)
    assert table.schema == TRIPLETS
    assert values(table) == [("q2", "d1", "d2"), ("q2", "d1", "3")]
    assert not bad_summary(source)


@pytest.mark.parametrize("file_name", ["validation.tsv", "val.tsv"])
def test_dev_may_be_called_validation(folder: Path, file_name: str) -> None:
    (folder / "qrels/dev.tsv").rename(folder / "qrels" / file_name)
    assert Beir(str(folder)).splits() == ("train", "dev")
    assert len(Beir(str(folder)).qrels("dev")) == 1


BAD_LINES = [
    ("corpus.jsonl", b'{"_id": "d9", "text": "x"', "malformed JSON"),
    ("corpus.jsonl", b"null", "malformed JSON"),
    ("corpus.jsonl", b'{"title": "T", "text": "x"}', "missing field"),
    ("corpus.jsonl", b'{"_id": "d9", "text": "\xff"}', "invalid UTF-8"),
    ("corpus.jsonl", b'{"_id": "d9", "title": "", "text": " "}', "empty title and text"),
    ("corpus.jsonl", b'{"_id": "d1", "title": "Tiger", "text": "Dog."}', "id that another text had before"),
    ("queries.jsonl", b"{", "malformed JSON"),
    ("queries.jsonl", b'{"_id": "q9", "text": ""}', "empty text"),
    ("queries.jsonl", b'{"_id": "q2", "text": "other"}', "id that another text had before"),
    ("qrels/train.tsv", b"q9\td1\t1", "unknown query_id"),
    ("qrels/train.tsv", b"q1\td9\t1", "unknown document_id"),
    ("qrels/train.tsv", b"q1\td1", "wrong number of columns"),
    ("qrels/train.tsv", b"q1\td1\thigh", "value that is no whole number"),
    ("qrels/train.tsv", b"q2\td1\t1", "judgement that contradicts an earlier one"),
    ("triples.tsv", b"q2\td1", "wrong number of columns"),
    ("triples.tsv", b"q2\td9\td1", "unknown positive_id"),
    ("triples.tsv", b"q2\td1\td9", "unknown negative_id"),
]


@pytest.mark.parametrize(("file_name", "line", "kind"), BAD_LINES)
def test_a_bad_row_is_an_error_that_names_it_or_is_counted_and_left_out(
    folder: Path, caplog: pytest.LogCaptureFixture, file_name: str, line: bytes, kind: str
) -> None:
    expected = everything(Beir(str(folder)))
    content = (folder / file_name).read_bytes()
    (folder / file_name).write_bytes(content + line + b"\n")
    number = content.count(b"\n") + 1
    message = f"{folder / file_name}, row {number}: {kind}"
    check_bad_row(partial(Beir, str(folder)), expected, message, kind, caplog)


@pytest.mark.parametrize("file_name", [name for name in FILES if name != "triples.tsv"])
def test_an_equal_row_twice_is_no_mistake(folder: Path, file_name: str) -> None:
    expected = everything(Beir(str(folder)))
    path = folder / file_name
    path.write_text(path.read_text() + FILES[file_name].splitlines()[-1] + "\n")
    source = Beir(str(folder))
    assert everything(source) == expected
    assert not bad_summary(source)


def test_one_bad_row_in_a_thousand_is_left_out(folder: Path) -> None:
    lines = [json.dumps({"_id": f"d{i}", "text": f"text {i}"}) for i in range(1, 1000)]
    (folder / "corpus.jsonl").write_text("\n".join([*lines, "{"]))
    source = Beir(str(folder))
    assert sum(map(len, source.corpus())) == 999
    (folder / "corpus.jsonl").write_text("\n".join([*lines[1:], "{"]))
    with pytest.raises(UserError, match=r"row 999: malformed JSON.*1 of 999 rows"):
        list(source.corpus())


@pytest.mark.parametrize(
    ("split", "answer"),
    [("tset", "valid: dev, train"), ("validation", "valid: "), ("dve", "did you mean 'dev'")],
)
def test_an_unknown_split_is_answered_with_the_nearest(folder: Path, split: str, answer: str) -> None:
    for method in (Beir(str(folder)).qrels, Beir(str(folder)).queries):
        with pytest.raises(UserError, match=f"no split '{split}'.*{answer}"):
            method(split)


@pytest.mark.parametrize("file_name", ["corpus.jsonl", "queries.jsonl"])
def test_a_missing_file_is_named(folder: Path, file_name: str) -> None:
    (folder / file_name).unlink()
    with pytest.raises(UserError, match=file_name):
        Beir(str(folder)).queries("dev")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere is no folder: data\.path must"):
        Beir(str(tmp_path / "nowhere"))


def test_a_senseless_limit_is_refused_before_anything_is_read(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"max_bad_rows=3 "):
        Beir(str(folder), max_bad_rows=3)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_corpus_is_an_error(folder: Path, content: str) -> None:
    (folder / "corpus.jsonl").write_text(content)
    with pytest.raises(UserError, match=r"corpus\.jsonl holds no passage"):
        list(Beir(str(folder)).corpus())


def test_a_split_without_judgements_is_an_error(folder: Path) -> None:
    (folder / "qrels/dev.tsv").write_text("query-id\tcorpus-id\tscore\n")
    with pytest.raises(UserError, match=r"dev\.tsv holds no judgement"):
        Beir(str(folder)).qrels("dev")


def test_a_corpus_alone_is_enough_for_reading_passages(folder: Path) -> None:
    for name in ("queries.jsonl", "triples.tsv"):
        (folder / name).unlink()
    shutil.rmtree(folder / "qrels")
    source = Beir(str(folder))
    assert len(values(list(source.corpus()))) == 3
    assert source.splits() == ()
    assert source.triplets() is None
    assert source.estimated_size() == 3


def test_a_cut_file_is_named(folder: Path) -> None:
    compress(folder)
    path = folder / "corpus.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"corpus\.jsonl\.gz cannot be read"):
        list(Beir(str(folder)).corpus())


@pytest.mark.parametrize("file_name", FILES)
def test_the_fingerprint_sees_every_byte_of_every_file(folder: Path, file_name: str) -> None:
    before = Beir(str(folder)).fingerprint()
    assert Beir(str(folder)).fingerprint() == before
    content = (folder / file_name).read_bytes()
    (folder / file_name).write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    assert Beir(str(folder)).fingerprint() != before


def test_a_moved_folder_keeps_its_fingerprint(folder: Path) -> None:
    before = Beir(str(folder)).fingerprint()
    assert Beir(str(folder.rename(folder.with_name("elsewhere")))).fingerprint() == before


REAL: list[tuple[str, int, dict[str, tuple[int, int]], int | None]] = [
    ("msmarco-small", 31_058, {"train": (11_985, 12_685), "dev": (606, 639), "test": (3_490, 3_490)}, None),
    ("msmarco-v11", 5_055, {"train": (494, 4_165), "dev": (106, 892)}, 4_735),
    ("medquad", 16_349, {"train": (13_796, 15_765), "dev": (500, 591)}, None),
]


@pytest.mark.parametrize(("name", "passages", "judged", "triplets"), REAL)
def test_real_collections_are_read_whole(
    name: str, passages: int, judged: dict[str, tuple[int, int]], triplets: int | None
) -> None:
    if not (SAMPLES / name).is_dir():
        pytest.skip(f"the sample {name} is not here")
    source = Beir(str(SAMPLES / name))
    table = pa.Table.from_batches(source.corpus())
    assert len(set(table["id"].to_pylist())) == len(table) == passages
    assert table["title"].null_count == table["text"].null_count == 0
    assert {s: (len(source.queries(s)), len(source.qrels(s))) for s in source.splits()} == judged
    explicit = source.triplets()
    assert (explicit and sum(map(len, explicit))) == triplets
    assert not bad_summary(source)
