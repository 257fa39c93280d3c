"""One ranking from two: the best documents of a tower and of BM25, fused by ranks or by scores.

Knows nothing of models: rankings of the same queries in, a ranking out. Evaluation and search share it, so the figures
of the hybrid are those of what is searched. docs/evaluation.md has measured figures of each way to fuse.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from two_tower.errors import UserError
from two_tower.files import write_json
from two_tower.metrics import Qrels, from_ranks
from two_tower.ranking import Ranking, RowPairs

DEPTH = 100  # documents that each system proposes
CERTAIN = 1.645  # standard errors that a difference exceeds by chance in 5 of 100 cases
WEIGHTS = tuple(i / 20 for i in range(21))


def reciprocal_ranks(ranking: Ranking) -> np.ndarray:
    """(Q, n) float64, 1 / (60 + rank) of each candidate, 0 where there is none (Cormack, Clarke and Büttcher 2009)."""
    return (ranking.rows >= 0) / (61.0 + np.arange(ranking.rows.shape[1]))


def normalize(ranking: Ranking, floor: float | None = None) -> np.ndarray:
    """(Q, n) float64, each candidate's distance above the lowest score in standard deviations of the query's scores.

    It is 0 where there is no candidate, or where all scores are equal. A document that is not a candidate counts as
    one with the lowest score, so its value is 0. Sums of these values rank documents as sums of z-scores do.

    ``floor`` is the score of the documents that a list of fewer than n candidates leaves out, if they have one: 0 for
    BM25. Without it a query's only candidate would be worth nothing.
    """
    present = ranking.rows >= 0
    filled = np.where(present, ranking.scores, 0.0 if floor is None else floor)
    scores = np.ma.masked_array(filled, ~present if floor is None else False)
    scaled = (scores - scores.min(1, keepdims=True)) / scores.std(1, keepdims=True)
    return np.where(present, scaled.filled(0.0), 0.0)


def fuse(
    rankings: Sequence[Ranking], values: Sequence[np.ndarray], *, order: np.ndarray, pairs: RowPairs | None = None
) -> Ranking:
    """Rank the candidates (Q, n_1), (Q, n_2) … of several rankings by the sums of their values, of the same shapes.

    ``order`` (N,) decides between equal sums, see `two_tower.ranking.rank`. Rows are (Q, n_1 + n_2 …), with their sums
    as scores; pairs that no ranking proposes have rank 0.
    """
    rows = np.concatenate([ranking.rows for ranking in rankings], axis=1)
    # Bring the proposals of each document together: sort every query's candidates by document row.
    by_row = np.argsort(rows, axis=1, kind="stable")
    rows = np.take_along_axis(rows, by_row, 1)
    added = np.take_along_axis(np.concatenate(values, axis=1), by_row, 1)
    # The first proposal of a document takes the sum of all; the others, and empty places (row -1), drop out.
    first = np.ones(rows.shape, bool)
    first[:, 1:] = rows[:, 1:] != rows[:, :-1]
    sums = np.full(rows.shape, -np.inf, np.float32)
    if rows.size:
        sums[first] = np.add.reduceat(added.ravel(), np.flatnonzero(first))
    sums = np.where(rows >= 0, sums, np.float32(-np.inf))
    best = np.lexsort((order[rows], sums), axis=1)[:, ::-1]
    sums = np.take_along_axis(sums, best, 1)
    rows = np.where(sums > -np.inf, np.take_along_axis(rows, best, 1), -1)
    return Ranking(rows, sums, np.zeros(0, np.int64) if pairs is None else _ranks(rows, pairs))


def _ranks(rows: np.ndarray, pairs: RowPairs) -> np.ndarray:
    """(P,) int64, the 1-based place of each pair's document among the (Q, n) rows of its query; 0 if absent."""
    queries, documents = (np.asarray(each, np.int64) for each in pairs)
    # A query and a document make one integer, so that one sorted look-up finds all pairs.
    base = 1 + max(rows.max(initial=0), documents.max(initial=0))
    q, place = np.nonzero(rows >= 0)
    keys = q * base + rows[q, place]
    ascending = np.argsort(keys)
    keys, place = np.append(keys[ascending], -1), np.append(place[ascending], -1)  # -1: found by no pair
    wanted = np.where(documents >= 0, queries * base + documents, -2)
    at = np.searchsorted(keys[:-1], wanted)
    return np.where(keys[at] == wanted, place[at] + 1, 0)


