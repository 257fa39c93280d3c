"""One ranking of two: the best documents of a tower and of BM25, fused by ranks or by scores.

Knows nothing of models: rankings of the same queries in, a ranking out. Evaluation and search share it, so a
figure of the hybrid is a figure of what is searched.

Measured (MRR@10 on ``test`` with the weight chosen on ``dev``, 100 candidates of each):

============================================  ======  ========
what                                          pydocs  MS MARCO
============================================  ======  ========
average tower                                 .496    .669
BM25                                          .536    .830
reciprocal rank fusion                        .549    .762
weighted sum of scores scaled to 0 … 1        .580    .840
weighted sum of scores in standard deviations .585    .841
============================================  ======  ========

The last three had this order in each of five runs. With 200 or 1,000 candidates they move by at most .005.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from two_tower.errors import UserError
from two_tower.files import write_json
from two_tower.metrics import Qrels, evaluate, mean
from two_tower.ranking import Ranking

__all__ = ["DEPTH", "Fusion", "fuse", "normalised", "reciprocal_ranks", "tune"]

DEPTH = 100  # documents that each system proposes
WEIGHTS = tuple(i / 20 for i in range(21))


def reciprocal_ranks(ranking: Ranking, k: int = 60) -> np.ndarray:
    """Reciprocal rank fusion (Cormack, Clarke and Büttcher 2009): 1 / (k + rank) for each candidate.

    Args:
        ranking: (Q, n) candidates.
        k: how little the first ranks stand out; 60 in the paper.

    Returns:
        (Q, n) float64 shares for `fuse`; 0 where there is no candidate.
    """
    return (ranking.rows >= 0) / (k + 1.0 + np.arange(ranking.rows.shape[1]))


def normalised(ranking: Ranking, floor: float | None = None) -> np.ndarray:
    """How far each candidate's score lies above the least one, in standard deviations of the query's scores.

    A document that is no candidate counts as one with the least score, which is 0. Sums of these rank documents
    as sums of z-scores do.

    Args:
        ranking: (Q, n) candidates.
        floor: the score of the documents that a list of fewer than n candidates leaves out, if they have one: 0 for
            BM25. Without it a query's only candidate would be worth nothing.

    Returns:
        (Q, n) float64 shares for `fuse`; 0 where there is no candidate, or where all scores are equal.
    """
    found = ranking.rows >= 0
    filled = np.where(found, ranking.scores, 0.0 if floor is None else floor)
    scores = np.ma.masked_array(filled, ~found if floor is None else False)
    scaled = (scores - scores.min(1, keepdims=True)) / scores.std(1, keepdims=True)
    return np.where(found, scaled.filled(0.0), 0.0)


def fuse(
    rankings: Sequence[Ranking],
    shares: Sequence[np.ndarray],
    *,
    order: np.ndarray,
    pairs: tuple[np.ndarray, np.ndarray] | None = None,
) -> Ranking:
    """Rank all candidates of several rankings by the sums of their shares.

    Args:
        rankings: of the same Q queries over the same documents, n_1, n_2 … candidates each.
        shares: what each candidate of each ranking adds, (Q, n_1), (Q, n_2) …
        order: (N,) decides between equal sums, see `two_tower.ranking.rank`.
        pairs: (P,) query rows and (P,) document rows whose ranks are asked for.

    Returns:
        Rows (Q, n_1 + n_2 …), with their sums as scores; rank 0 for pairs that no ranking proposes.
    """
    rows = np.concatenate([ranking.rows for ranking in rankings], axis=1)
    scores = np.concatenate(shares, axis=1)
    by_row = np.argsort(rows, axis=1, kind="stable")
    rows, scores = np.take_along_axis(rows, by_row, 1), np.take_along_axis(scores, by_row, 1)
    first = np.ones(rows.shape, bool)  # of equal rows, which take the sum; the others are struck out
    first[:, 1:] = rows[:, 1:] != rows[:, :-1]
    sums = np.full(rows.shape, -np.inf, np.float32)
    if rows.size:
        sums[first] = np.add.reduceat(scores.ravel(), np.flatnonzero(first))
    kept = np.where(rows >= 0, sums, np.float32(-np.inf))
    best = np.lexsort((order[rows], kept), axis=1)[:, ::-1]
    kept = np.take_along_axis(kept, best, 1)
    rows = np.where(kept > -np.inf, np.take_along_axis(rows, best, 1), -1)
    return Ranking(rows, kept, _ranks(rows, pairs))


def _ranks(rows: np.ndarray, pairs: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    """(P,) int64, 1-based places of the pairs' documents in the rows of their queries; 0 where they are absent."""
    if pairs is None:
        return np.zeros(0, np.int64)
    queries, documents = (np.asarray(each, np.int64) for each in pairs)
    q, place = np.nonzero(rows >= 0)
    base = 1 + max(rows.max(initial=0), documents.max(initial=0))
    keys = q * base + rows[q, place]
    ascending = np.argsort(keys)
    keys, place = np.append(keys[ascending], -1), np.append(place[ascending], -1)
    wanted = np.where(documents >= 0, queries * base + documents, -2)
    at = np.searchsorted(keys[:-1], wanted)
    return np.where(keys[at] == wanted, place[at] + 1, 0)


