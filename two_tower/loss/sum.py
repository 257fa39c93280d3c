"""A weighted sum of losses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from two_tower.errors import UserError, one_of
from two_tower.loss.base import COMMON_DIAGNOSTICS, Loss, LossOutput, judge
from two_tower.teacher.lessons import Lesson

__all__ = ["SumLoss"]


class SumLoss(Loss):
    """``sum_k w_k * loss_k`` of the same scores and candidates.

    Requirements:
        The losses share the candidates, and the documents of the whole batch if any of them prefers so.
    Inputs:
        Scores (B, N) and candidates (B, N), see `Loss.forward`.
    When to use:
        To add what one loss does not ask for, for example a margin for the hardest candidate to the in-batch
        loss. A weight of 0 only logs a loss.
    Relations:
        Goes into a `two_tower.loss.matryoshka.MatryoshkaLoss`, not around one.

    Args:
        weights: name → weight, at least 0; 1 for a loss that is not named.
        losses: the losses under their names.

    Raises:
        UserError: a name without a loss or a weight below 0, or nothing that counts.
    """

    def __init__(self, weights: Mapping[str, float] | None = None, **losses: Loss) -> None:
        super().__init__()
        weights = weights or {}
        for name, loss in losses.items():
            if not isinstance(loss, Loss):
                raise UserError(f"loss.{name} is neither a loss nor weights: add a loss with +loss@loss.{name}=CHOICE.")
            if loss.dims is not None:
                raise UserError(f"loss.{name} is a matryoshka: put the sum inside, loss=matryoshka loss@loss.loss=sum.")
        for name, weight in weights.items():
            if name not in losses:
                raise UserError(f"loss.weights.{name} belongs to no loss; {one_of(name, losses)}.")
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise UserError(f"loss.weights.{name}={weight} must be a number of at least 0.")
        self.weights = {name: weights.get(name, 1.0) for name in losses}
        if not any(self.weights.values()):
            raise UserError("loss.weights leaves nothing to learn from: give one of its losses a weight above 0.")
        self.losses = nn.ModuleDict(losses)
        self.shares_batch = any(loss.shares_batch for loss in losses.values())
        for need in ("taught", "needs_teacher", "needs_margins"):
            setattr(self, need, any(getattr(loss, need) for loss in losses.values()))

    @property
    def of_scores(self) -> Loss:
        """The sum of what its losses are of scores."""
        return SumLoss(self.weights, **{name: loss.of_scores for name, loss in self._by_name()})

    def _by_name(self) -> list[tuple[str, Loss]]:
        return cast(list[tuple[str, Loss]], list(self.losses.items()))

    def forward(self, scores_BN: Tensor, candidates_BN: Tensor, lesson: Lesson | None = None) -> LossOutput:
        """See `Loss.forward` and `TaughtLoss.forward`; each loss' own diagnostics and value are named after it."""
        terms, diagnostics = [], {}
        for name, loss in self._by_name():
            value, found = judge(loss, scores_BN, candidates_BN, lesson)
            terms.append(self.weights[name] * value)
            diagnostics[f"{name}/loss"] = value.detach()
            diagnostics |= {k if k in COMMON_DIAGNOSTICS else f"{name}/{k}": v for k, v in found.items()}
        return LossOutput(torch.stack(terms).sum(), diagnostics)
