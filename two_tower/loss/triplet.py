"""Triplet loss: the positive must be nearer than each negative by a margin."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from two_tower.loss.base import Loss, LossInput, LossOutput, diagnostics


class TripletLoss(Loss):
    """``max(0, margin - s_ii + s_ij)``, the mean over the chosen negatives j of all queries i.

    Requirements:
        Any negatives strategy and similarity; a distance is a score with a minus sign, so the formula is the same. A
        loss that sits *exactly at the margin* means that positive and negative similarities are equal: all vectors
        have collapsed to one direction, or nothing learns.
    When to use:
        To compare with the in-batch loss; with hard negatives. Random negatives are soon too easy: the share of
        all negatives that are not yet a margin away, logged as ``active_triplets``, falls towards 0. ``hardest``
        still learns then, but from mislabelled negatives first, and may collapse at the start; ``semi_hard`` avoids
        both.
    Relations:
        `two_tower.loss.in_batch.InBatchLoss` weighs the negatives against each other instead.
    Source:
        Schroff et al. 2015, arXiv:1503.03832 (FaceNet, semi-hard); Hermans et al. 2017, arXiv:1703.07737
        (hardest in the batch, soft margin).

    Args:
        margin: wanted difference of similarities (cosine lies in -1 … 1; distances and dot products have the
            vectors' own scale).
        softness: 0 for the hinge above; else a soft margin, ``softness * log(1 + exp(gap / softness))``, which
            also pulls at triplets that are right already. The source uses 1 with distances; cosine needs about 0.1.
        select: ``all`` negatives; the ``hardest`` of each query, which has the largest score; or the ``semi_hard``
            one, the hardest of those below the positive but within the margin. Negatives with equal scores share
            the gradient; queries without a negative to choose are left out of the mean.
    """

    in_batch_negatives = False

    def __init__(
        self, margin: float = 0.3, softness: float = 0.0, select: Literal["all", "hardest", "semi_hard"] = "all"
    ) -> None:
        super().__init__()
        if margin <= 0:
            raise ValueError(f"margin={margin} must be above 0")
        if softness < 0:
            raise ValueError(f"softness={softness} must be at least 0")
        self.margin, self.softness, self.select = margin, softness, select

    def forward(self, batch: LossInput) -> LossOutput:
        # First the difference, then the margin: equal scores then differ by exactly 0.
        ahead_BN = batch.scores - batch.scores.diagonal().unsqueeze(1)
        ahead_BN = torch.where(batch.negatives, ahead_BN, -torch.inf)
        chosen = self._chosen(ahead_BN)
        loss = self._penalty(chosen + self.margin).sum() / (chosen > -torch.inf).sum().clamp(min=1)
        ahead_BN, counts_B = ahead_BN.detach(), batch.negatives.sum(1, dtype=torch.int32)
        found = diagnostics(batch, counts_B, -ahead_BN.amax(1))
        found["active_triplets"] = (ahead_BN > -self.margin).sum() / counts_B.sum().clamp(min=1)
        return LossOutput(loss, found)

    def _chosen(self, ahead_BN: Tensor) -> Tensor:
        """How far the chosen negatives are above the positive; -inf for no negative."""
        if self.select == "all":
            return ahead_BN
        if self.select == "semi_hard":
            # What is left out, not what is kept: NaN scores of a diverged model must reach the loss.
            ahead_BN = ahead_BN.masked_fill((ahead_BN >= 0) | (ahead_BN <= -self.margin), -torch.inf)
        return ahead_BN.amax(1)

    def _penalty(self, gap: Tensor) -> Tensor:
        """0 for a gap of -inf, also in its gradient."""
        return F.softplus(gap, beta=1 / self.softness) if self.softness else F.relu(gap)
