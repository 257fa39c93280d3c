"""What a loss sees (scores and a mask, nothing else) and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from two_tower.teacher.lessons import Lesson

__all__ = [
    "COMMON_DIAGNOSTICS",
    "Loss",
    "LossOutput",
    "TaughtLoss",
    "at_least_float32",
    "common_diagnostics",
    "judge",
    "score_diagnostics",
]

# What every loss reports in the same meaning, so that the curves of different losses can be compared.
COMMON_DIAGNOSTICS = ("positive_similarity", "negative_similarity", "accuracy", "idle_queries")


class LossOutput(NamedTuple):
    """The scalar to minimise, and what should be plotted beside it (0-dimensional tensors, detached)."""

    loss: Tensor
    diagnostics: dict[str, Tensor]


def at_least_float32(scores: Tensor) -> Tensor:
    """Scores in float32, or float64 as they are: sums of exponentials and differences need the digits."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


@torch.no_grad()
def common_diagnostics(scores_BN: Tensor, candidates_BN: Tensor, counts_B: Tensor, lead_B: Tensor) -> dict[str, Tensor]:
    """The diagnostics that every loss returns.

    Args:
        scores_BN: (B, N) float.
        candidates_BN: (B, N) bool.
        counts_B: (B,) integers, the candidates of each query.
        lead_B: (B,) float, how far each positive is above its nearest candidate, in any unit.

    Returns:
        ``positive_similarity``: mean score of the queries with their positives;
        ``negative_similarity``: mean score of all candidates, 0 if there are none;
        ``accuracy``: share of the queries with candidates whose positive is above all of them, 0 if there are
        none (a tie is not a win: collapsed vectors must read 0, not 1);
        ``idle_queries``: share of the queries that have no candidates and so teach nothing.
    """
    judged_B = counts_B > 0
    return {
        "positive_similarity": scores_BN.diagonal().mean(),
        "negative_similarity": torch.where(candidates_BN, scores_BN, 0).sum() / counts_B.sum().clamp(min=1),
        "accuracy": ((lead_B > 0) & judged_B).sum() / judged_B.sum().clamp(min=1),
        "idle_queries": 1 - judged_B.float().mean(),
    }


def score_diagnostics(scores_BN: Tensor, candidates_BN: Tensor) -> dict[str, Tensor]:
    """The common diagnostics of a loss that does not need the nearest candidates itself, see `common_diagnostics`."""
    scores_BN = scores_BN.detach()
    lead_B = scores_BN.diagonal() - torch.where(candidates_BN, scores_BN, -torch.inf).amax(1)
    return common_diagnostics(scores_BN, candidates_BN, candidates_BN.sum(1, dtype=torch.int32), lead_B)


class Loss(nn.Module, ABC):
    """Base of all losses.

    Attributes:
        shares_batch: the default of ``negatives.share_batch``: whether every query uses the extra
            documents of all queries of the batch as candidates.
        dims: None for a loss of the whole vectors' scores. Else the numbers of leading dimensions, the whole
            vector first, whose scores it wants: `forward` then gets one matrix of scores for each.
        taught: whether `forward` wants a lesson too, see `TaughtLoss`.
        needs_teacher: whether the lesson must hold a teacher's vectors.
        needs_margins: whether it must hold a teacher's scores, which the data brings.
    """

    shares_batch: bool = True
    dims: Sequence[int] | None = None
    taught: bool = False
    needs_teacher: bool = False
    needs_margins: bool = False

    @property
    def of_scores(self) -> Loss:
        """What stands for this loss where only scores and candidates are known, as in the doctor's experiments."""
        return self

    @abstractmethod
    def forward(self, scores_BN: Tensor, candidates_BN: Tensor) -> LossOutput:
        """Loss of a batch of B queries and N ≥ B documents.

        Args:
            scores_BN: (B, N) float, larger is nearer; document i is the positive of query i.
            candidates_BN: (B, N) bool, the negatives of each query. Never true at (i, i), nor for any
                other document that is known to be relevant to the query or equals a positive in text.
        """


class TaughtLoss(Loss):
    """Base of the losses that also learn from a teacher: from its vectors, or from scores."""

    taught = True
    needs_teacher = True

    @abstractmethod
    def forward(self, scores_BN: Tensor, candidates_BN: Tensor, lesson: Lesson | None = None) -> LossOutput:
        """Loss of a batch, see `Loss.forward`.

        Args:
            scores_BN: (B, N).
            candidates_BN: (B, N).
            lesson: the batch as student and teacher see it.

        Raises:
            ValueError: there is no lesson.
        """


def judge(loss: Loss, scores: Tensor | Sequence[Tensor], candidates_BN: Tensor, lesson: Lesson | None) -> LossOutput:
    """A loss of either kind: ``lesson`` is given to one that learns from a teacher, and not needed by others."""
    output: LossOutput = loss(scores, candidates_BN, lesson) if loss.taught else loss(scores, candidates_BN)
    return output
