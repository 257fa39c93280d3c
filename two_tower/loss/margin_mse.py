"""Learn from a teacher's scores that the data brings."""

from __future__ import annotations

import torch

from two_tower.loss.base import Loss, LossInput, LossOutput, check_above_0, diagnostics


class MarginMSELoss(Loss):
    """Mean squared difference of ``(s_ii - s_ij) / t`` and the teacher's margin; j are the given negatives of query i.

    The scores, for example those of a cross-encoder for MS MARCO, say by how much one passage is better, and which
    negatives are in fact relevant (Margin-MSE, Hofstätter et al. 2020, arXiv:2010.02666).
    """

    needs = frozenset({"margins"})

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        check_above_0(temperature=temperature)
        self.temperature = temperature

    def forward(self, batch: LossInput) -> LossOutput:
        if batch.teacher is None or batch.teacher.margins is None:
            raise ValueError("MarginMSELoss needs the teacher's margins of the batch")
        scores_BN, wanted_BG = batch.scores, batch.teacher.margins
        count, given = wanted_BG.shape
        own = torch.arange(count * given, device=scores_BN.device).view(count, given) + count
        margins_BG = (scores_BN.diagonal().unsqueeze(1) - scores_BN.gather(1, own)) / self.temperature
        loss = (margins_BG - wanted_BG).square().mean()
        agree = (margins_BG > 0) == (wanted_BG > 0)
        return LossOutput(loss, diagnostics(batch) | {"agreement": agree.float().mean()})
