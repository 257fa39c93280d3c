"""Mined negatives against brute force: the filter, drawing, BM25's ranks, the epochs of the model's tables."""

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from two_tower.bm25 import BM25
from two_tower.errors import UserError
from two_tower.negatives import bm25 as bm25_module
from two_tower.negatives._mined import SearchResult, draw_from, filter_candidates, min_scores
from two_tower.negatives.ann import ANNNegatives
from two_tower.negatives.base import Collection, DrawContext, KnownPositives, Negatives
from two_tower.negatives.bm25 import BM25Negatives
from two_tower.negatives.random import RandomNegatives

WORDS = [f"w{i}" for i in range(30)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWO_TOWER_CACHE", str(tmp_path / "cache"))


def world(
    pairs: list[tuple[int, int]], queries: list[str], documents: list[str], folder: Path = Path("absent")
) -> Collection:
    rows = np.array(pairs, np.int64).reshape(-1, 2)
    equal = np.unique(documents, return_inverse=True)[1]
    return Collection(
        queries=pa.chunked_array([queries], pa.string()), texts=lambda: pa.chunked_array([documents], pa.string()),
        order=np.arange(len(documents)), pairs=(rows[:, 0], rows[:, 1]),
        positives=KnownPositives(rows[:, 0], rows[:, 1], np.arange(len(queries)), equal),
        rule=None, fingerprint=str((pairs, queries, documents)), folder=folder,
    )  # fmt: skip


def some_world(seed: int = 0) -> Collection:
    rng = np.random.default_rng(seed)
    documents = [" ".join(rng.choice(WORDS, 8)) for _ in range(60)]
    documents[7] = documents[3]  # a second copy of what is relevant to query 3
    queries = [" ".join([*text.split()[:3], rng.choice(WORDS)]) for text in documents[:20]]
    return world([(q, q) for q in range(18)] + [(0, 20), (1, 40)], queries, documents)


def drawn_by(strategy: Negatives, queries: np.ndarray, collection: Collection) -> np.ndarray:
    return strategy.extra_negatives(DrawContext(queries, None, collection.positives, np.random.default_rng(0)))


@given(st.data())
@settings(max_examples=60)
def test_the_filter_equals_brute_force(data: st.DataObject) -> None:
    queries, documents, k = (data.draw(st.integers(1, high)) for high in (6, 9, 7))
    texts = [str(data.draw(st.integers(0, 5))) for _ in range(documents)]
    pairs = data.draw(st.lists(st.tuples(st.integers(0, queries - 1), st.integers(0, documents - 1)), max_size=8))
    collection = world(pairs, ["?"] * queries, texts)
    margin = data.draw(st.sampled_from([None, 0.0, 0.05, 0.5]))
    mask_known_positives = data.draw(st.booleans())
    quarters = st.integers(-8, 8).map(lambda n: n / 4)
    rows = np.array([data.draw(st.permutations(range(-2, max(documents, k))))[:k] for _ in range(queries)])
    rows = np.where((rows < 0) | (rows >= documents), -1, rows).reshape(queries, k)
    scores = np.array(data.draw(st.lists(quarters, min_size=rows.size, max_size=rows.size)), np.float32)
    scores = scores.reshape(rows.shape)
    own = data.draw(st.lists(quarters, min_size=len(pairs), max_size=len(pairs)))
    minimum = min_scores(collection.pairs, np.array(own, np.float32), queries)

    expected = []
    for q in range(queries):
        positive = [p for (row, _), p in zip(pairs, own, strict=True) if row == q]
        relevant = {texts[d] for row, d in pairs if row == q}
        kept = []
        for d, s in zip(rows[q], scores[q], strict=True):
            known = mask_known_positives and texts[d] in relevant
            similar = margin is not None and positive and s > min(positive) - margin * abs(min(positive))
            if d >= 0 and not known and not similar:
                kept.append(int(d))
        expected.append(sorted(kept) + [-1] * (k - len(kept)))
    found = SearchResult(rows, scores, minimum)
    table, counts = filter_candidates(found, np.arange(queries), collection, margin, mask_known_positives)
    assert table.dtype == np.int32
    assert table.tolist() == expected
    assert counts.kept == (table >= 0).sum()
    assert counts.kept + counts.known + counts.similar == (rows >= 0).sum()
    assert counts.without == (table < 0).all(1).sum()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(1, 8), st.integers(0, 2**32))
