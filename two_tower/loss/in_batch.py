"""Softmax cross-entropy of the positive among the candidates (InfoNCE)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from two_tower.errors import UserError
from two_tower.loss._cross_entropy import masked_cross_entropy
from two_tower.loss.base import Loss, LossOutput, at_least_float32, common_diagnostics

__all__ = ["InBatchLoss"]

# The least learned temperature, CLIP's: below it the gradients of a few pairs drown all others.
LEAST_TEMPERATURE = 0.01


class InBatchLoss(Loss):
    """Every query must pick its own positive out of all its candidates.

    ``-log( exp(s_ii / t) / (exp(s_ii / t) + sum_j exp(s_ij / t)) )``, the mean over all queries i; j are the
    candidates of query i. A query without candidates adds 0.

    Requirements:
        Any negatives strategy and similarity; larger batches are harder and usually better. At the start the
        loss is about ``chance_loss``, ln(1 + candidates); if it *stays* there, all vectors have collapsed.
    Inputs:
        Scores (B, N) and candidates (B, N), see `Loss.forward`. Documents B … N - 1, the negatives that the data
        or a strategy brings, are candidates of the queries only.
    When to use:
        The default: it learns more from a batch than the triplet loss, whose negatives are soon too easy.
    Relations:
        `two_tower.loss.triplet.TripletLoss` compares with one candidate at a time. With temperature → 0 only
        the nearest candidate counts, as in its ``select=hardest``.
    Source:
        van den Oord et al. 2018, arXiv:1807.03748 (InfoNCE); Henderson et al. 2017, arXiv:1705.00652
        (in-batch negatives for dual encoders); Radford et al. 2021, arXiv:2103.00020 (CLIP: symmetric, learned
        temperature).

    Args:
        temperature: scores are divided by it; cosine needs about .05, unbounded dot products up to 1.
        learn_temperature: learn its logarithm with the dense parameters, from ``temperature`` on; it is kept
            above 0.01. Weight decay would pull it towards 1.
        symmetric: also let every positive pick its query, out of the queries that have it as a candidate, and
            take the mean: what is masked for a query is masked for the document too.

    Raises:
        UserError: a temperature that is not positive, or below 0.01 to learn from.
    """

    def __init__(self, temperature: float = 0.05, learn_temperature: bool = False, symmetric: bool = True) -> None:
        super().__init__()
        if temperature <= 0:
            raise UserError(f"loss.temperature={temperature} must be above 0.")
        if learn_temperature and temperature < LEAST_TEMPERATURE:
            raise UserError(f"loss.temperature={temperature} must be at least {LEAST_TEMPERATURE} to be learned.")
        self.temperature, self.symmetric = temperature, symmetric
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature))) if learn_temperature else None

    def forward(self, scores_BN: Tensor, candidates_BN: Tensor) -> LossOutput:
        """See `Loss.forward`."""
        scores_BN = at_least_float32(scores_BN)
        temperature = self._temperature()
        logits_BN = scores_BN / temperature
        loss, nearest_B = masked_cross_entropy(logits_BN, candidates_BN, self.symmetric)
        lead_B = logits_BN.detach().diagonal() - nearest_B
        counts_B = candidates_BN.sum(1, dtype=torch.int32)
        diagnostics = common_diagnostics(scores_BN.detach(), candidates_BN, counts_B, lead_B)
        diagnostics["chance_loss"] = counts_B.log1p().mean()
        if isinstance(temperature, Tensor):
            diagnostics["temperature"] = temperature.detach()
        return LossOutput(loss, diagnostics)

    def _temperature(self) -> float | Tensor:
        if self.log_temperature is None:
            return self.temperature
        # The parameter itself, not what is read from it: beyond the bound that would have no gradient to return.
        with torch.no_grad():
            self.log_temperature.clamp_(min=math.log(LEAST_TEMPERATURE))
        return self.log_temperature.exp()
