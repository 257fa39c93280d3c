"""Metrics against plain loops and trec_eval itself (pytrec_eval, through ir_measures); in batches and at once."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import ir_measures
import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import AP, RR, R, Success, nDCG

from two_tower import metrics
from two_tower.errors import UserError
from two_tower.metrics import DEFAULT_METRICS, Qrels, from_ranks, mean
from two_tower.metrics.rank_metrics import RankMetrics

CUTOFFS = (None, 1, 2, 3, 10)
ORACLES = {
    "mrr": oracles.reciprocal_rank, "recall": oracles.recall, "success": oracles.success,
    "ndcg": oracles.ndcg, "map": oracles.average_precision,
}  # fmt: skip


@dataclass
class Collection:
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
        queries, found, grades = zip(*judged, strict=True) if judged else ((), (), ())
        rows = np.array([documents.index(d) for d in found], np.int64)
        return np.array(ranks, np.int64), Qrels(
            np.array(queries, np.int64), rows, np.array(grades, np.int32), len(names)
        )


DOCUMENTS = ["1", "10", "2", "a", "b", "Z", "é", "中", "zz", "d_9", "d_10", "d_90", "-1", "A"]


def some(seed: int, queries: int = 400, grades: tuple[int, int] = (0, 3), ties: bool = True) -> Collection:
    """Queries over 14 documents: several or no positives, no results, results beyond rank 10, many equal scores."""
    rng = np.random.default_rng(seed)

    def documents(least: int = 1) -> list[str]:
        return rng.permutation(DOCUMENTS)[: rng.integers(least, len(DOCUMENTS) + 1)].tolist()

    def results() -> dict[str, float]:
        names = documents(rng.choice([1, 11]))
        if not ties:
            return {d: float(score) for d, score in zip(names, rng.permutation(14) - 7, strict=False)}
        scores = rng.choice([-1.5, -1.0, 0.0, 0.25, 3.0], 1 if rng.random() < 0.2 else len(names))
        return dict(zip(names, np.broadcast_to(scores, len(names)).tolist(), strict=True))

    def judgements() -> dict[str, int]:
        highest = rng.integers(grades[0], grades[1] + 1)
        return {d: int(rng.integers(grades[0], highest + 1)) for d in documents()}

    judged = {f"q{i}": judgements() for i in range(queries)}
    return Collection(judged, {q: results() for q in judged if rng.random() < 0.8})


@pytest.mark.parametrize("threshold", [1, 2, 3])
def test_metrics_equal_plain_loops(threshold: int) -> None:
    collection = some(threshold, 200, (-2, 3))
    ranks, qrels = collection.rows()
    names = [f"{base}@{k}" if k else base for base in ORACLES for k in CUTOFFS]
    values = from_ranks(ranks, qrels, names, threshold)
    rankings = collection.rankings
    for name in names:
        base, _, k = name.partition("@")
        at = int(k) if k else None
        expected = [ORACLES[base](rankings[q], grades, at, threshold) for q, grades in collection.qrels.items()]
        assert values[name].dtype == np.float64
        np.testing.assert_allclose(values[name], expected, rtol=0, atol=1e-12, err_msg=name)


def official(collection: Collection, measures: list) -> dict[str, dict[str, float]]:
    values: dict[str, dict[str, float]] = {}
    for metric in ir_measures.iter_calc(measures, collection.qrels, collection.run):
        values.setdefault(str(metric.measure), {})[metric.query_id] = metric.value
    return values


def paired(threshold: int) -> dict[str, ir_measures.Measure]:
    rel = {"rel": threshold}
    return {
        "mrr": RR(**rel), "ndcg": nDCG, "map": AP(**rel),
        **{f"recall@{k}": R(**rel) @ k for k in (1, 3, 10, 100)},
        **{f"success@{k}": Success(**rel) @ k for k in (1, 5, 10)},
        **{f"ndcg@{k}": nDCG @ k for k in (1, 2, 10)},
        **{f"map@{k}": AP(**rel) @ k for k in (2, 10)},
    }  # fmt: skip


def compare(seen: Collection, collection: Collection, threshold: int = 1) -> None:
    """Our figures of ``seen``, by query and on average, are trec_eval's of ``collection``; only a control gives two."""
    measures, (ranks, qrels) = paired(threshold), seen.rows()
    values = from_ranks(ranks, qrels, [*measures], threshold)
    expected = official(collection, [*measures.values()])
    means, own_means = ir_measures.calc_aggregate([*measures.values()], collection.qrels, collection.run), mean(values)
    for name, measure in measures.items():
        ours = dict(zip(seen.qrels, values[name].tolist(), strict=True))
        for q in collection.qrels:
            assert abs(ours.get(q, 0.0) - expected[str(measure)][q]) <= 1e-9, (name, q)
        assert abs(own_means[name] - means[measure]) <= 1e-9, name