@settings(deadline=None)
def test_draws_repeat_nothing_before_all_were_drawn(sizes: list[int], count: int, seed: int) -> None:
    table = np.full((len(sizes), 5), -1, np.int32)
    for row, size in enumerate(sizes):
        table[row, :size] = 10 * row + np.arange(size)
    before = table.copy()
    drawn = draw_from(table, count, np.random.default_rng(seed))
    np.testing.assert_array_equal(table, before)
    assert drawn.shape == (len(sizes), count)
    for row, size in enumerate(sizes):
        if size == 0:
            assert (drawn[row] == -1).all()
            continue
        times = Counter(drawn[row].tolist())
        assert set(times) <= set(table[row, :size].tolist())
        assert len(times) == min(size, count)
        assert max(times.values()) == -(-count // size)


def test_draws_are_even() -> None:
    table = np.tile(np.arange(5, dtype=np.int32), (6000, 1))
    drawn = draw_from(table, 2, np.random.default_rng(0))
    for column in (0, 1):
        counts = np.bincount(drawn[:, column], minlength=5)
        assert np.abs(counts - 1200).max() < 150  # 4.8 standard deviations
    assert np.bincount(draw_from(table[:, :1], 3, np.random.default_rng(0)).ravel()).tolist() == [18000]


def test_pair_scores_are_those_of_the_ranking() -> None:
    collection = some_world()
    index, queries = BM25(collection.texts()), collection.queries.to_pylist()
    every = np.divmod(np.arange(20 * 60), 60)
    expected = index.scorer(queries)(slice(0, 20), slice(0, 60)).numpy()
    found = index.pair_scores([*queries], every)
    np.testing.assert_array_equal(found, expected.ravel())
    assert (found == 0).any()
    assert len(np.unique(found)) > 50
    assert index.pair_scores(["unheard of"], (np.array([0]), np.array([3]))).tolist() == [0]


@pytest.mark.parametrize(("first", "last", "margin"), [(1, 10, None), (4, 9, 0.05), (12, 500, None)])
def test_bm25_mines_these_ranks(first: int, last: int, margin: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bm25_module, "BLOCK", 7)  # several blocks of the 20 queries
    collection = some_world()
    strategy = BM25Negatives(first_rank=first, last_rank=last, relative_margin=margin)
    strategy.prepare(collection)
    queries, texts = collection.queries.to_pylist(), collection.texts().to_pylist()
    scores = BM25(texts).scorer(queries)(slice(0, 20), slice(0, 60)).numpy().astype(np.float64)
    some = 0
    for q in range(20):
        ranked = sorted((d for d in range(60) if scores[q, d] > 0), key=lambda d: (-scores[q, d], -d))
        own = [int(d) for row, d in zip(*collection.pairs, strict=True) if row == q]
        minimum = min((scores[q, d] for d in own), default=np.inf)
        kept = [d for d in ranked[first - 1 : last] if texts[d] not in {texts[o] for o in own}]
        kept = [d for d in kept if margin is None or not scores[q, d] > 0.95 * minimum]
        assert strategy.table[q][strategy.table[q] >= 0].tolist() == sorted(kept)
        some += len(kept)
    assert some > 20


def test_bm25_mines_once_and_says_so_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "two_tower")
    collection = some_world()
    BM25Negatives().prepare(collection)
    said = [*caplog.messages]
    caplog.clear()
    BM25Negatives().prepare(replace(collection, texts=lambda: pytest.fail("read again")))
    assert caplog.messages == said
    assert "for each of 20 queries (ranks 1 to 50)" in said[-1]
    assert "known positives" in said[-1]
    other = BM25Negatives(last_rank=3)
    other.prepare(collection)
    assert other.table.shape == (20, 3)


