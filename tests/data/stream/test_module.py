"""The data module prepares a source once, says what it did, and trains on what the data brings."""

import logging
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import word, write_collection
from training import TextTriplets, triplet_data

from two_tower.data.beir import Beir
from two_tower.errors import UserError
from two_tower.negatives.ann import ANNNegatives
from two_tower.negatives.base import Collection
from two_tower.negatives.bm25 import BM25Negatives
from two_tower.negatives.given import GivenNegatives
from two_tower.negatives.in_batch import InBatchNegatives
from two_tower.negatives.mixed import MixedNegatives
from two_tower.negatives.random import RandomNegatives


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("TWO_TOWER_CACHE", str(tmp_path / "cache"))
    caplog.set_level(logging.INFO, "two_tower")


def small_source(folder: Path, documents: int = 60, **options: Any) -> Beir:  # noqa: ANN401
    return Beir(str(write_collection(folder / "beir", documents, **options)))


def test_a_second_start_parses_and_tokenises_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = small_source(tmp_path)
    first = triplet_data(source, tmp_path / "first", GivenNegatives())
    first.open()
    assert "110 texts parsed and tokenised" in caplog.text  # 60 passages, 40 + 10 queries of train and dev
    caplog.clear()
    for method in ("corpus", "queries", "qrels"):
        monkeypatch.setattr(Beir, method, lambda *_: pytest.fail("read again"))
    second = triplet_data(Beir(source.path), tmp_path / "second", GivenNegatives())
    second.open()
    assert "0 texts parsed and tokenised" in caplog.text
    assert caplog.text.count("parsed") == 1
    assert second.corpus.tokens.to_lists() == first.corpus.tokens.to_lists()
    assert second.validation.ids.equals(first.validation.ids)


