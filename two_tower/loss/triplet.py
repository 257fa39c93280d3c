"""Triplet loss: the positive must be nearer than each negative by a margin."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from two_tower.errors import UserError
from two_tower.loss.base import Loss, LossOutput, diagonal_mean, masked_mean

__all__ = ["TripletLoss"]


class TripletLoss(Loss):
    """``max(0, margin - s_ii + s_ij)``, the mean over all candidates j of all queries i.

    Requirements:
        Any negatives strategy. A loss that sits *exactly at the margin* means that positive and negative
        similarities are equal: all vectors have collapsed to one direction, or nothing learns.
    When to use:
        To compare with the in-batch loss; with hard negatives. Random negatives are soon too easy: the
        share of active triplets, logged beside the loss, falls towards 0.
    Relations:
        `two_tower.loss.in_batch.InBatchLoss` weighs the candidates against each other instead.
    Source:
        Schroff et al. 2015, arXiv:1503.03832 (FaceNet).

    Args:
        margin: wanted difference of similarities (cosine lies in -1 … 1; distances and dot products
            have the vectors' own scale).

    Raises:
        UserError: a margin that is not positive.
    """

    shares_batch: ClassVar[bool] = False

    def __init__(self, margin: float = 0.3) -> None:
        super().__init__()
        if margin <= 0:
            raise UserError(f"loss.margin={margin} must be above 0.")
        self.margin = margin

    def forward(self, scores_BN: Tensor, candidates_BN: Tensor) -> LossOutput:
        """See `Loss.forward`; without any candidate the loss is 0."""
        gap_BN = self.margin - scores_BN.diagonal().unsqueeze(1) + scores_BN
        loss = masked_mean(F.relu(gap_BN), candidates_BN)
        scores, gap = scores_BN.detach(), gap_BN.detach()
        return LossOutput(
            loss,
            {
                "positive_similarity": diagonal_mean(scores),
                "negative_similarity": masked_mean(scores, candidates_BN),
                "active_triplets": masked_mean((gap > 0).float(), candidates_BN),
                "accuracy": masked_mean((gap < self.margin).float(), candidates_BN),
            },
        )