def test_mining_that_dies_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bm25_module, "BLOCK", 7)
    with monkeypatch.context() as patch:
        patch.setattr(bm25_module, "filter_candidates", die)
        with pytest.raises(KeyboardInterrupt):
            BM25Negatives().prepare(some_world())
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]
    BM25Negatives().prepare(some_world())


def test_queries_without_mined_negatives_get_random_documents() -> None:
    collection = some_world()
    strategy, queries = BM25Negatives(count=3), np.arange(20)
    strategy.table = np.full((20, 4), -1, np.int32)
    strategy.table[5:] = [30, 31, 32, 33]
    drawn = drawn_by(strategy, queries, collection)
    assert drawn.shape == (20, 3)
    assert set(drawn[5:].ravel().tolist()) <= {30, 31, 32, 33}
    assert not collection.positives.contains(np.repeat(queries[:5, None], 3, 1), drawn[:5]).any()
    assert len(np.unique(drawn[:5])) > 5


def test_before_its_first_epoch_the_model_proposes_nothing(tmp_path: Path) -> None:
    strategy = ANNNegatives(first_epoch=3, every_n_epochs=2)
    strategy.prepare(world([(0, 0)], ["?"], list("abc"), tmp_path))
    names = [path and path.name for path in map(strategy.table_path, range(7))]
    assert names == [None, None, *(f"epoch-000{n}.npy" for n in (3, 3, 5, 5, 7))]
    strategy.start_epoch(1)
    assert strategy.table is None
    assert len(np.unique(drawn_by(strategy, np.zeros(30, int), some_world()))) > 10
    with pytest.raises(UserError, match=r"epoch-0003.npy .* callback mining"):
        strategy.start_epoch(2)
    np.save(tmp_path / "epoch-0003.npy", np.array([[2]], np.int32))
    strategy.start_epoch(3)
    assert drawn_by(strategy, np.array([0]), some_world()).tolist() == [[2]]


def test_the_model_mines_the_ranks_that_are_asked_for() -> None:
    scores = np.array([[0.99, 0.8, 0.7, 0.6, 0.5]], np.float32)
    found = SearchResult(np.array([[4, 3, 2, 1, 0]]), scores, np.array([1.0]))
    collection = world([(0, 2)], ["?"], list("abcde"))
    table, counts = ANNNegatives(first_rank=1, last_rank=4).choose(found, collection)
    assert table.tolist() == [[1, 3, -1, -1]]
    assert (counts.known, counts.similar) == (1, 1)
    table, _ = ANNNegatives(first_rank=2, last_rank=5).choose(found, collection)
    assert table.tolist() == [[0, 1, 3, -1]]


def test_log_frequency_draws_by_the_logarithm() -> None:
    collection = world([(q, 0) for q in range(7)] + [(7, 1)], ["?"] * 9, list("abcd"))
    strategy = RandomNegatives(40_000, distribution="log_frequency")
    strategy.prepare(collection)
    drawn = drawn_by(strategy, np.array([8]), collection)
    weights = np.array([1 + np.log(8), 1 + np.log(2), 1, 1])
    np.testing.assert_allclose(np.bincount(drawn.ravel()) / 40_000, weights / weights.sum(), atol=0.01)
    assert not RandomNegatives().needs_collection
    strategy.count = 20
    assert set(drawn_by(strategy, np.array([0]), collection).ravel().tolist()) == {1, 2, 3}


@pytest.mark.parametrize(
    ("strategy", "settings", "message"),
    [
        (BM25Negatives, {"count": 0}, "count=0 must be at least 1"),
        (BM25Negatives, {"first_rank": 9, "last_rank": 8}, "last_rank=8 .* first_rank=9"),
        (BM25Negatives, {"relative_margin": 5}, "relative_margin=5 must be from 0 to 1, or null"),
        (ANNNegatives, {"every_n_epochs": 0}, "every_n_epochs=0 must be at least 1"),
    ],
)
def test_values_that_cannot_work_are_refused(strategy: type, settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        strategy(**settings)