@dataclass(frozen=True)
class Fusion:
    """How a run's tower and BM25 are fused, and on what that was decided."""

    method: str  # ``weighted_sum`` of scores (`normalize`), or ``reciprocal_rank`` fusion
    weight: float | None  # the tower's part of the sum, 0 to 1; BM25 has the rest. None for reciprocal rank fusion
    depth: int  # documents that each of the two proposes
    split: str  # the queries on which method and weight were chosen
    metric: str  # what was best there
    data: str = ""  # fingerprint of the collection they belong to
    checkpoint: str = ""  # checksum of the towers
    unseen: bool = False  # whether these queries look for passages that the towers have not learned

    def __call__(self, tower: Ranking, bm25: Ranking, *, order: np.ndarray, pairs: RowPairs | None = None) -> Ranking:
        """The fused ranking; arguments as in `fuse`. Candidates beyond the depth are left out."""
        cut = (slice(None), slice(self.depth))
        tower, bm25 = (replace(r, rows=r.rows[cut], scores=r.scores[cut]) for r in (tower, bm25))
        if self.weight is None:
            values = [reciprocal_ranks(tower), reciprocal_ranks(bm25)]
        else:
            values = [self.weight * normalize(tower), (1 - self.weight) * normalize(bm25, floor=0.0)]
        return fuse([tower, bm25], values, order=order, pairs=pairs)

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path, checkpoint: str) -> Fusion | None:
        """What `write` wrote (``hybrid.json`` of a run); None if there is nothing that suits these towers."""
        try:
            fusion = cls(**json.loads(path.read_text(encoding="utf-8")))
            return fusion if fusion.checkpoint == checkpoint else None
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} cannot be read ({error}): delete it, and the weight is chosen again.") from error


# Where no queries can choose. A tower's own queries flatter it: it knows their passages, and not those of others.
EVEN = Fusion("weighted_sum", 0.5, DEPTH, "", "")


@dataclass(frozen=True)
class Judged:
    """Judgements of Q queries, and what a fusion chosen on them maximizes."""

    order: np.ndarray  # (N,) decides between equal sums
    qrels: Qrels
    metric: str  # see `two_tower.metrics`
    split: str  # name of the queries
    threshold: int = 1  # the lowest grade that is relevant


def tune(
    tower: Ranking, bm25: Ranking, judged: Judged, queries: np.ndarray | None = None, depth: int = DEPTH
) -> Fusion:
    """Choose what suits the queries of one split: reciprocal ranks, or a weight among 0, .05 … 1.

    Of the weights that are not worse than the best one by more than chance (p < .05, paired by query) it takes the one
    nearest to even: the best of few queries is best by chance, and other queries are not those. Reciprocal ranks are
    taken only where they beat the best weight by more than chance. Given a (Q,) bool mask, only these queries count.
    """
    if queries is not None:
        judged = replace(judged, qrels=_select_qrels(judged.qrels, queries))
        tower, bm25 = _select(tower, queries), _select(bm25, queries)
    metric, split, qrels = judged.metric, judged.split, judged.qrels

    def values(fusion: Fusion) -> np.ndarray:
        ranking = fusion(tower, bm25, order=judged.order, pairs=qrels.pairs)
        return from_ranks(ranking.ranks, qrels, [metric], judged.threshold)[metric]

    sums = [Fusion("weighted_sum", weight, depth, split, metric) for weight in WEIGHTS]
    figures = [values(fusion) for fusion in sums]
    best = max(figures, key=np.mean)
    by_rank = Fusion("reciprocal_rank", None, depth, split, metric)
    if _is_better(values(by_rank), best):
        return by_rank
    near = [fusion for fusion, its in zip(sums, figures, strict=True) if not _is_better(best, its)]
    return min(near, key=lambda fusion: abs((fusion.weight or 0.0) - 0.5))


def _is_better(values: np.ndarray, others: np.ndarray) -> bool:
    """Whether (Q,) figures are larger than others of the same queries by more than chance."""
    difference = values - others
    return bool(difference.mean() > CERTAIN * difference.std() / len(difference) ** 0.5)


def cross_fit(tower: Ranking, bm25: Ranking, judged: Judged) -> np.ndarray:
    """(P,) int64, the ranks of the judged documents where no query's own judgements have a part in its weight.

    Two-fold cross-fitting: the queries are divided into two halves, and how each is fused is chosen (`tune`) on the
    other. The two may choose differently, so the ranking belongs to no single `Fusion`.
    """
    qrels = judged.qrels
    if qrels.queries < 2:
        raise UserError("validation.hybrid=true needs two queries at least: one half chooses the weight of the other.")
    half_of = halves(qrels.queries)
    ranks = np.zeros(len(qrels.query_rows), np.int64)
    for half in (False, True):
        theirs, own = half_of != half, half_of == half
        fusion = tune(tower, bm25, judged, theirs)
        pairs = _select_qrels(qrels, own).pairs
        fused = fusion(_select(tower, own), _select(bm25, own), order=judged.order, pairs=pairs)
        ranks[own[qrels.query_rows]] = fused.ranks
    return ranks


def halves(queries: int) -> np.ndarray:
    """(Q,) bool, the half of each query, by chance but always the same."""
    return np.random.default_rng(0).permutation(queries) % 2 == 1


def _select(ranking: Ranking, queries: np.ndarray) -> Ranking:
    return replace(ranking, rows=ranking.rows[queries], scores=ranking.scores[queries])


def _select_qrels(qrels: Qrels, queries: np.ndarray) -> Qrels:
    """The judgements of the queries of a (Q,) bool mask, counted in rows of these queries."""
    own, new_rows = queries[qrels.query_rows], np.cumsum(queries) - 1
    rows = new_rows[qrels.query_rows[own]]
    return Qrels(rows, qrels.document_rows[own], qrels.grades[own], int(np.count_nonzero(queries)))
