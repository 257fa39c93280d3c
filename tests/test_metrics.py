"""Metrics against plain loops and against trec_eval itself (pytrec_eval, through ir_measures)."""

from __future__ import annotations

from dataclasses import dataclass

import ir_measures
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import AP, RR, R, Success, nDCG

from two_tower import metrics
from two_tower.errors import UserError
from two_tower.metrics import DEFAULT_METRICS, Qrels, evaluate, mean, parse

CUTOFFS = (None, 1, 2, 3, 10)
ORACLES = {
    "mrr": oracles.reciprocal_rank,
    "recall": oracles.recall,
    "success": oracles.success,
    "ndcg": oracles.ndcg,
    "map": oracles.average_precision,
}


@dataclass
class Collection:
    """Judgements and a run as dictionaries, and the same in rows."""

    qrels: dict[str, dict[str, int]]
    run: dict[str, dict[str, float]]

    @property
    def rankings(self) -> dict[str, list[str]]:
        return {q: oracles.ranked(self.run.get(q, {})) for q in self.qrels}

    def rows(self) -> tuple[np.ndarray, Qrels]:
        rankings, documents = self.rankings, sorted({d for q in self.qrels for d in self.qrels[q]})
        judged = [(i, d, grade) for i, q in enumerate(self.qrels) for d, grade in self.qrels[q].items()]
        names = list(self.qrels)
        ranks = [rankings[names[i]].index(d) + 1 if d in rankings[names[i]] else 0 for i, d, _ in judged]
        qrels = Qrels(
            np.array([i for i, _, _ in judged], np.int64),
            np.array([documents.index(d) for _, d, _ in judged], np.int64),
            np.array([grade for _, _, grade in judged], np.int32),
            len(self.qrels),
        )
        return np.array(ranks, np.int64), qrels


DOCUMENTS = ["1", "10", "2", "a", "b", "Z", "é", "中", "zz", "d_9"]


@st.composite
def collections(draw: st.DrawFn, grades: tuple[int, int] = (-2, 3), ties: bool = True) -> Collection:
    """A few queries over ten documents; several or no positives, queries without results."""
    documents = st.sampled_from(DOCUMENTS)
    scores = st.sampled_from([-1.5, -1.0, 0.0, 0.25, 3.0]) if ties else st.floats(-9, 9, width=32)
    queries = [f"q{i}" for i in range(draw(st.integers(1, 5)))]
    judged = st.dictionaries(documents, st.integers(*grades), min_size=1)
    results = st.dictionaries(documents, scores, min_size=1)
    if not ties:
        results = results.filter(lambda r: len({*r.values()}) == len(r))
    run = {q: draw(results) for q in queries if draw(st.booleans())}
    return Collection({q: draw(judged) for q in queries}, run)


@settings(deadline=None)
@given(collections(), st.integers(1, 3))
def test_metrics_equal_plain_loops(collection: Collection, threshold: int) -> None:
    ranks, qrels = collection.rows()
    names = [f"{base}@{k}" if k else base for base in ORACLES for k in CUTOFFS]
    values = evaluate(ranks, qrels, names, threshold)
    rankings = collection.rankings
    for name in names:
        base, _, k = name.partition("@")
        expected = [
            ORACLES[base](rankings[q], grades, int(k) if k else None, threshold)
            for q, grades in collection.qrels.items()
        ]
        assert values[name].dtype == np.float64
        np.testing.assert_allclose(values[name], expected, rtol=0, atol=1e-12, err_msg=name)


def official(collection: Collection, measures: list) -> dict[str, dict[str, float]]:
    values: dict[str, dict[str, float]] = {}
    for metric in ir_measures.iter_calc(measures, collection.qrels, collection.run):
        values.setdefault(str(metric.measure), {})[metric.query_id] = metric.value
    return values


PAIRED = {
    "mrr": RR,
    **{f"recall@{k}": R @ k for k in (1, 3, 100)},
    **{f"success@{k}": Success @ k for k in (1, 5)},
    "ndcg": nDCG,
    **{f"ndcg@{k}": nDCG @ k for k in (1, 2, 10)},
    "map": AP,
    "map@2": AP @ 2,
}


# pytrec_eval crashes on negative grades, which are not relevant like 0: they are left to the plain loops.
@settings(deadline=None)
@given(collections(grades=(0, 3)))
def test_metrics_equal_trec_eval(collection: Collection) -> None:
    ranks, qrels = collection.rows()
    values = evaluate(ranks, qrels, list(PAIRED))
    expected = official(collection, list(PAIRED.values()))
    for name, measure in PAIRED.items():
        row = [expected[str(measure)][q] for q in collection.qrels]
        np.testing.assert_allclose(values[name], row, rtol=0, atol=1e-9, err_msg=name)


