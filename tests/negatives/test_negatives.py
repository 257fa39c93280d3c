"""Masks and proposals against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from two_tower.errors import UserError
from two_tower.negatives.base import KnownPositives, candidate_mask
from two_tower.negatives.given import GivenNegatives
from two_tower.negatives.in_batch import InBatchNegatives
from two_tower.negatives.random import RandomNegatives


@st.composite
def worlds(draw: st.DrawFn) -> tuple[KnownPositives, np.ndarray, np.ndarray, list[tuple[int, int]]]:
    queries, documents = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    query_group = np.array(draw(st.lists(st.integers(0, 3), min_size=queries, max_size=queries)))
    document_group = np.array(draw(st.lists(st.integers(0, 4), min_size=documents, max_size=documents)))
    pairs = draw(st.lists(st.tuples(st.integers(0, queries - 1), st.integers(0, documents - 1)), max_size=10))
    rows = np.array(pairs, np.int64).reshape(-1, 2)
    known = KnownPositives(rows[:, 0], rows[:, 1], query_group, document_group)
    return known, query_group, document_group, pairs


def is_positive(query: int, document: int, world: tuple) -> bool:
    _, query_group, document_group, pairs = world
    return any(query_group[q] == query_group[query] and document_group[d] == document_group[document] for q, d in pairs)


@given(worlds(), st.data())
@settings(max_examples=200, deadline=None)
def test_marks_equal_brute_force(world: tuple, data: st.DataObject) -> None:
    known, query_group, document_group, _ = world
    queries = np.array(data.draw(st.lists(st.integers(0, len(query_group) - 1), min_size=1, max_size=6)))
    documents = np.array(data.draw(st.lists(st.integers(0, len(document_group) - 1), min_size=1, max_size=9)))
    expected = np.array([[is_positive(q, d, world) for d in documents] for q in queries])
    np.testing.assert_array_equal(known.mark(queries, documents), expected)
    grid = np.broadcast_arrays(queries[:, None], documents[None, :])
    np.testing.assert_array_equal(known.contains(*grid), expected)


def world_of_distinct(queries: int, documents: int, pairs: list[tuple[int, int]]) -> KnownPositives:
    rows = np.array(pairs, np.int64).reshape(-1, 2)
    return KnownPositives(rows[:, 0], rows[:, 1], np.arange(queries), np.arange(documents))


@pytest.mark.parametrize(
    ("use_batch", "share_extras", "expected"),
    [
        # Columns: positives of queries 0, 1, then the extras of query 0 (documents 2, 1) and of 1 (3, 0).
        (True, True, ["-x x-xx", "x- x-x-"]),  # query 0: document 1 is a known positive wherever it stands
        (False, False, ["-- x---", "-- --x-"]),
        (True, False, ["-x x---", "x- --x-"]),
    ],
)
def test_who_is_pushed_away_from_what(use_batch: bool, share_extras: bool, expected: list[str]) -> None:
    queries, documents = np.array([0, 1]), np.array([4, 5, 2, 1, 3, 0])
    positives = world_of_distinct(2, 6, [(0, 4), (0, 1), (1, 5), (1, 1), (1, 0)])
    mask = candidate_mask(queries, documents, positives, use_batch, share_extras)
    shown = ["".join("x" if m else "-" for m in row) for row in mask]
    assert shown == [e.replace(" ", "") for e in expected]


@pytest.mark.parametrize(("use_batch", "share_extras"), [(True, True), (False, False), (True, False)])
def test_only_the_own_positive_is_left_out_when_asked_for(use_batch: bool, share_extras: bool) -> None:
    queries, documents = np.array([0, 1]), np.array([4, 5, 2, 1, 3, 0])
    nothing_known = world_of_distinct(2, 6, [(0, 4), (1, 5)])
    much_known = world_of_distinct(2, 6, [(0, 4), (0, 1), (1, 5), (1, 1), (1, 0), (0, 5)])
    settings = (use_batch, share_extras)
    unmasked = candidate_mask(queries, documents, much_known, *settings, mask_known_positives=False)
    np.testing.assert_array_equal(unmasked, candidate_mask(queries, documents, nothing_known, *settings))
    assert (unmasked != candidate_mask(queries, documents, much_known, *settings)).any()


def test_random_negatives_may_be_positives_when_asked_for() -> None:
    positives = world_of_distinct(1, 10, [(0, d) for d in range(9)])
    drawn = RandomNegatives(50, mask_known_positives=False).extras(
        np.array([0]), None, positives, np.random.default_rng(0)
    )
    assert len(np.unique(drawn)) > 5


def test_random_negatives_avoid_known_positives_and_repeat_with_the_seed() -> None:
    positives = world_of_distinct(3, 50, [(0, d) for d in range(45)] + [(1, 7), (2, 8)])
    strategy, queries = RandomNegatives(count=4), np.array([0, 1, 2])
    first = strategy.extras(queries, None, positives, np.random.default_rng(5))
    assert first.shape == (3, 4)
    assert 7 not in first[1]
    assert 8 not in first[2]
    np.testing.assert_array_equal(first, strategy.extras(queries, None, positives, np.random.default_rng(5)))
    assert (first != strategy.extras(queries, None, positives, np.random.default_rng(6))).any()


def test_random_negatives_cover_the_corpus_evenly() -> None:
    positives = world_of_distinct(1, 20, [(0, 3)])
    drawn = RandomNegatives(count=8000).extras(np.array([0]), None, positives, np.random.default_rng(0))
    counts = np.bincount(drawn.ravel(), minlength=20)
    assert counts[3] == 0
    others = np.delete(counts, 3)
    assert others.min() > 0.8 * others.mean()
    assert others.max() < 1.2 * others.mean()


def test_in_batch_asks_for_nothing_and_given_hands_on() -> None:
    positives, queries, rng = world_of_distinct(2, 4, [(0, 0)]), np.array([0, 1]), np.random.default_rng(0)
    assert InBatchNegatives().extras(queries, None, positives, rng).shape == (2, 0)
    given_rows = np.array([[1, 2], [3, 0]])
    np.testing.assert_array_equal(GivenNegatives().extras(queries, given_rows, positives, rng), given_rows)
    with pytest.raises(UserError, match=r"negatives=in_batch, random, bm25, ann or mixed"):
        GivenNegatives().extras(queries, None, positives, rng)
