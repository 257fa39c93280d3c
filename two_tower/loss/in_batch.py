"""Softmax cross-entropy of the positive among the candidates (InfoNCE)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from two_tower.errors import UserError
from two_tower.loss.base import Loss, LossOutput, diagonal_mean, masked_mean

__all__ = ["InBatchLoss"]


class InBatchLoss(Loss):
    """Every query must pick its own positive out of all its candidates.

    ``-log( exp(s_ii / t) / (exp(s_ii / t) + sum_j exp(s_ij / t)) )`` over the candidates j of query i.

    Requirements:
        Any negatives strategy; larger batches are harder and usually better. At the start the loss is
        about ``ln(1 + candidates)``; if it *stays* there, all vectors have collapsed.
    When to use:
        The default: it learns more from a batch than the triplet loss, whose negatives are soon too easy.
    Relations:
        `two_tower.loss.triplet.TripletLoss` compares with one candidate at a time.
    Source:
        van den Oord et al. 2018, arXiv:1807.03748 (InfoNCE); Henderson et al. 2017, arXiv:1705.00652
        (in-batch negatives for dual encoders).

    Args:
        temperature: scores are divided by it; cosine needs about .05, unbounded dot products up to 1.
        symmetric: also let every positive pick its query among the batch's queries, and take the mean.

    Raises:
        UserError: a temperature that is not positive.
    """

    def __init__(self, temperature: float = 0.05, symmetric: bool = True) -> None:
        super().__init__()
        if temperature <= 0:
            raise UserError(f"loss.temperature={temperature} must be above 0.")
        self.temperature = temperature
        self.symmetric = symmetric

    def forward(self, scores_BN: Tensor, candidates_BN: Tensor) -> LossOutput:
        """See `Loss.forward`; a query without candidates contributes 0."""
        count = len(scores_BN)
        logits = scores_BN.float() / self.temperature
        targets = torch.arange(count, device=logits.device)
        allowed = candidates_BN.clone()
        allowed[:, :count].fill_diagonal_(True)
        loss = F.cross_entropy(logits.masked_fill(~allowed, -torch.inf), targets)
        if self.symmetric:
            square = logits[:, :count].masked_fill(~allowed[:, :count], -torch.inf)
            loss = (loss + F.cross_entropy(square.T, targets)) / 2
        return LossOutput(loss, self._diagnostics(scores_BN.detach(), allowed, candidates_BN))

    @staticmethod
    def _diagnostics(scores_BN: Tensor, allowed: Tensor, candidates_BN: Tensor) -> dict[str, Tensor]:
        best = scores_BN.masked_fill(~candidates_BN, -torch.inf).amax(1)
        return {
            "positive_similarity": diagonal_mean(scores_BN),
            "negative_similarity": masked_mean(scores_BN, candidates_BN),
            # A tie is not a win: collapsed vectors must read 0, not 1.
            "accuracy": (scores_BN.diagonal() > best).float().mean(),
            "chance_loss": allowed.sum(1).float().log().mean(),
        }