@settings(deadline=None)
@given(collections(grades=(0, 3)))
def test_relevance_threshold_equals_trec_eval(collection: Collection) -> None:
    ranks, qrels = collection.rows()
    values = evaluate(ranks, qrels, ["mrr", "recall@3", "map", "success@2", "ndcg@3"], threshold=2)
    measures = [RR(rel=2), R(rel=2) @ 3, AP(rel=2), Success(rel=2) @ 2, nDCG @ 3]
    expected = official(collection, measures)
    for name, measure in zip(values, measures, strict=True):
        row = [expected[str(measure)][q] for q in collection.qrels]
        np.testing.assert_allclose(values[name], row, rtol=0, atol=1e-9, err_msg=name)


# ir_measures takes RR@10 from the MS MARCO script, which breaks ties the other way.
@settings(deadline=None)
@given(collections(grades=(0, 1), ties=False))
def test_mrr_with_cutoff_equals_the_ms_marco_script_without_ties(collection: Collection) -> None:
    ranks, qrels = collection.rows()
    expected = official(collection, [RR @ 10, RR @ 2])
    for k, measure in ((10, RR @ 10), (2, RR @ 2)):
        row = [expected[str(measure)].get(q, 0.0) for q in collection.qrels]
        np.testing.assert_allclose(metrics.reciprocal_rank(ranks, qrels, k), row, rtol=0, atol=1e-9)


def test_another_order_of_ties_gives_another_value() -> None:
    """Negative control: the comparison with trec_eval notices documents ordered by ascending id."""
    collection = Collection({"q": {"a": 1}}, {"q": {"a": 1.0, "b": 1.0}})
    ranks, qrels = collection.rows()
    assert ranks.tolist() == [2]
    right = official(collection, [RR])["RR"]["q"]
    assert metrics.reciprocal_rank(ranks, qrels)[0] == right == 0.5
    assert metrics.reciprocal_rank(np.array([1]), qrels)[0] != right


def small_qrels(grades: list[int], queries: int = 1, query_rows: list[int] | None = None) -> Qrels:
    rows = np.zeros(len(grades), np.int64) if query_rows is None else np.array(query_rows)
    return Qrels(rows, np.arange(len(grades)), np.array(grades, np.int32), queries)


@pytest.mark.parametrize("name", [*DEFAULT_METRICS, "map", "success@5", "recall"])
def test_query_without_judgements_or_relevant_documents_counts_zero(name: str) -> None:
    qrels = small_qrels([1, 0, -1], queries=4, query_rows=[0, 1, 1])
    assert evaluate(np.array([1, 1, 2]), qrels, [name])[name].tolist() == [1, 0, 0, 0]


def test_no_judgements_and_no_queries() -> None:
    nothing = evaluate(np.zeros(0, np.int64), small_qrels([], queries=2), DEFAULT_METRICS)
    assert all(values.tolist() == [0, 0] for values in nothing.values())
    assert set(mean(evaluate(np.zeros(0, np.int64), small_qrels([], queries=0), DEFAULT_METRICS)).values()) == {0}


def test_mean_counts_every_query() -> None:
    qrels = small_qrels([1, 1], queries=4, query_rows=[0, 2])
    assert mean(evaluate(np.array([2, 0]), qrels, ["mrr"])) == {"mrr": 0.125}


def test_mrr_cutoff_is_zero_below_it() -> None:
    qrels = small_qrels([1, 1], queries=2, query_rows=[0, 1])
    assert metrics.reciprocal_rank(np.array([10, 11]), qrels, 10).tolist() == [0.1, 0]


def test_order_of_judgements_is_free() -> None:
    rng = np.random.default_rng(0)
    rows, grades = np.repeat(np.arange(5), 6), rng.integers(-1, 4, 30)
    ranks = np.concatenate([rng.permutation(9)[:6] for _ in range(5)])
    names = ["mrr", "recall@3", "ndcg@4", "map", "success@1"]
    shuffle = rng.permutation(30)
    sorted_ = evaluate(ranks, Qrels(rows, rows, grades, 5), names)
    mixed = evaluate(ranks[shuffle], Qrels(rows[shuffle], rows, grades[shuffle], 5), names)
    for name in names:
        np.testing.assert_allclose(sorted_[name], mixed[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("mmr@10", "did you mean 'mrr'"),
        ("NDCG@10", "valid: map, mrr, ndcg, recall, success"),
        ("recal@5", "did you mean 'recall'"),
        ("", "valid: map"),
        ("mrr@", "'mrr@' needs a positive whole number"),
        ("mrr@0", "as in mrr@10"),
        ("ndcg@ten", "as in ndcg@10"),
        ("map@-1", "'map@-1'"),
        ("map@1_0", "'map@1_0'"),
    ],
)
def test_wrong_name_says_what_is_valid(name: str, part: str) -> None:
    with pytest.raises(UserError) as error:
        evaluate(np.zeros(0, np.int64), small_qrels([]), ["mrr", name])
    assert part in str(error.value)


def test_parse() -> None:
    assert parse("mrr@10") == (metrics.reciprocal_rank, 10)
    assert parse("ndcg") == (metrics.ndcg, None)
