"""Fusion against dictionaries and loops."""

import json
import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from two_tower.errors import UserError
from two_tower.fusion import Fusion, Judged, tune
from two_tower.metrics import Qrels, from_ranks
from two_tower.ranking import Ranking

Lists = list[dict[int, float]]  # of each query: document row → score

DOCUMENTS = 12


def ranking(lists: Lists, depth: int) -> Ranking:
    rows = np.full((len(lists), depth), -1, np.int64)
    scores = np.full((len(lists), depth), -np.inf, np.float32)
    for q, found in enumerate(lists):
        best = sorted(found, key=lambda d: found[d], reverse=True)[:depth]
        rows[q, : len(best)], scores[q, : len(best)] = best, [found[d] for d in best]
    return Ranking(rows, scores, np.zeros(0, np.int64))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Lists, Lists, int]:
    """Candidates of two systems for some queries; none, one, or as many as there may be."""
    depth, queries = draw(st.integers(1, 8)), draw(st.integers(0, 4))
    scores = st.sampled_from([-1.5, 0.0, 0.25, 1.0, 2.0, 7.0])
    one = st.dictionaries(st.integers(0, DOCUMENTS - 1), scores, max_size=depth)
    lists = st.lists(one, min_size=queries, max_size=queries)
    return draw(lists), draw(lists), depth


def in_deviations(found: dict[int, float], depth: int, floor: float | None) -> dict[int, float]:
    scores = list(found.values()) + [floor] * (depth - len(found) if floor is not None else 0)
    if not scores or max(scores) == min(scores):
        return dict.fromkeys(found, 0.0)
    return {d: (score - min(scores)) / statistics.pstdev(scores) for d, score in found.items()}


def by_loops(lists: list[dict[int, float]], order: np.ndarray) -> list[int]:
    """Documents by the sum of what they get from each list, as float32; of equals the larger place first."""
    sums = {d: sum(shares.get(d, 0.0) for shares in lists) for d in {d for shares in lists for d in shares}}
    return sorted(sums, key=lambda d: (np.float32(sums[d]), order[d]), reverse=True)


