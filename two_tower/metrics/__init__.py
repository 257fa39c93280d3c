"""Retrieval metrics: pure functions of ranks, and over them a torchmetrics class in `two_tower.metrics.rank_metrics`.

Import the class from its own module: torchmetrics takes two seconds, which a command without training saves.
"""

from two_tower.metrics.functional import (
    DEFAULT_METRICS,
    Qrels,
    average_precision,
    from_ranks,
    mean,
    ndcg,
    parse,
    recall,
    reciprocal_rank,
    success,
)  # fmt: skip

__all__ = [
    "DEFAULT_METRICS", "Qrels", "average_precision", "from_ranks", "mean", "ndcg", "parse", "recall", "reciprocal_rank",
    "success",
]  # fmt: skip