# pytrec_eval crashes on negative grades, which are not relevant like 0: they are left to the plain loops.
@pytest.mark.parametrize("threshold", [1, 2])
def test_metrics_equal_trec_eval(threshold: int) -> None:
    collection = some(threshold, 1000)
    compare(collection, collection, threshold)


def placed(run: dict[str, float], ranking: list[str]) -> dict[str, float]:
    assert run.keys() == {*ranking}
    return {d: -float(place) for place, d in enumerate(ranking)}


Mistake = Callable[[Collection], Collection]


def with_results(change: Callable[[dict[str, float]], dict[str, float]]) -> Mistake:
    return lambda c: Collection(c.qrels, {q: change(results) for q, results in c.run.items()})


def with_grades(change: Callable[[dict[str, int], dict[str, float]], dict[str, int]]) -> Mistake:
    return lambda c: Collection({q: change(grades, c.run.get(q, {})) for q, grades in c.qrels.items()}, c.run)


def without(keep: Callable[[Collection, str], bool]) -> Mistake:
    return lambda c: Collection({q: grades for q, grades in c.qrels.items() if keep(c, q)} or c.qrels, c.run)


def as_number(d: str) -> tuple[bool, int, str]:
    return d.isdecimal(), int(d) if d.isdecimal() else 0, d


# Mistakes that evaluations make, as what they take a collection for.
MISTAKES: dict[str, Mistake] = {
    "ties by ascending id": with_results(lambda r: placed(r, sorted(r, key=lambda d: (-r[d], d.encode())))),
    "ties as they come": with_results(lambda r: placed(r, sorted(r, key=lambda d: -r[d]))),
    "ids as numbers where they are": with_results(
        lambda r: placed(r, sorted(r, key=lambda d: (r[d], as_number(d)), reverse=True))
    ),
    "scores of at most 0 are not retrieved": with_results(lambda r: {d: s for d, s in r.items() if s > 0}),
    "smaller scores are better": with_results(lambda r: {d: -s for d, s in r.items()}),
    "recall divides by the positives found": with_grades(lambda g, r: {d: v for d, v in g.items() if d in r}),
    "the first positive only": with_grades(lambda g, _: dict(sorted(g.items(), key=lambda item: -item[1])[:1])),
    "all grades are 1": with_grades(lambda g, _: {d: min(v, 1) for d, v in g.items()}),
    "the threshold is one lower": with_grades(lambda g, _: {d: v + 1 for d, v in g.items()}),
    "the threshold is one higher": with_grades(lambda g, _: {d: max(v - 1, 0) for d, v in g.items()}),
    "queries without results are left out": without(lambda c, q: q in c.run),
    "queries without a positive are left out": without(lambda c, q: max(c.qrels[q].values()) > 0),
    "results end at rank 10": lambda c: Collection(
        c.qrels, {q: {d: c.run[q][d] for d in c.rankings[q][:10]} for q in c.run}
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_comparison_notices(mistake: str) -> None:
    """Negative controls: the same comparison tells each mistake from trec_eval, among a few queries."""
    collection = some(0, 100)
    compare(collection, collection)
    with pytest.raises(AssertionError):
        compare(MISTAKES[mistake](collection), collection)


# ir_measures takes RR@10 from the MS MARCO script, which breaks ties the other way.
def test_mrr_with_cutoff_equals_the_ms_marco_script_without_ties() -> None:
    collection = some(0, grades=(0, 1), ties=False)
    ranks, qrels = collection.rows()
    expected = official(collection, [RR @ 10, RR @ 2])
    for k, measure in ((10, RR @ 10), (2, RR @ 2)):
        row = [expected[str(measure)].get(q, 0.0) for q in collection.qrels]
        np.testing.assert_allclose(metrics.reciprocal_rank(ranks, qrels, k), row, rtol=0, atol=1e-9)


def test_query_without_judgements_or_relevant_documents_counts_zero() -> None:
    names, nothing = [*DEFAULT_METRICS, "map", "success@5"], np.zeros(0, np.int64)
    qrels = Qrels(np.array([0, 1, 1]), np.arange(3), np.array([1, 0, -1], np.int32), 4)
    assert {tuple(v) for v in from_ranks(np.array([1, 1, 2]), qrels, names).values()} == {(1, 0, 0, 0)}
    for queries in (2, 0):
        values = from_ranks(nothing, Qrels(nothing, nothing, np.zeros(0, np.int32), queries), names)
        assert {tuple(v) for v in values.values()} == {(0,) * queries}
        assert set(mean(values).values()) == {0}


def test_order_of_judgements_is_free() -> None:
    rng = np.random.default_rng(0)
    rows, grades = np.repeat(np.arange(5), 6), rng.integers(-1, 4, 30)
    ranks = np.concatenate([rng.permutation(9)[:6] for _ in range(5)])
    names = ["mrr", "recall@3", "ndcg@4", "map", "success@1"]
    shuffle = rng.permutation(30)
    sorted_ = from_ranks(ranks, Qrels(rows, rows, grades, 5), names)
    mixed = from_ranks(ranks[shuffle], Qrels(rows[shuffle], rows, grades[shuffle], 5), names)
    for name in names:
        np.testing.assert_allclose(sorted_[name], mixed[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "part"),
    [("mmr@10", "did you mean 'mrr'"), ("NDCG@10", "valid: map, mrr, ndcg, recall, success"),
     ("mrr@0", "'mrr@0' needs a positive whole number after the @, as in mrr@10"), ("map@1_0", "'map@1_0'")],
)  # fmt: skip
def test_wrong_name_says_what_is_valid(name: str, part: str) -> None:
    for refuse in (lambda names: from_ranks(np.array([1]), judged()[1], names), RankMetrics):
        with pytest.raises(UserError, match=part):
            refuse(["mrr", name])


NAMES = (*DEFAULT_METRICS, "map", "success@3")
QUERIES = 37


def judged() -> tuple[np.ndarray, Qrels]:
    """Ranks and judgements of 37 queries, none to six of each; the last query has none."""
    rng = np.random.default_rng(0)
    rows = np.sort(rng.integers(0, QUERIES - 1, 110))
    ranks, grades = rng.integers(0, 14, 110), rng.integers(-1, 4, 110)
    return ranks, Qrels(rows, np.arange(110), grades.astype(np.int32), QUERIES)


def batch(queries: Sequence[int]) -> tuple[np.ndarray, Qrels]:
    ranks, qrels = judged()
    parts = [np.flatnonzero(qrels.query_rows == query) for query in queries]
    chosen = np.concatenate([*parts, np.zeros(0, np.int64)]).astype(np.int64)
    rows = np.repeat(np.arange(len(queries)), [len(part) for part in parts])
    return ranks[chosen], Qrels(rows, qrels.document_rows[chosen], qrels.grades[chosen], len(queries))


def computed(metrics: RankMetrics) -> dict[str, float]:
    values = metrics.compute()
    assert all(value.shape == () and value.dtype == torch.float64 for value in values.values())
    return {name: value.item() for name, value in values.items()}


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(QUERIES)), st.sets(st.integers(0, QUERIES)), st.integers(1, 3), st.booleans())
def test_batches_give_the_values_of_all(order: list[int], cuts: set[int], threshold: int, as_tensors: bool) -> None:
    metrics = RankMetrics(NAMES, threshold)
    for start, end in pairwise([0, *sorted(cuts), QUERIES]):
        ranks, qrels = batch(order[start:end])
        metrics.update(torch.from_numpy(ranks) if as_tensors else ranks, qrels)
    expected = from_ranks(*judged(), NAMES, threshold)
    assert computed(metrics) == mean(expected)  # bit for bit
    for name, values in metrics.per_query().items():
        np.testing.assert_array_equal(values, expected[name][order])
    assert len({*mean(expected).values()}) > 3


