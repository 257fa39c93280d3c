"""The metrics as a `torchmetrics.Metric`: queries of many batches and processes in, means over all of them out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from two_tower.metrics.functional import DEFAULT_METRICS, Qrels, evaluate, mean, parse

__all__ = ["RankMetrics"]


class RankMetrics(Metric):
    """Recall, Success, MRR, nDCG and MAP over all queries of all batches and processes.

    Keeps what every query scores, 8 bytes for each metric. Its means are bit for bit those of
    `two_tower.metrics.evaluate` and `two_tower.metrics.mean` on all queries at once, however they are divided.
    torchmetrics' own retrieval functions are no part of it: they take scores of at most 0 as not retrieved, and
    their recall divides by the relevant documents that were retrieved.

    As input to ``forward`` and ``update``:
        - ``ranks``: (P,) integers, array or tensor on any device; the 1-based rank of each judged document in the
          ranking of its query, 0 = not retrieved.
        - ``qrels``: `Qrels`, the P judgements of the batch; its query rows count from 0 in every batch.

    As output of ``forward`` (of the batch) and ``compute`` (of everything since ``reset``):
        - name → float64 scalar, between 0 and 1.

    A query without judgements, relevant documents or results counts 0. Without queries every value is 0. A query
    that two processes see counts twice, so give each its own (Lightning's DistributedSampler repeats some).

    Args:
        names: ``mrr``, ``recall``, ``success``, ``ndcg`` or ``map``, each alone or with a cutoff: ``mrr@10``.
        threshold: the least grade that is relevant; nDCG does not use it.
        **options: of `torchmetrics.Metric`, such as ``process_group``.

    Raises:
        UserError: an unknown name.

    Example:
        Two queries; of the first, document 7 is relevant and ranked second::

            >>> metrics = RankMetrics(["mrr@10", "recall@1"])
            >>> metrics.update(np.array([2]), Qrels(np.array([0]), np.array([7]), np.array([1]), queries=2))
            >>> {name: value.item() for name, value in metrics.compute().items()}
            {'mrr@10': 0.25, 'recall@1': 0.0}

        In a LightningModule, call ``update`` in ``validation_step`` and, in ``on_validation_epoch_end``,
        ``self.log_dict(self.metrics.compute())`` and ``self.metrics.reset()``.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False  # forward need not update twice
    values: list[Tensor]

    def __init__(
        self,
        names: Sequence[str] = DEFAULT_METRICS,
        threshold: int = 1,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**options)
        for name in names:
            parse(name)
        self.names, self.threshold = tuple(names), threshold
        # Processes must send tensors of one type and number of dimensions, and for one without queries torchmetrics
        # sends an empty vector of the metric's type: hence float64, and the values of all queries in one row.
        self.set_dtype(torch.float64)
        self.add_state("values", default=[], dist_reduce_fx="cat")

    def update(self, ranks: np.ndarray | Tensor, qrels: Qrels) -> None:
        """Add a batch of queries; see the class for shapes."""
        per_query = evaluate(torch.as_tensor(ranks).cpu().numpy(), qrels, self.names, self.threshold)
        flat = np.stack([per_query[name] for name in self.names], axis=1).ravel()
        self.values.append(torch.from_numpy(flat).to(self.device))

    def compute(self) -> dict[str, Tensor]:
        """Name → mean over all queries so far, a float64 scalar; 0 without queries."""
        flat = dim_zero_cat(self.values) if len(self.values) else torch.zeros(0)
        columns = flat.cpu().numpy().reshape(-1, len(self.names)).T
        means = mean(dict(zip(self.names, columns, strict=True)))
        return {name: torch.tensor(value, dtype=torch.float64, device=self.device) for name, value in means.items()}
