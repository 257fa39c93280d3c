"""Matryoshka: vectors whose first numbers are good vectors by themselves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from two_tower.errors import UserError
from two_tower.loss.base import Loss, LossOutput, judge
from two_tower.teacher.lessons import Lesson

__all__ = ["MatryoshkaLoss"]

# Without a choice of lengths: the whole vector, a half, a quarter and an eighth.
HALVINGS = 3


class MatryoshkaLoss(Loss):
    """The mean of one loss over the scores of whole and of shortened vectors.

    Requirements:
        Any other loss. The model makes the scores of each length: for cosine the shortened vectors have length 1
        again; dot products and distances of fewer numbers are smaller, so a margin or temperature weighs less.
    Inputs:
        One (B, N) matrix of scores for each of ``dims``, and candidates (B, N), see `Loss.forward`.
    When to use:
        If an index should hold shorter vectors. On pydocs with the average tower, 32 of 256 numbers reach an
        MRR@10 of .37, of ordinary vectors .30; 64 reach .44 instead of .43, and whole vectors lose .01. Each
        length costs one more matrix of scores and its loss.
    Relations:
        A `two_tower.loss.sum.SumLoss` goes inside, not around it.
    Source:
        Kusupati et al. 2022, arXiv:2205.13147; they take the sum, which differs by a constant factor.

    Args:
        loss: judges every length; a learned temperature is common to all.
        dim: numbers of a whole vector, as ``tower.dim``.
        dims: the shorter lengths; the whole vector is always added. None: halved up to three times.

    Raises:
        UserError: a length that a vector does not have, or a loss that wants shortened vectors itself.
    """

    def __init__(self, loss: Loss, dim: int, dims: list[int] | None = None) -> None:
        super().__init__()
        shorter = [dim >> n for n in range(1, HALVINGS + 1) if dim >> n] if dims is None else dims
        if not all(1 <= d <= dim for d in shorter):
            raise UserError(f"loss.dims={shorter} must be from 1 to {dim}, the numbers of a whole vector (loss.dim).")
        if loss.dims is not None:
            raise UserError("loss.loss is a matryoshka itself: choose another, for example loss@loss.loss=in_batch.")
        self.loss, self.shares_batch, self.taught = loss, loss.shares_batch, loss.taught
        self.needs_teacher, self.needs_margins = loss.needs_teacher, loss.needs_margins
        self.dims: list[int] = sorted({dim, *shorter}, reverse=True)

    @property
    def of_scores(self) -> Loss:
        """The same of what its loss is of scores."""
        return self if not self.taught else MatryoshkaLoss(self.loss.of_scores, self.dims[0], list(self.dims))

    def forward(
        self, scores_BN: Tensor | Sequence[Tensor], candidates_BN: Tensor, lesson: Lesson | None = None
    ) -> LossOutput:
        """See `Loss.forward`; the diagnostics are the whole vector's, and loss and accuracy of each shorter length."""
        lessons = [lesson, *[lesson and lesson.of_scores()] * (len(scores_BN) - 1)]
        outputs = [judge(self.loss, s, candidates_BN, each) for s, each in zip(scores_BN, lessons, strict=True)]
        diagnostics = dict(outputs[0].diagnostics)
        for dim, (loss, found) in zip(self.dims, outputs, strict=True):
            diagnostics[f"dim_{dim}/loss"] = loss.detach()
            diagnostics[f"dim_{dim}/accuracy"] = found["accuracy"]
        return LossOutput(torch.stack([output.loss for output in outputs]).mean(), diagnostics)