def test_bad_rows_are_told_again_when_the_store_is_opened_and_stay_bad_with_a_stricter_limit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_collection(tmp_path / "beir", documents=60)
    with (folder / "corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write("{broken\n")
    for run in ("first", "second"):
        monkeypatch.setattr("two_tower.cache._said", set())  # as in another process
        triplet_data(Beir(str(folder), max_bad_rows=0.1), tmp_path / run).open()
        assert caplog.text.count("corpus.jsonl, row 61: malformed JSON") == 1
        caplog.clear()
    with pytest.raises(UserError, match="row 61: malformed JSON"):
        triplet_data(Beir(str(folder), max_bad_rows=0), tmp_path / "strict").open()


def _texts_alone(folder: Path) -> TextTriplets:
    """Triples of texts, and no training queries."""
    path = write_collection(folder, documents=60)
    (path / "qrels" / "train.tsv").unlink()
    words = [word(i) for i in range(30)]
    rows = [(f"{words[i]} only", f"{words[i]} {words[i - 1]}", f"{words[i - 3]} {words[i - 4]}") for i in range(5, 30)]
    return TextTriplets(str(path), rows)


def test_triples_of_texts_need_no_training_queries(tmp_path: Path) -> None:
    source = _texts_alone(tmp_path / "files")
    data = triplet_data(source, tmp_path / "run", GivenNegatives(), batch_size=8)
    data.open()
    assert "only" in data.tokenizer.vocabulary  # a word of the triples' queries alone
    assert (source.splits(), len(data.training_set.examples), len(data.batches)) == (("dev", "test"), 25, 3)
    with pytest.raises(UserError, match=r"data\.train_split=train does not exist"):
        triplet_data(source, tmp_path / "other", InBatchNegatives())


def test_a_split_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    source = small_source(tmp_path, 30)
    (tmp_path / "beir/qrels/train.tsv").unlink()
    for given, said in (("train", "valid: dev, test"), ("dve", "did you mean 'dev'")):
        with pytest.raises(UserError, match=rf"data\.train_split={given} .*{said}"):
            triplet_data(Beir(source.path), tmp_path / "run", BM25Negatives(), train_split=given)


DRAWN = {
    "log_frequency": lambda: RandomNegatives(2, distribution="log_frequency"),
    "mixed": lambda: MixedNegatives(
        3, {"random": [1, 0.5]}, random=RandomNegatives(), bm25=BM25Negatives(), given=GivenNegatives()
    ),
    "in_batch": InBatchNegatives,
}


@pytest.mark.parametrize(("name", "ranks"), [*product(DRAWN, (2, 3)), ("mixed", 4)])
def test_ranks_together_train_on_what_one_process_would(name: str, ranks: int, tmp_path: Path) -> None:
    source = small_source(tmp_path)

    def batches(rank: int, ranks: int) -> list[tuple[list[int], list[list[int]]]]:
        data = triplet_data(source, tmp_path / "run", DRAWN[name](), global_batch_size=8)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=ranks)  # type: ignore[assignment]
        found = []
        for position in [(0, 0), (0, 3), (1, 2)]:
            batch = data.batches[position]
            rows = batch.document_rows.numpy()
            assert batch.documents.to_lists() == data.training_set.documents.select(rows).to_lists()
            positives, extras = np.split(rows, [len(batch)])
            found.append((batch.query_rows.tolist(), positives.tolist(), extras.reshape(len(batch), -1).tolist()))
        return found

    whole = batches(0, 1)
    parts = [batches(rank, ranks) for rank in range(ranks)]
    for number, expected in enumerate(whole):
        together = [part[number] for part in parts]
        assert tuple([row for part in together for row in part[i]] for i in range(3)) == expected


def test_known_positives_outside_the_batch_are_masked(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "beir", documents=60)
    with (folder / "qrels" / "train.tsv").open("a") as file:
        file.write("q2\td40\t1\n")
    data = triplet_data(Beir(str(folder)), tmp_path / "run", InBatchNegatives())
    queries, documents = np.array([0, 1]), np.array([40, 3, 5, 2])  # q2 and q3
    assert data.train.ids.to_pylist()[:2] == ["q2", "q3"]
    outside = data.negative_mask.outside(queries, np.array([2, 3]), documents)
    assert (~outside).tolist() == [[True, False, False, True], [False, True, False, False]]
    data.negatives.mask_known_positives = False
    own = ~data.negative_mask.outside(queries, np.array([2, 3]), documents)
    assert own.tolist() == [[False, False, False, True], [False, True, False, False]]


def test_a_strategy_is_prepared_once_with_the_collection(tmp_path: Path) -> None:
    seen: list[Collection] = []

    class Noting(InBatchNegatives):
        def prepare(self, collection: Collection) -> None:
            seen.append(collection)

    data = triplet_data(small_source(tmp_path), tmp_path / "run", Noting())
    for _ in range(2):
        data.open()
    (collection,) = seen
    assert collection.folder == tmp_path / "run" / "negatives"
    assert len(collection.queries) == 40
    assert len(collection.texts()) == len(collection.order) == collection.positives.documents == 60
    pairs = {(data.train.ids[q].as_py(), data.corpus.ids[d].as_py()) for q, d in zip(*collection.pairs, strict=True)}
    assert pairs == {(f"q{n}", f"d{n}") for n in range(60) if n % 6 > 1}


def test_negatives_that_the_data_cannot_give_are_answered_with_those_it_can(tmp_path: Path) -> None:
    texts, judged = _texts_alone(tmp_path / "files"), small_source(tmp_path, 30, triples=False)
    mixed = MixedNegatives(given=GivenNegatives(), bm25=BM25Negatives())
    for negatives in (BM25Negatives(), ANNNegatives(), RandomNegatives(distribution="log_frequency"), mixed):
        with pytest.raises(UserError, match="use negatives=given"):
            triplet_data(texts, tmp_path / "run", negatives)
    for negatives in (GivenNegatives(), mixed):
        with pytest.raises(UserError, match="use negatives=in_batch, random, bm25, ann or mixed"):
            triplet_data(judged, tmp_path / "run", negatives)


def test_passages_for_a_teacher_come_once_each_and_without_negatives_of_their_queries(tmp_path: Path) -> None:
    source = small_source(tmp_path)
    data = triplet_data(source, tmp_path / "run", examples="passages", batch_size=20)
    batches = [data.batches[0, k] for k in range(3)]
    assert sorted(row for batch in batches for row in batch.document_rows.tolist()) == list(range(60))
    for batch in batches:
        related = data.training_set.positives.contains(batch.query_rows.numpy(), batch.document_rows.numpy())
        assert (batch.negatives.any(1).numpy() <= related).all()


def test_the_number_of_examples_can_be_limited(tmp_path: Path) -> None:
    source = small_source(tmp_path)
    found = triplet_data(source, tmp_path / "run", max_examples=7).training_set.examples.take(np.arange(7))
    assert found.query_rows.tolist() == [40 * n // 7 for n in range(7)]  # spread evenly
    with pytest.raises(ValueError, match=r"^max_examples=-1 must be at least"):
        triplet_data(source, tmp_path / "run", max_examples=-1)
