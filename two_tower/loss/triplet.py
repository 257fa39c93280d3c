"""Triplet loss: the positive must be nearer than each negative by a margin."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from two_tower.loss.base import Loss, LossInput, LossOutput, check_above_0, diagnostics


class TripletLoss(Loss):
    """``max(0, margin - s_ii + s_ij)``, the mean over the selected negatives j of all queries i.

    A loss *exactly at the margin* means that positive and negative similarities are equal: all vectors have collapsed
    to one direction, or nothing learns. ``select=hardest`` still learns when most negatives are far away, but from
    mislabelled ones first, and may collapse at the start; ``semi_hard`` avoids both. Negatives with equal scores
    share the gradient, and queries without a negative to select are left out of the mean.

    ``softness`` > 0 replaces the hinge by ``softness * log(1 + exp(gap / softness))``: right triplets are pulled too.

    Schroff et al. 2015, arXiv:1503.03832 (FaceNet, semi-hard); Hermans et al. 2017, arXiv:1703.07737 (hardest, soft).
    """

    in_batch_negatives = False

    def __init__(
        self, margin: float = 0.3, softness: float = 0.0, select: Literal["all", "hardest", "semi_hard"] = "all"
    ) -> None:
        super().__init__()
        check_above_0(margin=margin)
        if softness < 0:
            raise ValueError(f"softness={softness} must be at least 0")
        self.margin, self.softness, self.select = margin, softness, select

    def forward(self, batch: LossInput) -> LossOutput:
        # The difference first, then the margin: equal scores then differ by exactly 0.
        lead_BN = batch.scores - batch.scores.diagonal().unsqueeze(1)
        lead_BN = torch.where(batch.negatives, lead_BN, -torch.inf)
        selected = self._selected(lead_BN)
        gap = selected + self.margin  # the penalty of -inf is 0, also in its gradient
        penalty = F.softplus(gap, beta=1 / self.softness) if self.softness else F.relu(gap)
        loss = penalty.sum() / (selected > -torch.inf).sum().clamp(min=1)
        lead_BN, counts_B = lead_BN.detach(), batch.negatives.sum(1, dtype=torch.int32)
        found = diagnostics(batch, counts_B, -lead_BN.amax(1))
        found["active_triplets"] = (lead_BN > -self.margin).sum() / counts_B.sum().clamp(min=1)
        return LossOutput(loss, found)

    def _selected(self, lead_BN: Tensor) -> Tensor:
        """How far the selected negatives are above the positive; -inf for no negative."""
        if self.select == "all":
            return lead_BN
        if self.select == "semi_hard":
            # Drop instead of keep: the NaN scores of a diverged model must reach the loss.
            lead_BN = lead_BN.masked_fill((lead_BN >= 0) | (lead_BN <= -self.margin), -torch.inf)
        return lead_BN.amax(1)
