"""Masks and extra negatives against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from two_tower.errors import UserError
from two_tower.negatives.base import DrawContext, KnownPositives, NegativeMask
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
@settings(max_examples=60)
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


def context(queries: np.ndarray, known: KnownPositives, seed: int = 0, given: np.ndarray | None = None) -> DrawContext:
    return DrawContext(queries, given, known, np.random.default_rng(seed))


@given(worlds(), st.data(), st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=60)
def test_all_masks(world: tuple, data: st.DataObject, whole_batch: bool, known_positives: bool, judged: bool) -> None:
    """Inside and outside of the batch, also where a query and its document may have nothing to do with each other."""
    known, query_group, document_group, pairs = world
    any_pair = st.tuples(st.integers(0, len(query_group) - 1), st.integers(0, len(document_group) - 1))
    examples = data.draw(st.lists(st.sampled_from(pairs) if judged and pairs else any_pair, min_size=1, max_size=5))
    each = data.draw(st.integers(0, 2))
    rows = st.lists(st.integers(0, len(document_group) - 1), min_size=12, max_size=12).map(np.array)
    queries, positives = np.array(examples).T
    extra, outside = data.draw(rows)[: each * len(queries)], data.draw(rows)
    documents, related = np.concatenate([positives, extra]), [is_positive(*example, world) for example in examples]
    judged = judged and all(related)
    mask = NegativeMask(known, whole_batch, known_positives, judged)

    def negative(b: int, document: int) -> bool:
        """Of what may be a negative at all."""
        masked = is_positive(queries[b], document, world) if known_positives else False
        return not masked and (judged or related[b])

    for b, row in enumerate(mask.in_batch(queries, documents)):
        for n, found in enumerate(row):
            own = n >= len(queries) and (n - len(queries)) // max(each, 1) == b
            taught = n < len(queries) and not judged and not related[n]
            allowed = (whole_batch or own) and n != b and not taught
            assert found == (allowed and negative(b, documents[n]))
    for b, row in enumerate(mask.outside(queries, positives, outside)):
        for document, found in zip(outside, row, strict=True):
            assert found == (negative(b, document) and (known_positives or document != positives[b]))


def test_random_negatives_avoid_known_positives_and_repeat_with_the_seed() -> None:
    positives = world_of_distinct(3, 50, [(0, d) for d in range(45)] + [(1, 7), (2, 8)])
    draw = RandomNegatives(count=4).extra_negatives
    first, again, other = (draw(context(np.arange(3), positives, seed)) for seed in (5, 5, 6))
    assert first.shape == (3, 4)
    assert 7 not in first[1]
    assert 8 not in first[2]
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    drawn = RandomNegatives(50, mask_known_positives=False).extra_negatives(context(np.array([0]), positives))
    assert len(np.unique(drawn[drawn < 45])) > 5  # when asked for


def test_random_negatives_cover_the_corpus_evenly() -> None:
    positives = world_of_distinct(1, 20, [(0, 3)])
    drawn = RandomNegatives(count=8000).extra_negatives(context(np.array([0]), positives))
    counts = np.bincount(drawn.ravel(), minlength=20)
    assert counts[3] == 0
    np.testing.assert_allclose(np.delete(counts, 3), 8000 / 19, rtol=0.2)


def test_in_batch_asks_for_nothing_and_given_hands_on() -> None:
    positives, given_rows = world_of_distinct(2, 4, [(0, 0)]), np.array([[1, 2], [3, 0]])
    assert InBatchNegatives().extra_negatives(context(np.arange(2), positives)).shape == (2, 0)
    found = GivenNegatives().extra_negatives(context(np.arange(2), positives, given=given_rows))
    np.testing.assert_array_equal(found, given_rows)
    with pytest.raises(UserError, match=r"negatives=in_batch, random, bm25, ann or mixed"):
        GivenNegatives().extra_negatives(context(np.arange(2), positives))