@settings(max_examples=30)
@given(st.integers(0, QUERIES), st.integers(0, QUERIES), st.integers(1, 40))
def test_blocks_of_queries_are_batches(start: int, stop: int, size: int) -> None:
    ranks, qrels = judged()
    metrics, nothing = RankMetrics(NAMES), np.zeros(0)
    for part, block in qrels.blocks(start, stop, size):
        metrics.update(ranks[part], block)
    for name, values in metrics.per_query().items():
        expected = from_ranks(ranks, qrels, NAMES)[name][start:stop]
        np.testing.assert_array_equal(values, expected if len(expected) else nothing)


@pytest.mark.parametrize("queries", [range(QUERIES - 1), [*range(QUERIES), 0]])
def test_queries_twice_would_count_twice(queries: Sequence[int]) -> None:
    """Negative control: the comparison notices a query that is missing or repeated."""
    metrics = RankMetrics(NAMES)
    metrics.update(*batch(queries))
    assert computed(metrics) != mean(from_ranks(*judged(), NAMES))


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_queries_and_reset() -> None:
    metrics, nothing = RankMetrics(), dict.fromkeys(DEFAULT_METRICS, 0.0)
    assert computed(metrics) == nothing
    metrics.update(*judged())
    assert computed(metrics)["mrr"] > 0
    metrics.reset()
    assert computed(metrics) == nothing
    metrics.update(*batch([]))
    assert computed(metrics) == nothing


def test_the_functions_do_without_torchmetrics() -> None:
    """It takes two seconds, which ``two-tower --help`` shall not."""
    heavy = "{'torchmetrics', 'torch'} & sys.modules.keys()"
    code = f"import sys, two_tower.cli, two_tower.metrics; sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