@settings(max_examples=40)
@given(cases(), st.integers(0, 99), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_the_weighted_sum_is_the_definition(case: tuple[Lists, Lists, int], seed: int, weight: float) -> None:
    left, right, depth = case
    rng = np.random.default_rng(seed)
    order = rng.permutation(DOCUMENTS) * 7
    count = 20 * bool(left)
    pairs = (rng.integers(0, max(len(left), 1), count), rng.integers(-1, DOCUMENTS, count))
    fusion = Fusion("weighted_sum", weight, depth, "dev", "mrr@10")
    fused = fusion(ranking(left, depth), ranking(right, depth), order=order, pairs=pairs)
    assert (fused.rows.shape, fused.scores.dtype) == ((len(left), 2 * depth), np.float32)
    expected = []
    for q, (a, b) in enumerate(zip(left, right, strict=True)):
        shares = [in_deviations(a, depth, None), in_deviations(b, depth, 0.0)]
        weighted = [{d: w * s for d, s in each.items()} for w, each in zip((weight, 1 - weight), shares, strict=True)]
        expected.append(by_loops(weighted, order))
        found = fused.rows[q] >= 0
        np.testing.assert_array_equal(found, np.arange(2 * depth) < len(expected[q]))
        # The reference adds in another order, so documents within rounding of one another may change places.
        sums = {d: sum(each.get(d, 0.0) for each in weighted) for d in expected[q]}
        np.testing.assert_allclose(fused.scores[q, found], [sums[d] for d in expected[q]], atol=1e-5)
        np.testing.assert_allclose(fused.scores[q, found], [sums[d] for d in fused.rows[q, found]], atol=1e-5)
    for q, d, rank in zip(*pairs, fused.ranks, strict=True):
        assert rank == (list(fused.rows[q]).index(d) + 1 if d >= 0 and d in fused.rows[q] else 0)


@settings(max_examples=40)
@given(cases(), st.integers(0, 99))
def test_reciprocal_rank_fusion_is_the_papers(case: tuple[Lists, Lists, int], seed: int) -> None:
    left, right, depth = case
    order, a, b = np.random.default_rng(seed).permutation(DOCUMENTS), ranking(left, depth), ranking(right, depth)
    fused = Fusion("reciprocal_rank", None, depth, "dev", "mrr@10")(a, b, order=order)
    for q in range(len(left)):
        lists = [{int(d): 1 / (60 + i) for i, d in enumerate(each.rows[q], 1) if d >= 0} for each in (a, b)]
        expected = by_loops(lists, order)
        assert fused.rows[q, : len(expected)].tolist() == expected
        assert (fused.rows[q, len(expected) :] == -1).all()


def test_candidates_beyond_the_depth_do_not_count() -> None:
    lists = [{d: float(d + q) for d in range(q, 12 - q)} for q in range(3)]
    reverse = [{d: -score for d, score in each.items()} for each in lists]
    for method, weight in (("weighted_sum", 0.4), ("reciprocal_rank", None)):
        fusion = Fusion(method, weight, 4, "dev", "mrr@10")
        long, short = (fusion(ranking(lists, n), ranking(reverse, n), order=np.arange(12)) for n in (12, 4))
        np.testing.assert_array_equal(long.rows, short.rows)
        np.testing.assert_array_equal(long.scores, short.scores)


def test_the_tuned_weight_is_the_best_of_all() -> None:
    """Of two systems that each find half of what is relevant, by scores of different sizes."""
    rng = np.random.default_rng(1)
    relevant = rng.integers(0, 200, 60)
    systems, qrels = [], Qrels(np.arange(60), relevant, np.ones(60, np.int32), 60)
    for size, skill in ((0.2, 0.5), (30.0, 1.5)):
        scores = rng.normal(size=(60, 200))
        scores[np.arange(60), relevant] += skill * (1 + rng.normal(size=60))
        best = np.argsort(-scores, axis=1)[:, :50]
        systems.append(Ranking(best, np.float32(size * np.take_along_axis(scores, best, 1)), np.zeros(0, np.int64)))
    left, right = systems

    def values(fusion: Fusion) -> np.ndarray:
        fused = fusion(left, right, order=np.arange(200), pairs=(qrels.query_rows, qrels.document_rows))
        return from_ranks(fused.ranks, qrels, ["mrr@10"])["mrr@10"]

    tuned = tune(left, right, Judged(np.arange(200), qrels, "mrr@10", "dev"), depth=40)
    assert (tuned.depth, tuned.split, tuned.metric) == (40, "dev", "mrr@10")
    others = [Fusion("weighted_sum", round(0.05 * i, 2), 40, "dev", "mrr@10") for i in range(21)]
    each = {other.weight: values(other) for other in others}
    best = max(each.values(), key=np.mean)
    good = [w for w, its in each.items() if (best - its).mean() <= 1.645 * (best - its).std() / 60**0.5]
    assert tuned.weight == min(good, key=lambda weight: abs(weight - 0.5))
    assert len({its.mean() for its in each.values()}) > 5
    assert 1 < len(good) < 15
    assert each[0].mean() < each[tuned.weight].mean() > each[1].mean()


# A query's ranking with document 0 first, and with 1 first.
FIRST, SECOND = ranking([{0: 2.0, 1: 1.0}], 2), ranking([{1: 2.0, 0: 1.0}], 2)


def first_is_relevant(documents: int) -> Judged:
    qrels = Qrels(np.zeros(1, np.int64), np.zeros(1, np.int64), np.ones(1, np.int32), 1)
    return Judged(np.arange(documents), qrels, "mrr@10", "dev")


def test_of_equal_weights_it_is_the_one_nearest_to_even() -> None:
    # At .5 the sums of one system's first and the other's are equal: the larger place, which is wrong, comes first.
    for tower, bm25, best in ((FIRST, FIRST, 10), (FIRST, SECOND, 11), (SECOND, FIRST, 9)):
        assert tune(tower, bm25, first_is_relevant(2)).weight == pytest.approx(best / 20)


def test_reciprocal_ranks_are_chosen_where_they_are_better() -> None:
    # What is relevant, 0, is second in both; each system's first, far ahead in score, is unknown to the other.
    tower, bm25 = ranking([{1: 9.0, 0: 1.0, 3: 0.9}], 3), ranking([{2: 9.0, 0: 1.0, 4: 0.9}], 3)
    tuned = tune(tower, bm25, first_is_relevant(5))
    assert (tuned.method, tuned.weight) == ("reciprocal_rank", None)


def test_the_file_reads_back(tmp_path: Path) -> None:
    path, fusion = tmp_path / "hybrid.json", Fusion("weighted_sum", 0.35, 100, "dev", "mrr@10", "corpus", "towers")
    assert Fusion.read(path, "towers") is None
    fusion.write(path)
    assert (Fusion.read(path, "towers"), Fusion.read(path, "others")) == (fusion, None)
    assert {"method", "weight", "depth", "split", "metric"} <= set(json.loads(path.read_text()))
    for broken in ("{", "[]", '{"weight": 1}', '{"w": 1}'):
        path.write_text(broken)
        with pytest.raises(UserError, match="delete it"):
            Fusion.read(path, "towers")
