"""Softmax cross-entropy of the positive among the negatives (InfoNCE)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from two_tower.loss._cross_entropy import masked_cross_entropy
from two_tower.loss.base import Loss, LossInput, LossOutput, diagnostics

# The smallest learned temperature, CLIP's: below it the gradients of a few pairs drown all others.
MIN_TEMPERATURE = 0.01


class InBatchLoss(Loss):
    """Every query must pick its own positive out of all its negatives.

    ``-log( exp(s_ii / t) / (exp(s_ii / t) + sum_j exp(s_ij / t)) )``, the mean over all queries i, where j are the
    negatives of query i. A query without negatives adds 0.

    Requirements:
        Any negatives strategy and similarity; larger batches are harder and usually better. The loss starts at about
        ``chance_loss``, ln(1 + negatives). If it *stays* there, all vectors have collapsed.
    When to use:
        The default: it learns more from a batch than the triplet loss, whose negatives are soon too easy.
    Relations:
        `two_tower.loss.triplet.TripletLoss` compares with one negative at a time. As the temperature goes to 0, only
        the nearest negative counts, as in its ``select=hardest``.
    Source:
        van den Oord et al. 2018, arXiv:1807.03748 (InfoNCE); Henderson et al. 2017, arXiv:1705.00652
        (in-batch negatives for dual encoders); Radford et al. 2021, arXiv:2103.00020 (CLIP: symmetric, learned
        temperature).

    Args:
        temperature: divides the scores; cosine needs about .05, unbounded dot products up to 1.
        learn_temperature: learn its logarithm with the dense parameters, starting at ``temperature``; it is kept
            above 0.01. Weight decay would pull it towards 1.
        symmetric: also let every positive pick its query, out of the queries that have it as a negative, and take
            the mean: what is masked for a query is masked for the document too.
    """

    def __init__(self, temperature: float = 0.05, learn_temperature: bool = False, symmetric: bool = True) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} must be above 0")
        if learn_temperature and temperature < MIN_TEMPERATURE:
            raise ValueError(f"temperature={temperature} must be at least {MIN_TEMPERATURE} to be learned")
        self.temperature, self.symmetric = temperature, symmetric
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature))) if learn_temperature else None

    def forward(self, batch: LossInput) -> LossOutput:
        temperature = self._temperature()
        logits_BN = batch.scores / temperature
        loss, nearest_B = masked_cross_entropy(logits_BN, batch.negatives, self.symmetric)
        lead_B = logits_BN.detach().diagonal() - nearest_B
        counts_B = batch.negatives.sum(1, dtype=torch.int32)
        found = diagnostics(batch, counts_B, lead_B)
        found["chance_loss"] = counts_B.log1p().mean()
        if isinstance(temperature, Tensor):
            found["temperature"] = temperature.detach()
        return LossOutput(loss, found)

    def _temperature(self) -> float | Tensor:
        if self.log_temperature is None:
            return self.temperature
        # Clamp the parameter itself, not what is read from it: beyond the bound that would have no gradient.
        with torch.no_grad():
            self.log_temperature.clamp_(min=math.log(MIN_TEMPERATURE))
        return self.log_temperature.exp()
