"""The metrics as a `torchmetrics.Metric`: queries of many batches and processes in, values over all of them out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from two_tower.metrics import DEFAULT_METRICS, Qrels, from_ranks, mean, parse


class RankMetrics(Metric):
    """Recall, Success, MRR, nDCG and MAP over all queries of all batches and processes.

    The values are bit for bit those of `two_tower.metrics.from_ranks` on all queries at once, however the queries are
    divided. torchmetrics' own retrieval functions are no part of it: they take scores of at most 0 as not retrieved,
    and their recall divides by the relevant documents retrieved.

    ``update`` and ``forward`` take ``ranks``, (P,) integers, array or tensor on any device: the 1-based rank of each
    judged document, 0 = not retrieved; and ``qrels``, the P judgements, with query rows from 0 in every batch.

    A query that two processes see counts twice, so give each its own (Lightning's DistributedSampler repeats some).
    ``options`` are those of `torchmetrics.Metric`, such as ``process_group``.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False  # forward need not update twice
    values: list[Tensor]

    def __init__(self, names: Sequence[str] = DEFAULT_METRICS, threshold: int = 1, **options: Any) -> None:  # noqa: ANN401
        super().__init__(**options)
        for name in names:
            parse(name)
        self.names, self.threshold = tuple(names), threshold
        # Processes must send tensors of one type and number of dimensions, and for one without queries torchmetrics
        # sends an empty vector of the metric's type: hence float64, and the values of all queries in one row.
        self.set_dtype(torch.float64)
        self.add_state("values", default=[], dist_reduce_fx="cat")

    def update(self, ranks: np.ndarray | Tensor, qrels: Qrels) -> None:
        per_query = from_ranks(torch.as_tensor(ranks).cpu().numpy(), qrels, self.names, self.threshold)
        flat = np.stack([per_query[name] for name in self.names], axis=1).ravel()
        self.values.append(torch.from_numpy(flat).to(self.device))

    def compute(self) -> dict[str, Tensor]:
        """Name → mean over all queries since ``reset``, a float64 scalar."""
        means = mean(self._per_query())
        return {name: torch.tensor(value, dtype=torch.float64, device=self.device) for name, value in means.items()}

    def per_query(self) -> dict[str, np.ndarray]:
        """Name → (Q,) float64, every query's value: those of the first process first. All processes must call it."""
        with self.sync_context():
            return self._per_query()

    def _per_query(self) -> dict[str, np.ndarray]:
        flat = dim_zero_cat(self.values) if len(self.values) else torch.zeros(0, dtype=torch.float64)
        return dict(zip(self.names, flat.cpu().numpy().reshape(-1, len(self.names)).T, strict=True))
