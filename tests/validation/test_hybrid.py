"""The hybrid at each check: the figures of the fusion, in which no query had a part in its own weight."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training import rows_with

from two_tower.data.stream.corpus import Split
from two_tower.data.stream.module import TripletData
from two_tower.errors import UserError
from two_tower.fusion import fuse, halves, normalize, reciprocal_ranks
from two_tower.metrics import DEFAULT_METRICS, Qrels, from_ranks
from two_tower.ranking import Ranking, rank
from two_tower.validation._evaluate import Evaluation, fuse_cross_fitted

Fixture = Callable[..., Any]  # see conftest.py in this folder

QUERIES, DOCUMENTS = 31, 40
ORDER = np.random.default_rng(5).permutation(DOCUMENTS)


def make_split(data: TripletData, seed: int = 0) -> Split:
    """Queries with one to three judgements, some of grade 0."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 4, QUERIES)
    documents = [rng.choice(DOCUMENTS, n, replace=False) for n in counts]
    grades = rng.integers(0, 3, counts.sum()).astype(np.int32)
    rows = np.repeat(np.arange(QUERIES), counts)
    return replace(data.validation, qrels=Qrels(rows, np.concatenate(documents), grades, QUERIES))


def evaluation(split: Split, quality: float, seed: int) -> Evaluation:
    """A system that knows the grades, more or less."""
    scores = np.random.default_rng(seed).normal(size=(QUERIES, DOCUMENTS)).astype(np.float32)
    np.add.at(scores, (split.qrels.query_rows, split.qrels.document_rows), quality * split.qrels.grades)
    table = torch.from_numpy(scores)
    ranking = rank(lambda q, d: table[q, d], QUERIES, DOCUMENTS, order=ORDER, pairs=split.qrels.pairs, k=12)
    per_query = from_ranks(ranking.ranks, split.qrels, DEFAULT_METRICS)
    return Evaluation({k: float(v.mean()) for k, v in per_query.items()}, per_query, ranking, 0.0)


def fused(dense: Ranking, bm25: Ranking, split: Split, weight: float | None) -> dict[str, np.ndarray]:
    if weight is None:
        shares = [reciprocal_ranks(dense), reciprocal_ranks(bm25)]
    else:
        shares = [weight * normalize(dense), (1 - weight) * normalize(bm25, floor=0.0)]
    ranks = fuse([dense, bm25], shares, order=ORDER, pairs=split.qrels.pairs).ranks
    return from_ranks(ranks, split.qrels, DEFAULT_METRICS)


@pytest.mark.parametrize("seed", range(3))
def test_each_half_is_fused_as_suits_the_other(seed: int, data: TripletData) -> None:
    split = make_split(data, seed)
    dense, bm25 = evaluation(split, 0.6, seed + 100), evaluation(split, 0.9, seed + 200)
    ways = [*(i / 20 for i in range(21)), None]
    tried = {way: fused(dense.ranking, bm25.ranking, split, way) for way in ways}
    found, second = fuse_cross_fitted(dense, bm25, split, ORDER, "mrr@10"), halves(QUERIES)
    assert abs(int(second.sum()) * 2 - QUERIES) == 1
    for half in (second, ~second):
        elsewhere = {way: values["mrr@10"][~half] for way, values in tried.items()}
        weights = [way for way in ways if way is not None]
        losses = {way: max((elsewhere[w] for w in weights), key=np.mean) - elsewhere[way] for way in ways}
        good = [w for w in weights if losses[w].mean() <= 1.645 * losses[w].std() / len(losses[w]) ** 0.5]
        way = min(good, key=lambda weight: abs(weight - 0.5))  # reciprocal ranks are never far better here
        assert all((found.per_query[m][half] == tried[way][m][half]).all() for m in DEFAULT_METRICS)
    assert found.means == {name: pytest.approx(values.mean()) for name, values in found.per_query.items()}


def test_one_query_cannot_be_divided(data: TripletData) -> None:
    split = make_split(data)
    dense = evaluation(split, 0.6, 1)
    alone = replace(split, qrels=Qrels(np.zeros(1, np.int64), np.zeros(1, np.int64), np.ones(1, np.int32), 1))
    with pytest.raises(UserError, match="needs two queries at least"):
        fuse_cross_fitted(dense, dense, alone, ORDER, "mrr@10")


def test_a_run_shows_and_keeps_the_hybrid(fit: Fixture, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = fit(tmp_path / "run", "validation.hybrid=true", "validation.every_n_steps=3", "trainer.max_epochs=1")
    lines = capsys.readouterr().out.splitlines()
    rows = rows_with("val/mrr@10", tmp_path / "run")
    assert len(rows) == 2  # after 3 and 5 steps
    shown = [line.split()[3:10] for line in lines if line.startswith("  with BM25 ")]
    assert shown == [[f"{float(row[f'hybrid/{name}']):.3f}" for name in DEFAULT_METRICS] for row in rows]
    checks = [place for place, line in enumerate(lines) if line.startswith(("step ", "epoch "))]
    assert [lines[place + 1].split()[:2] for place in checks] == [["with", "BM25"]] * 2
    best = next(row for row in rows if int(row["step"]) + 1 == results["best_step"])
    for name in DEFAULT_METRICS:
        assert results[f"hybrid/{name}"] == float(best[f"hybrid/{name}"])
    assert (tmp_path / "run" / "report.md").read_text().count("| with BM25 |") == 2
