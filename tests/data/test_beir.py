"""BEIR folders: whole ones, every kind of bad row, and mistakes."""

import gzip
import json
import shutil
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from rows import bad_summary, check_bad_row, check_refused, check_split_refused, everything, values

from two_tower.data.beir import Beir

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
    dev_queries = [("q3", "oak")]
    assert values(source.queries("dev")) == dev_queries  # before the corpus is read
    passages, *found = everything(source)
    assert passages == [("d1", "Tiger", "A big cat."), ("d2", "", "A river."), ("3", "", "A tree.")]
    assert values(list(source.search_corpus())) == passages
    assert source.name == "animals"
    assert source.splits() == ("train", "dev")
    train = [("q1", "d2", 1), ("q2", "d1", 2), ("q2", "d2", 0)]
    train_queries = [("q2", "cat with stripes"), ("q1", "water")]
    triplets = [("q2", "d1", "d2"), ("q2", "d1", "3")]
    assert found == [train, train_queries, [("q3", "3", 1)], dev_queries, triplets, []]
    assert not bad_summary(source)


def test_dev_may_be_called_validation(folder: Path) -> None:
    for old, new in (("dev", "validation"), ("validation", "val")):
        (folder / f"qrels/{old}.tsv").rename(folder / f"qrels/{new}.tsv")
        assert Beir(str(folder)).splits() == ("train", "dev")
        assert len(Beir(str(folder)).qrels("dev")) == 1


@pytest.mark.parametrize(
    ("file", "line", "kind"),
    [
        ("corpus.jsonl", b"null", "malformed JSON"),
        ("corpus.jsonl", b'{"_id": "d9", "title": "", "text": " "}', "empty title and text"),
        ("corpus.jsonl", b'{"_id": "d1", "title": "Tiger", "text": "Dog."}', "id that another text had before"),
        ("queries.jsonl", b'{"_id": "q9", "text": ""}', "empty text"),
        ("queries.jsonl", b'{"_id": "q2", "text": "other"}', "id that another text had before"),
        ("qrels/train.tsv", b"q9\td1\t1", "unknown query_id"),
        ("qrels/train.tsv", b"q1\td9\t1", "unknown document_id"),
        ("qrels/train.tsv", b"q1\td1\thigh", "value that is no whole number"),
        ("qrels/train.tsv", b"q2\td1\t1", "judgement that contradicts an earlier one"),
        ("triples.tsv", b"q2\td1", "wrong number of columns"),
        ("triples.tsv", b"q2\td9\td1", "unknown positive_id"),
        ("triples.tsv", b"q2\td1\td9", "unknown negative_id"),
    ],
)
def test_bad_rows(folder: Path, caplog: pytest.LogCaptureFixture, file: str, line: bytes, kind: str) -> None:
    expected = everything(Beir(str(folder)))
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content + line + b"\n")
    number = content.count(b"\n") + 1
    message = f"{folder / file}, row {number}: {kind}"
    check_bad_row(partial(Beir, str(folder)), expected, message, kind, caplog)


def test_an_equal_row_twice_is_no_mistake(folder: Path) -> None:
    expected = everything(Beir(str(folder)))
    for file in FILES.keys() - {"triples.tsv"}:
        (folder / file).write_text(FILES[file] + FILES[file].splitlines()[-1] + "\n")
    source = Beir(str(folder))
    assert everything(source) == expected
    assert not bad_summary(source)


def test_one_bad_row_in_a_thousand_is_left_out(folder: Path) -> None:
    lines = [json.dumps({"_id": f"d{i}", "text": f"text {i}"}) for i in range(1, 1000)]
    (folder / "corpus.jsonl").write_text("\n".join([*lines, "{"]))
    source = Beir(str(folder))
    assert sum(map(len, source.corpus())) == 999
    (folder / "corpus.jsonl").write_text("\n".join([*lines[1:], "{"]))
    check_refused(lambda: list(source.corpus()), r"row 999: malformed JSON.*1 of 999 rows")


def test_mistakes_are_named(folder: Path) -> None:
    check_split_refused(Beir(str(folder)), "tset", "no split 'tset': valid: dev, train")
    check_split_refused(Beir(str(folder)), "dve", "no split 'dve': did you mean 'dev'")
    check_refused(lambda: Beir(str(folder / "nowhere")), r"nowhere is no folder: data\.path must")
    check_refused(lambda: Beir(str(folder), max_bad_rows=3), r"max_bad_rows=3 ")
    for file in ("queries.jsonl", "corpus.jsonl"):
        (folder / file).unlink()
        check_refused(lambda: Beir(str(folder)).queries("dev"), file)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_files_without_rows_are_named(folder: Path, content: str) -> None:
    path = folder / "qrels/dev.tsv"
    path.write_text("query-id\tcorpus-id\tscore\n" + content)
    check_refused(lambda: Beir(str(folder)).qrels("dev"), r"dev\.tsv holds no judgement")
    (folder / "corpus.jsonl").write_text(content)
    check_refused(lambda: list(Beir(str(folder)).corpus()), r"corpus\.jsonl holds no passage")


def test_a_corpus_alone_is_enough_for_reading_passages(folder: Path) -> None:
    for name in ("queries.jsonl", "triples.tsv"):
        (folder / name).unlink()
    shutil.rmtree(folder / "qrels")
    source = Beir(str(folder))
    assert len(values(list(source.corpus()))) == 3
    assert source.splits() == ()
    assert source.triplets() is None
    assert source.estimated_size() == 3


def test_the_fingerprint_sees_every_byte_of_every_file(folder: Path) -> None:
    before = Beir(str(folder)).fingerprint()
    folder = folder.rename(folder.with_name("elsewhere"))
    assert Beir(str(folder)).fingerprint() == before
    seen = {before}
    for file in FILES:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
        seen.add(Beir(str(folder)).fingerprint())
    assert len(seen) == len(FILES) + 1


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
