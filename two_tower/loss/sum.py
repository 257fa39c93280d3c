"""A weighted sum of losses."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from two_tower.loss.base import COMMON_DIAGNOSTICS, Loss, LossInput, LossOutput


class SumLoss(Loss):
    """``sum_k w_k * loss_k`` of the same batch.

    Requirements:
        The losses share the negatives, and the documents of the whole batch if any of them prefers that.
    When to use:
        To add what one loss does not ask for, for example a margin for the hardest negative to the in-batch loss. A
        weight of 0 only logs a loss.

    Args:
        weights: name → weight, at least 0; 1 for a loss that is not named.
        losses: the losses under their names.
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
        """Each loss's own diagnostics, and its value, are named after it."""
        terms, found = [], {}
        for name, loss in self.losses.items():
            value, own = loss(batch)
            terms.append(self.weights[name] * value)
            found[f"{name}/loss"] = value.detach()
            found |= {k if k in COMMON_DIAGNOSTICS else f"{name}/{k}": v for k, v in own.items()}
        return LossOutput(torch.stack(terms).sum(), found)