@dataclass(frozen=True)
class Fusion:
    """How a run's tower and BM25 are fused, and on what that was decided.

    Attributes:
        method: ``weighted_sum`` of `normalised` scores, or ``reciprocal_rank`` fusion.
        weight: the tower's part of the sum, 0 to 1; BM25 has the rest. None for reciprocal rank fusion.
        depth: documents that each of the two proposes.
        split: the queries on which method and weight were chosen.
        metric: what was greatest there.
        data: fingerprint of the collection they belong to.
        checkpoint: checksum of the towers.
    """

    method: str
    weight: float | None
    depth: int
    split: str
    metric: str
    data: str = ""
    checkpoint: str = ""

    def __call__(
        self,
        tower: Ranking,
        bm25: Ranking,
        *,
        order: np.ndarray,
        pairs: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> Ranking:
        """The fused ranking; arguments as in `fuse`. Candidates beyond the depth are left out."""
        tower, bm25 = _cut(tower, self.depth), _cut(bm25, self.depth)
        if self.weight is None:
            shares = [reciprocal_ranks(tower), reciprocal_ranks(bm25)]
        else:
            shares = [self.weight * normalised(tower), (1 - self.weight) * normalised(bm25, floor=0.0)]
        return fuse([tower, bm25], shares, order=order, pairs=pairs)

    def write(self, path: Path) -> None:
        """Write the file ``hybrid.json`` of a run."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Fusion | None:
        """What `write` wrote; None if there is no such file.

        Raises:
            UserError: the file holds something else.
        """
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} cannot be read ({error}): delete it, and the weight is chosen again.") from error


def tune(
    tower: Ranking,
    bm25: Ranking,
    *,
    order: np.ndarray,
    qrels: Qrels,
    metric: str,
    split: str,
    depth: int = DEPTH,
    data: str = "",
    checkpoint: str = "",
    threshold: int = 1,
) -> Fusion:
    """Choose what serves the queries of one split best: reciprocal ranks, or a weight among 0, .05 … 1.

    Of equally good weights it is the middle one, and reciprocal ranks only where they beat all weights.

    Args:
        tower: (Q, n) candidates of the tower.
        bm25: (Q, n) candidates of BM25.
        order: (N,) decides between equal sums.
        qrels: the judgements of the Q queries.
        metric: what shall be greatest, see `two_tower.metrics`.
        split: name of the queries.
        depth: how many candidates of each are taken.
        data: fingerprint of the collection.
        checkpoint: checksum of the towers.
        threshold: the least grade that is relevant.
    """

    def fusion(weight: float | None) -> Fusion:
        method = "reciprocal_rank" if weight is None else "weighted_sum"
        return Fusion(method, weight, depth, split, metric, data, checkpoint)

    def value(weight: float | None) -> float:
        ranking = fusion(weight)(tower, bm25, order=order, pairs=(qrels.query_rows, qrels.document_rows))
        return mean(evaluate(ranking.ranks, qrels, [metric], threshold))[metric]

    values = {weight: value(weight) for weight in WEIGHTS}
    best = max(values.values())
    equal = [weight for weight in WEIGHTS if values[weight] == best]
    return fusion(None if value(None) > best else equal[len(equal) // 2])


def _cut(ranking: Ranking, depth: int) -> Ranking:
    return Ranking(ranking.rows[:, :depth], ranking.scores[:, :depth], ranking.ranks)
