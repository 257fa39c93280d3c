"""A weighted sum of losses."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from two_tower.loss.base import COMMON_DIAGNOSTICS, Loss, LossInput, LossOutput


class SumLoss(Loss):
    """``sum_k w_k * loss_k`` of the same batch; a loss without a weight counts 1, one with weight 0 is only logged.

    The losses share the negatives: those of the whole batch if any of the losses prefers that. The diagnostics that
    are not common to all losses are named after their loss, as is the value of each.
    """

    def __init__(self, weights: Mapping[str, float] | None = None, **losses: Loss) -> None:
        super().__init__()
        weights = weights or {}
        for name, loss in losses.items():
            if not isinstance(loss, Loss):
                raise ValueError(f"{name} is neither a loss nor weights: add a loss with +loss@loss.{name}=CHOICE")
        for name, weight in weights.items():
            if name not in losses:
                raise ValueError(f"weights.{name} belongs to no loss; valid: {', '.join(sorted(losses))}")
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise ValueError(f"weights.{name}={weight} must be a number of at least 0")
        self.weights = {name: weights.get(name, 1.0) for name in losses}
        if not any(self.weights.values()):
            raise ValueError("weights leaves nothing to learn from: give one of the losses a weight above 0")
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
