"""BEIR folders: whole ones, every kind of bad row, and mistakes."""

import shutil
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import SHARED_DATA
from rows import bad_summary, check_bad_row, check_refused, check_split_refused, everything, values, write_text

from two_tower.data.beir import Beir

SAMPLE = SHARED_DATA / "msmarco-v11"

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
    for name, content in FILES.items():
        write_text(tmp_path / "animals" / name, content)
    return tmp_path / "animals"


@pytest.mark.parametrize("compressed", [False, True])
def test_a_whole_folder(folder: Path, compressed: bool) -> None:
    for path in [p for p in folder.rglob("*.*") if compressed]:
        write_text(path.with_name(f"{path.name}.gz"), path.read_bytes())
        path.unlink()
    source = Beir(str(folder))
    dev_queries = [("q3", "oak")]
    assert values(source.queries("dev")) == dev_queries  # before the corpus is read
    passages, *found = everything(source)
    assert passages == [("d1", "Tiger", "A big cat."), ("d2", "", "A river."), ("3", "", "A tree.")]
    assert values(list(source.search_corpus())) == passages
    assert (source.name, source.splits()) == ("animals", ("train", "dev"))
    train = [("q1", "d2", 1), ("q2", "d1", 2), ("q2", "d2", 0)]
    train_queries = [("q2", "cat with stripes"), ("q1", "water")]
    triplets = [("q2", "d1", "d2"), ("q2", "d1", "3")]
    assert found == [train, train_queries, [("q3", "3", 1)], dev_queries, triplets, []]
    assert not bad_summary(source)


def test_any_other_file_of_judgements_is_a_split_by_its_name(folder: Path) -> None:
    before = Beir(str(folder)).fingerprint()
    for name in ("trec-dl-2019.tsv", "dev-hard.tsv", "README.txt"):
        shutil.copy(folder / "qrels" / "dev.tsv", folder / "qrels" / name)
    source = Beir(str(folder))
    assert source.splits() == ("train", "dev", "dev-hard", "trec-dl-2019")
    for own in ("dev-hard", "trec-dl-2019"):
        assert source.qrels(own) == source.qrels("dev")
        assert source.queries(own) == source.queries("dev")
    assert source.fingerprint() != before
    check_split_refused(source, "trec-dl-2020", "did you mean 'trec-dl-2019'")


def test_dev_may_be_called_validation(folder: Path) -> None:
    for old, new in (("dev", "validation"), ("validation", "val")):
        (folder / f"qrels/{old}.tsv").rename(folder / f"qrels/{new}.tsv")
        assert Beir(str(folder)).splits() == ("train", "dev")
        assert len(Beir(str(folder)).qrels("dev")) == 1


@pytest.mark.parametrize(
    ("file", "line", "kind"),
    [
        ("corpus.jsonl", b'{"_id": "d9", "title": "", "text": " "}', "empty title and text"),
        ("corpus.jsonl", b'{"_id": "d1", "title": "Tiger", "text": "Dog."}', "id that another text had before"),
        ("queries.jsonl", b'{"_id": "q9", "text": ""}', "empty text"),
        ("qrels/train.tsv", b"q9\td1\t1", "unknown query_id"),
        ("qrels/train.tsv", b"q2\td1\t1", "judgement that contradicts an earlier one"),
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


def test_mistakes_are_named(folder: Path) -> None:
    check_split_refused(Beir(str(folder)), "tset", "no split 'tset': valid: dev, train")
    check_split_refused(Beir(str(folder)), "dve", "no split 'dve': did you mean 'dev'")
    (folder / "queries.jsonl").unlink()
    check_refused(lambda: Beir(str(folder)).queries("dev"), r"queries\.jsonl")


def test_a_corpus_alone_is_enough_for_reading_passages(folder: Path) -> None:
    for name in ("queries.jsonl", "triples.tsv"):
        (folder / name).unlink()
    shutil.rmtree(folder / "qrels")
    source = Beir(str(folder))
    assert len(values(list(source.corpus()))) == 3
    assert (source.splits(), source.triplets(), source.estimated_size()) == ((), None, 3)


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


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the sample msmarco-v11 is not here")
def test_a_real_collection_is_read_whole() -> None:
    source = Beir(str(SAMPLE))
    table = pa.Table.from_batches(source.corpus())
    assert len(set(table["id"].to_pylist())) == len(table) == 5_055
    assert table["title"].null_count == table["text"].null_count == 0
    judged = {split: (len(source.queries(split)), len(source.qrels(split))) for split in source.splits()}
    assert judged == {"train": (494, 4_165), "dev": (106, 892)}
    assert sum(map(len, source.triplets() or ())) == 4_735
    assert not bad_summary(source)
