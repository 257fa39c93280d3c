"""A weighted sum of losses."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from two_tower.loss.base import COMMON_DIAGNOSTICS, Loss, LossInput, LossOutput, checked_weights


class SumLoss(Loss):
    """``sum_k w_k * loss_k`` of the same batch; a loss without a weight counts 1, one with weight 0 is only logged.

    The losses share the negatives: those of the whole batch if any of the losses prefers that. The diagnostics that
    are not common to all losses are named after their loss, as is the value of each.
    """

    def __init__(self, weights: Mapping[str, float] | None = None, **losses: Loss) -> None:
        super().__init__()
        for name, loss in losses.items():
            if not isinstance(loss, Loss):
                raise ValueError(f"{name} is neither a loss nor weights: add a loss with +loss@loss.{name}=CHOICE")
        self.weights = checked_weights(weights or {}, list(losses), 1.0)
        self.losses = nn.ModuleDict(losses)
        self.needs = frozenset().union(*(loss.needs for loss in losses.values()))
        self.in_batch_negatives = any(loss.in_batch_negatives for loss in losses.values())

    def forward(self, batch: LossInput) -> LossOutput:
        terms, found = [], {}
        for name, loss in self.losses.items():
            value, own = loss(batch)
            terms.append(self.weights[name] * value)
            found[f"{name}/loss"] = value.detach()
            found |= {k if k in COMMON_DIAGNOSTICS else f"{name}/{k}": v for k, v in own.items()}
        return LossOutput(torch.stack(terms).sum(), found)
