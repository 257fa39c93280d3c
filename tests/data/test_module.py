"""The data module prepares a source once, says what it did, and trains on what the data brings."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from conftest import word, write_collection

from two_tower.data.beir import Beir
from two_tower.data.module import TripletData
from two_tower.data.msmarco_passage import MsMarcoPassage
from two_tower.data.source import Source
from two_tower.errors import UserError
from two_tower.negatives.base import Negatives
from two_tower.negatives.given import GivenNegatives
from two_tower.negatives.in_batch import InBatchNegatives
from two_tower.tokenizer.word import WordTokenizer


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("TWO_TOWER_CACHE", str(tmp_path / "cache"))
    caplog.set_level(logging.INFO, "two_tower")


def data_of(source: Source, folder: Path, negatives: Negatives | None = None) -> TripletData:
    folder.mkdir(exist_ok=True)
    strategy = negatives or InBatchNegatives()
    return TripletData(source, WordTokenizer(), folder / "tokenizer.json", strategy, batch_size=8)


def messages(caplog: pytest.LogCaptureFixture) -> str:
    found = "\n".join(record.message for record in caplog.records)
    caplog.clear()
    return found


def test_a_second_start_parses_and_tokenises_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_collection(tmp_path / "beir", documents=60)
    first = data_of(Beir(str(folder)), tmp_path / "first", GivenNegatives())
    first.open()
    assert "110 texts parsed and tokenised" in messages(caplog)  # 60 passages, 40 + 10 queries of train and dev

    def refuse(*_: object) -> None:
        pytest.fail("read again")

    for method in ("corpus", "queries", "qrels"):
        monkeypatch.setattr(Beir, method, refuse)
    second = data_of(Beir(str(folder)), tmp_path / "second", GivenNegatives())
    second.open()
    said = messages(caplog)
    assert "0 texts parsed and tokenised" in said
    assert said.count("parsed") == 1
    assert second.corpus.tokens.to_lists() == first.corpus.tokens.to_lists()
    assert second.validation.ids.equals(first.validation.ids)


def test_bad_rows_are_told_again_when_the_store_is_opened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_collection(tmp_path / "beir", documents=60)
    with (folder / "corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write("{broken\n")
    for run in ("first", "second"):
        monkeypatch.setattr("two_tower.cache._said", set())  # as in another process
        data_of(Beir(str(folder), max_bad_rows=0.1), tmp_path / run).open()
        warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == 1
        assert "corpus.jsonl, row 61: malformed JSON" in warnings[0]
        caplog.clear()


def test_a_stricter_limit_for_bad_rows_is_not_evaded_by_the_store(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "beir", documents=60)
    with (folder / "corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write("{broken\n")
    data_of(Beir(str(folder), max_bad_rows=0.1), tmp_path / "tolerant").open()
    with pytest.raises(UserError, match="row 61: malformed JSON"):
        data_of(Beir(str(folder), max_bad_rows=0), tmp_path / "strict").open()


def _official_files(folder: Path) -> Path:
    """A collection, dev queries with judgements, and triples of texts; no training queries."""
    folder.mkdir()
    passages = [f"{word(i)} {word(i + 100)} {word(i % 7)}" for i in range(30)]
    files = {
        "collection.tsv": [f"{i}\t{text}" for i, text in enumerate(passages)],
        "queries.dev.small.tsv": [f"{i}\t{word(i + 100)} {word(i)}" for i in range(5)],
        "qrels.dev.small.tsv": [f"{i}\t0\t{i}\t1" for i in range(5)],
        "triples.train.small.tsv": [f"{word(i)} only\t{passages[i]}\t{passages[(i + 3) % 30]}" for i in range(5, 30)],
    }
    for name, lines in files.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


def test_triples_of_texts_need_no_training_queries(tmp_path: Path) -> None:
    source = MsMarcoPassage(str(_official_files(tmp_path / "files")), triples="triples.train.small.tsv")
    assert source.splits() == ("dev",)
    data = data_of(source, tmp_path / "run", GivenNegatives())
    data.open()
    assert "only" in data.tokenizer.vocabulary  # a word of the triples' queries alone
    assert len(data.training_set.examples) == 25
    assert len(data.batches) == 3
    with pytest.raises(UserError, match=r"data\.train_split=train does not exist"):
        data_of(source, tmp_path / "other", InBatchNegatives())


@pytest.mark.parametrize("key", ["train_split", "validation_split"])
def test_a_split_that_does_not_exist_is_refused(tmp_path: Path, key: str) -> None:
    source = Beir(str(write_collection(tmp_path / "beir", documents=30)))
    arguments = (source, WordTokenizer(), tmp_path / "tokenizer.json", InBatchNegatives())
    with pytest.raises(UserError, match=f"data.{key}=dve does not exist in beir; did you mean 'dev'"):
        TripletData(*arguments, **{key: "dve"})
