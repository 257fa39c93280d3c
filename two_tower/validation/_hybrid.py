"""What the fusion of the towers with BM25 scores, without a weight that was read off the queries it is applied to."""

from __future__ import annotations

import time

import numpy as np

from two_tower.data.stream.corpus import Split
from two_tower.errors import UserError
from two_tower.fusion import tune
from two_tower.metrics import Qrels, evaluate, mean
from two_tower.ranking import Ranking
from two_tower.validation._evaluate import Evaluation

__all__ = ["evaluate_hybrid", "halves"]


def evaluate_hybrid(dense: Evaluation, bm25: Evaluation, split: Split, order: np.ndarray, monitor: str) -> Evaluation:
    """Metrics of the fusion of two evaluations of the same queries and documents, by two-fold cross-fitting.

    The queries are divided into two halves. How the first half is fused (`two_tower.fusion.tune`) is chosen on the
    second, and the other way round, so no query is fused in a way that its own judgements had a part in; the means
    are over both halves. The two may choose differently, so the ranking belongs to no single `Fusion`.

    Args:
        dense: of the towers.
        bm25: of the lexical baseline.
        split: Q queries with their judgements.
        order: (N,) decides between equal scores, see `two_tower.ranking.rank`.
        monitor: what the choice makes greatest, see `two_tower.metrics`.

    Returns:
        The metrics that ``dense`` has. The ranking has the ranks of the judged documents, and no rows.

    Raises:
        UserError: there are fewer than two queries.
    """
    start, qrels = time.perf_counter(), split.qrels
    if qrels.queries < 2:
        raise UserError("validation.hybrid=true needs two queries at least: one half chooses the weight of the other.")
    ranks, of_pair = np.zeros(len(qrels.query_rows), np.int64), halves(qrels.queries)[qrels.query_rows]
    for half in (False, True):
        chosen_on, applied_to = ([_part(e.ranking, qrels, h) for e in (dense, bm25)] for h in (not half, half))
        (tower, judged), (lexical, _) = chosen_on
        fusion = tune(
            tower, lexical, order=order, qrels=judged, metric=monitor, split=split.name, threshold=split.threshold
        )
        (tower, judged), (lexical, _) = applied_to
        fused = fusion(tower, lexical, order=order, pairs=(judged.query_rows, judged.document_rows))
        ranks[of_pair == half] = fused.ranks
    per_query = evaluate(ranks, qrels, list(dense.per_query), split.threshold)
    nothing = np.zeros((qrels.queries, 0))
    ranking = Ranking(nothing.astype(np.int64), nothing.astype(np.float32), ranks)
    return Evaluation(mean(per_query), per_query, ranking, time.perf_counter() - start)


def halves(queries: int) -> np.ndarray:
    """(Q,) bool, the half of each query: its place in a random order, even or odd. Equal numbers, equal halves."""
    return np.random.default_rng(0).permutation(queries) % 2 == 1


def _part(ranking: Ranking, qrels: Qrels, half: bool) -> tuple[Ranking, Qrels]:
    """Candidates and judgements of the queries of one half, counted in rows of this half."""
    chosen = halves(qrels.queries) == half
    pairs = chosen[qrels.query_rows]
    rows = np.cumsum(chosen) - 1
    part = Qrels(
        rows[qrels.query_rows[pairs]], qrels.document_rows[pairs], qrels.grades[pairs], int(np.count_nonzero(chosen))
    )
    return Ranking(ranking.rows[chosen], ranking.scores[chosen], ranking.ranks[pairs]), part
