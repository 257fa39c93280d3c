"""Batches: a pure function of seed, epoch and position; the loader continues exactly."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import write_collection
from hypothesis import given
from hypothesis import strategies as st
from training import triplet_data

from two_tower.data.beir import Beir
from two_tower.data.stream.batch import Batch, Batches, BatchLoader, BlockShuffle
from two_tower.data.stream.triplets import ExampleRows, TrainingSet
from two_tower.negatives.base import KnownPositives, NegativeMask
from two_tower.negatives.random import RandomNegatives
from two_tower.ragged import Ragged


def make_batches(count: int = 50, size: int = 8, rank: int = 0, ranks: int = 1, seed: int = 3) -> Batches:
    rows = np.arange(count)
    texts = Ragged.from_lists([[i] for i in range(count)])
    positives = KnownPositives(rows, rows, rows, rows)
    data = TrainingSet(ExampleRows(rows, rows), texts, texts, positives, np.zeros(0, np.uint64))
    return Batches(data, RandomNegatives(2), NegativeMask(positives, True), size, seed, rank, ranks)


def content(batch: Batch) -> tuple:
    return batch.query_rows.tolist(), batch.documents.to_lists(), batch.negatives.tolist()


def test_a_batch_depends_on_its_position_only() -> None:
    batches, again = make_batches(), make_batches()
    in_order = {(e, k): content(batches[e, k]) for e in range(2) for k in range(len(batches))}
    for position in reversed(list(in_order)):
        assert content(again[position]) == in_order[position]
    assert in_order[0, 0] != in_order[1, 0]
    assert content(make_batches(seed=4)[0, 0]) != in_order[0, 0]


def taken(loader: BatchLoader, count: int) -> list[tuple]:
    """The next batches of a loader, started anew at the end of each epoch; stops like a training that is killed."""
    epochs = itertools.chain.from_iterable(iter(loader) for _ in itertools.count())
    return [content(batch) for batch in itertools.islice(epochs, count)]


def continued(batches: Batches, workers: int, state: dict[str, int]) -> BatchLoader:
    """A loader of another process that continues at a saved state."""
    loader = BatchLoader(batches, workers)
    loader.load_state_dict(json.loads(json.dumps(state)))
    return loader


@pytest.mark.parametrize(("workers", "cut"), [(0, 1), (0, 6), (0, 12), (0, 17), (2, 7)])
def test_a_loader_continues_exactly_across_epochs(workers: int, cut: int) -> None:
    expected = taken(BatchLoader(make_batches()), 18)
    first = BatchLoader(make_batches(), workers)
    assert taken(first, cut) == expected[:cut]
    second = continued(make_batches(), workers, first.state_dict())
    assert taken(second, 18 - cut) == expected[cut:]
    assert len(second) == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_with_workers_share_every_epoch_across_a_stop(workers: int) -> None:
    parts = [make_batches(size=8, rank=rank, ranks=2) for rank in range(2)]
    loaders = [BatchLoader(part, workers) for part in parts]
    steps = list(zip(*(taken(loader, 9) for loader in loaders), strict=True))
    state = loaders[0].state_dict()  # a checkpoint holds the first rank's only
    loaders = [continued(part, workers, state) for part in parts]
    steps += zip(*(taken(loader, 9) for loader in loaders), strict=True)
    for epoch in range(3):
        seen = [row for step in steps[6 * epoch : 6 * epoch + 6] for rows, *_ in step for row in rows]
        assert seen == BlockShuffle(50, 3, epoch).take(0, 48).tolist()
        assert len(set(seen)) == 48


def test_the_positive_of_query_i_is_document_i(collection: Path, tmp_path: Path) -> None:
    data = triplet_data(Beir(str(collection)), tmp_path, RandomNegatives(3))
    batch = data.batches[0, 0]
    assert len(batch.documents) == 32 * 4
    ids = data.corpus.ids.to_pylist()
    for i, row in enumerate(batch.query_rows.tolist()):
        document = ids.index(data.train.ids[row].as_py().replace("q", "d"))
        assert batch.documents.to_lists()[i] == data.corpus.tokens.select([document]).to_lists()[0]
        words = data.tokenizer.encode_queries([data.train.texts[row].as_py()])
        assert batch.queries.to_lists()[i] == words.to_lists()[0]
    assert not batch.negatives[:, :32].diagonal().any()


def test_equal_texts_and_other_positives_are_never_negatives(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "c", documents=60)
    lines = (folder / "corpus.jsonl").read_text().splitlines()
    passage = json.loads(lines[2])  # d2 is the positive of q2, a training query
    copy = {**passage, "_id": "copy", "text": passage["text"].upper() + "!"}  # equal as the tokenizer sees it
    (folder / "corpus.jsonl").write_text("\n".join([*lines, json.dumps(copy)]) + "\n")
    with (folder / "qrels" / "train.tsv").open("a") as file:
        file.write("q3\tcopy\t1\nq4\td2\t0\n")  # d2 is shown, but not relevant to q4
    data = triplet_data(Beir(str(folder)), tmp_path, batch_size=41)
    batch = data.batches[0, 0]
    (two,) = data.corpus.tokens.select([2]).to_lists()
    columns = [j for j, text in enumerate(batch.documents.to_lists()) if text == two]
    assert len(columns) == 2  # d2 itself and its copy
    for query, row in zip(batch.query_rows.tolist(), batch.negatives.tolist(), strict=True):
        assert all(row[j] == (data.train.ids[query].as_py() not in {"q2", "q3"}) for j in columns)


def test_a_rank_gets_its_part_whatever_was_asked_before_it_was_known(collection: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    for rank in range(2):
        data = triplet_data(Beir(str(collection)), tmp_path, batch_size=20)
        assert data.batches_per_epoch == 8
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2)
        data.setup("fit")
        assert data.batches_per_epoch == 4
        seen += [row for k in range(4) for row in data.batches[0, k].query_rows.tolist()]
    assert sorted(seen) == list(range(160))


def test_the_tokenizer_is_trained_once_and_then_read(collection: Path, tmp_path: Path) -> None:
    stamps = set()
    for _ in range(2):
        _ = triplet_data(Beir(str(collection)), tmp_path).tokenizer
        stamps.add((tmp_path / "tokenizer.json").stat().st_mtime_ns)
    assert len(stamps) == 1


@given(st.integers(0, 500), st.integers(0, 9), st.integers(0, 3), st.integers(1, 40), st.integers(1, 5), st.data())
def test_every_example_comes_once_and_any_part_can_be_named_by_itself(
    count: int, seed: int, epoch: int, block: int, window: int, data: st.DataObject
) -> None:
    whole = BlockShuffle(count, seed, epoch, block, window).take(0, count).tolist()
    assert sorted(whole) == list(range(count))
    start, stop = sorted(data.draw(st.tuples(st.integers(0, count), st.integers(0, count))))
    assert BlockShuffle(count, seed, epoch, block, window).take(start, stop).tolist() == whole[start:stop]


def test_neighbours_of_the_file_end_up_far_apart() -> None:
    place = np.argsort(BlockShuffle(10_000, 0, 0).take(0, 10_000))
    assert np.abs(np.diff(place)).mean() > 3000
