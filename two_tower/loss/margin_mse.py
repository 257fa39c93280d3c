"""Learn from a teacher's scores that the data brings."""

from __future__ import annotations

import torch
from torch import Tensor

from two_tower.errors import UserError
from two_tower.loss.base import Loss, LossOutput, TaughtLoss, at_least_float32, score_diagnostics
from two_tower.loss.in_batch import InBatchLoss
from two_tower.teacher.lessons import Lesson

__all__ = ["MarginMSELoss"]


class MarginMSELoss(TaughtLoss):
    """Mean squared difference of ``(s_ii - s_ij) / t`` and the teacher's margin, over the given negatives j of query i.

    Requirements:
        ``negatives=given`` and triples with a teacher's scores, for example a cross-encoder's of MS MARCO.
    Inputs:
        Scores (B, N), and the margins of the batch in the lesson, see `TaughtLoss.forward`.
    When to use:
        When such scores exist: they say by how much one passage is better, and also where a negative is none.
    Relations:
        `two_tower.loss.distillation.DistillationLoss` learns from a teacher's vectors; ``loss=sum`` adds either to
        others.
    Source:
        Hofstätter et al. 2020, arXiv:2010.02666 (Margin-MSE).

    Args:
        temperature: t, by which similarities are divided: a cross-encoder's margins go up to about 20, those of cosines
            to 2. 1 for dot products.

    Raises:
        UserError: a temperature that is not positive.
    """

    needs_teacher = False
    needs_margins = True

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        if temperature <= 0:
            raise UserError(f"loss.temperature={temperature} must be above 0.")
        self.temperature = temperature

    @property
    def of_scores(self) -> Loss:
        """Finding the positive among the candidates at the same temperature."""
        return InBatchLoss(self.temperature)

    def forward(self, scores_BN: Tensor, candidates_BN: Tensor, lesson: Lesson | None = None) -> LossOutput:
        """See `TaughtLoss.forward`."""
        if lesson is None or lesson.margins is None:
            raise ValueError("This loss needs the teacher's margins of the batch.")
        scores_BN, wanted_BG = at_least_float32(scores_BN), lesson.margins
        count, given = wanted_BG.shape
        own = torch.arange(count * given, device=scores_BN.device).view(count, given) + count
        margins_BG = (scores_BN.diagonal().unsqueeze(1) - scores_BN.gather(1, own)) / self.temperature
        loss = (margins_BG - wanted_BG).square().mean()
        agree = (margins_BG > 0) == (wanted_BG > 0)
        return LossOutput(loss, score_diagnostics(scores_BN, candidates_BN) | {"agreement": agree.float().mean()})
