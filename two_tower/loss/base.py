"""What a loss sees (scores and a mask, nothing else) and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["COMMON_DIAGNOSTICS", "Loss", "LossOutput", "at_least_float32", "common_diagnostics"]

# What every loss reports in the same meaning, so that the curves of different losses can be compared.
COMMON_DIAGNOSTICS = ("positive_similarity", "negative_similarity", "accuracy", "idle_queries")


class LossOutput(NamedTuple):
    """The scalar to minimise, and what should be plotted beside it (0-dimensional tensors, detached)."""

    loss: Tensor
    diagnostics: dict[str, Tensor]


def at_least_float32(scores: Tensor) -> Tensor:
    """Scores in float32, or float64 as they are: sums of exponentials and differences need the digits."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


@torch.no_grad()
def common_diagnostics(scores_BN: Tensor, candidates_BN: Tensor, counts_B: Tensor, lead_B: Tensor) -> dict[str, Tensor]:
    """The diagnostics that every loss returns.

    Args:
        scores_BN: (B, N) float.
        candidates_BN: (B, N) bool.
        counts_B: (B,) integers, the candidates of each query.
        lead_B: (B,) float, how far each positive is above its nearest candidate, in any unit.

    Returns:
        ``positive_similarity``: mean score of the queries with their positives;
        ``negative_similarity``: mean score of all candidates, 0 if there are none;
        ``accuracy``: share of the queries with candidates whose positive is above all of them, 0 if there are
        none (a tie is not a win: collapsed vectors must read 0, not 1);
        ``idle_queries``: share of the queries that have no candidates and so teach nothing.
    """
    judged_B = counts_B > 0
    return {
        "positive_similarity": scores_BN.diagonal().mean(),
        "negative_similarity": torch.where(candidates_BN, scores_BN, 0).sum() / counts_B.sum().clamp(min=1),
        "accuracy": ((lead_B > 0) & judged_B).sum() / judged_B.sum().clamp(min=1),
        "idle_queries": 1 - judged_B.float().mean(),
    }


class Loss(nn.Module, ABC):
    """Base of all losses.

    Attributes:
        shares_batch: the default of ``negatives.share_batch``: whether every query uses the extra
            documents of all queries of the batch as candidates.
        dims: None for a loss of the whole vectors' scores. Else the numbers of leading dimensions, the whole
            vector first, whose scores it wants: `forward` then gets one matrix of scores for each.
    """

    shares_batch: bool = True
    dims: Sequence[int] | None = None

    @abstractmethod
    def forward(self, scores_BN: Tensor, candidates_BN: Tensor) -> LossOutput:
        """Loss of a batch of B queries and N ≥ B documents.

        Args:
            scores_BN: (B, N) float, larger is nearer; document i is the positive of query i.
            candidates_BN: (B, N) bool, the negatives of each query. Never true at (i, i), nor for any
                other document that is known to be relevant to the query or equals a positive in text.
        """
