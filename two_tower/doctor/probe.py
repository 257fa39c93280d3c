"""A close look at a training batch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

__all__ = ["Probe"]


@dataclass
class Probe:
    """A close look at a part of one training batch: its first queries, their positives and further documents.

    Attributes:
        step: how many steps were made with it.
        first_epoch: whether it was in the first epoch, in which no example has been seen before.
        queries: queries looked at.
        candidates: mean candidates of each.
        loss: the loss of the part.
        trivial: what the loss would be if all scores were equal (the margin, the logarithm of the candidates); 0 for
            a loss that also learns from a teacher, of which scores do not tell that.
        ideal: what it would be if every positive scored as high and every candidate as low as this similarity allows.
        positive: mean score of the positives.
        negative: mean score of the candidates.
        hardest: mean score of each query's nearest candidate.
        accuracy: share of the queries whose positive is above all candidates.
        active: share of the queries that still pull at anything: with a gradient on some candidate's score.
        single: whether at most one candidate of each query has a gradient, of several that it has.
        known_negatives: share of the queries that are pushed away from a document that is known to be relevant.
        copies: share of the queries that are pushed away from a near copy of their positive.
        alignment: mean squared distance of a query and its positive, both of length 1.
        uniformity: logarithm of the mean of exp(-2 squared distance) of two documents of length 1; 0 is collapsed.
        rank: effective rank of the documents' vectors (RankMe: exp of the entropy of the singular values).
        cosine: mean cosine of two documents' vectors.
        norm: mean length of the documents' vectors.
        not_finite: whether a vector or score is infinite or not a number.
        gradients: part of the model → norm of its gradient.
        without_gradient: part of the model → share of its trainable numbers whose tensor has no gradient, or zeros.
        frozen: part of the model → share of its numbers that are not trained.
        updates: part of the model → length of the step's change in relation to what it changed.
        rate: the learning rate in relation to the schedule's largest.
        positives: histogram of the positives' scores, counts of `Probe.BINS` equal parts of ``limits``.
        negatives: histogram of the candidates' scores.
        limits: the smallest and the largest score of the histograms.
    """

    BINS: ClassVar[int] = 40

    step: int
    first_epoch: bool
    queries: int
    candidates: float
    loss: float
    trivial: float
    ideal: float
    positive: float
    negative: float
    hardest: float
    accuracy: float
    active: float
    single: bool
    known_negatives: float
    copies: float
    alignment: float
    uniformity: float
    rank: float
    cosine: float
    norm: float
    not_finite: bool
    gradients: dict[str, float] = field(default_factory=dict)
    without_gradient: dict[str, float] = field(default_factory=dict)
    frozen: dict[str, float] = field(default_factory=dict)
    updates: dict[str, float] = field(default_factory=dict)
    rate: float = 1.0
    positives: list[int] = field(default_factory=list)
    negatives: list[int] = field(default_factory=list)
    limits: tuple[float, float] = (-1.0, 1.0)

    @property
    def position(self) -> float:
        """The loss in relation to that of equal scores: 1 is no better than chance; NaN where that is 0."""
        return self.loss / self.trivial if self.trivial else math.nan

    @property
    def chance(self) -> float:
        """The accuracy of a coin: one out of the positive and the candidates."""
        return 1 / (1 + self.candidates)
