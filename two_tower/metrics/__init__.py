"""Retrieval metrics as trec_eval defines them: pure functions of the ranks of the judged documents, and their file.

Every metric takes ``ranks``, (P,) int64, the 1-based rank of each judged document, 0 = not retrieved; ``qrels``, the P
judgements of Q queries; ``k``, the cutoff, None = the whole ranking; and ``threshold``, the lowest grade that is
relevant. It returns (Q,) float64, 0 for a query without relevant documents.

`two_tower.metrics.rank_metrics` is a torchmetrics class over them. It is not imported here: torchmetrics takes two
seconds, which a command without training saves.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from two_tower.errors import UserError, one_of
from two_tower.files import atomic_path

DEFAULT_METRICS = ("mrr", "mrr@10", "recall@1", "recall@5", "recall@10", "recall@100", "ndcg@10")
BRIEF_METRICS = ("mrr@10", "recall@100", "ndcg@10")  # where all take too much room


@dataclass(frozen=True, eq=False)
class Qrels:
    """Relevance judgements, counted in rows; a document is judged once for a query."""

    query_rows: np.ndarray  # (P,) int64, the query of each judgement, ascending
    # (P,) int64; -1 is a document that the corpus lacks: nothing finds it, and it counts as missed, as in trec_eval.
    document_rows: np.ndarray
    grades: np.ndarray  # (P,) int32; those below the threshold, 0 and negative ones included, are not relevant
    queries: int  # Q, the number of queries evaluated, rows 0 … Q - 1; a query may have no judgement

    @property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """(P,) query rows and (P,) document rows, as a ranking takes them."""
        return self.query_rows, self.document_rows

    @property
    def present(self) -> np.ndarray:
        """(P,) bool, the judgements of documents that the corpus holds."""
        return self.document_rows >= 0

    def relevant(self, threshold: int = 1) -> np.ndarray:
        """(P,) bool, the judgements of at least this grade."""
        return self.grades >= threshold

    def sum(self, values: np.ndarray) -> np.ndarray:
        """(Q,) float64, the sums of one value per judgement, (P,), over the judgements of each query."""
        return np.bincount(self.query_rows, weights=values, minlength=self.queries)

    def blocks(self, start: int, stop: int, size: int) -> Iterator[tuple[slice, Qrels]]:
        """Blocks of the queries ``start`` to ``stop``: which judgements, and these as judgements of their own."""
        for first in range(start, stop, size):
            last = min(first + size, stop)
            own = slice(*np.searchsorted(self.query_rows, (first, last)).tolist())
            yield own, Qrels(self.query_rows[own] - first, self.document_rows[own], self.grades[own], last - first)


Metric = Callable[[np.ndarray, Qrels, int | None, int], np.ndarray]


def reciprocal_rank(ranks: np.ndarray, qrels: Qrels, k: int | None = None, threshold: int = 1) -> np.ndarray:
    """1 / rank of the first relevant document; 0 if there is none among the first ``k``."""
    hits = _retrieved(ranks, k) & qrels.relevant(threshold)
    values = np.zeros(qrels.queries)
    np.maximum.at(values, qrels.query_rows[hits], 1 / ranks[hits])
    return values


def recall(ranks: np.ndarray, qrels: Qrels, k: int | None = None, threshold: int = 1) -> np.ndarray:
    """The share of *all* relevant documents that is among the first ``k``."""
    relevant = qrels.relevant(threshold)
    return _ratio(qrels.sum(_retrieved(ranks, k) & relevant), qrels.sum(relevant))


def success(ranks: np.ndarray, qrels: Qrels, k: int | None = None, threshold: int = 1) -> np.ndarray:
    """1 if any relevant document is among the first ``k``, else 0."""
    return np.minimum(qrels.sum(_retrieved(ranks, k) & qrels.relevant(threshold)), 1.0)


def ndcg(ranks: np.ndarray, qrels: Qrels, k: int | None = None, threshold: int = 1) -> np.ndarray:
    """Discounted cumulative gain over that of the ideal ranking; 0 for a query without a positive grade.

    The gain is the grade itself (0 for negative ones), the discount log2(rank + 1), and the ideal ranking begins
    with all judged documents by descending grade. As in trec_eval, ``threshold`` has no influence.
    """
    gains = np.maximum(qrels.grades, 0).astype(np.float64)
    ideal_ranks = _places(-gains, qrels)
    return _ratio(_discounted(gains, ranks, qrels, k), _discounted(gains, ideal_ranks, qrels, k))


def average_precision(ranks: np.ndarray, qrels: Qrels, k: int | None = None, threshold: int = 1) -> np.ndarray:
    """The mean, over *all* relevant documents, of the precision at their ranks; 0 for those beyond ``k``."""
    relevant = qrels.relevant(threshold)
    hits = _retrieved(ranks, k) & relevant
    # The hits of a query, in the order of their ranks, have the places 1, 2, 3 …
    places = _places(np.where(hits, ranks, np.iinfo(np.int64).max), qrels)
    return _ratio(qrels.sum(np.where(hits, places / np.maximum(ranks, 1), 0)), qrels.sum(relevant))


_METRICS: dict[str, Metric] = {
    "mrr": reciprocal_rank, "recall": recall, "success": success, "ndcg": ndcg, "map": average_precision
}  # fmt: skip


def parse(name: str) -> tuple[Metric, int | None]:
    """The function and the cutoff that a name such as ``mrr``, ``mrr@10`` or ``ndcg@10`` stands for."""
    base, at, cutoff = name.partition("@")
    if base not in _METRICS:
        raise UserError(f"There is no metric {name!r}; {one_of(base, _METRICS)}; a cutoff follows as in mrr@10.")
    if at and not re.fullmatch("[1-9][0-9]*", cutoff):
        raise UserError(f"Metric {name!r} needs a positive whole number after the @, as in {base}@10.")
    return _METRICS[base], int(cutoff) if at else None


def from_ranks(ranks: np.ndarray, qrels: Qrels, names: Sequence[str], threshold: int = 1) -> dict[str, np.ndarray]:
    """Several metrics by name: ``mrr``, ``recall``, ``success``, ``ndcg`` or ``map``, perhaps with a cutoff."""
    metrics = {name: parse(name) for name in names}
    return {name: metric(ranks, qrels, k, threshold) for name, (metric, k) in metrics.items()}


def mean(per_query: dict[str, np.ndarray]) -> dict[str, float]:
    """The mean of each metric over all queries, those without results included; 0 without any query.

    The sums are exact before they are rounded, so no order and no division of the queries changes a mean.
    """
    return {name: math.fsum(values.tolist()) / max(len(values), 1) for name, values in per_query.items()}


class PerQuery(NamedTuple):
    """What ``per_query.csv`` holds of Q queries, in the order of the split; numbers read back equal."""

    ids: list[str]
    values: dict[str, np.ndarray]  # ``METRIC``, ``bm25/METRIC``, perhaps ``hybrid/METRIC`` → (Q,) float64
    texts: list[str]  # empty if the file has none


def write_per_query(
    path: Path, ids: Sequence[str], values: Mapping[str, np.ndarray], texts: Sequence[str] | None = None
) -> None:
    """Write the file, all or nothing; name → (Q,) values, and the texts for people."""
    columns: list[Sequence[str]] = [ids, *([] if texts is None else [texts])]
    columns += [[repr(v) for v in np.asarray(column, np.float64).tolist()] for column in values.values()]
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)  # lines end as in RFC 4180, so that a lone \r is quoted
        rows.writerow(["query", *([] if texts is None else ["text"]), *values])
        rows.writerows(zip(*columns, strict=True))


def read_per_query(path: Path) -> PerQuery:
    """What `write_per_query` wrote."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            head, *rows = csv.reader(file)
        columns: dict[str, Sequence[str]] = dict.fromkeys(head, ())
        columns.update(zip(head, zip(*rows, strict=True), strict=False))
        ids, texts = list(columns.pop("query")), list(columns.pop("text", ()))
        return PerQuery(ids, {name: np.array(column, np.float64) for name, column in columns.items()}, texts)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: the run is of an older version or validates nothing.") from error
    except (ValueError, KeyError, csv.Error) as error:
        raise UserError(f"{path} is not a table of queries and their metrics: {error}.") from error


def _retrieved(ranks: np.ndarray, k: int | None) -> np.ndarray:
    """(P,) bool, the judged documents that are retrieved among the first ``k``."""
    return (ranks > 0) & (ranks <= k) if k is not None else ranks > 0


def _discounted(gains: np.ndarray, ranks: np.ndarray, qrels: Qrels, k: int | None) -> np.ndarray:
    """(Q,) float64, the gains of documents at ``ranks``, discounted and summed."""
    return qrels.sum(np.where(_retrieved(ranks, k), gains / np.log2(np.maximum(ranks, 1) + 1), 0))


def _places(values: np.ndarray, qrels: Qrels) -> np.ndarray:
    """(P,) int64, the 1-based place of each judgement among those of its query by ascending value."""
    ascending = np.lexsort((values, qrels.query_rows))
    counts = np.bincount(qrels.query_rows, minlength=qrels.queries)
    starts = np.cumsum(counts) - counts
    places = np.empty(len(values), np.int64)
    places[ascending] = np.arange(len(values)) - np.repeat(starts, counts) + 1
    return places


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
