"""What a loss sees and what it returns; in every loss document i of N ≥ B is the positive of query i of B."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from two_tower.similarity import Similarity

# Every loss reports these with the same meaning, so that the curves of different losses can be compared.
COMMON_DIAGNOSTICS = ("positive_similarity", "negative_similarity", "accuracy", "idle_queries")


class TeacherBatch(NamedTuple):
    """What a teacher knows of a batch; None where it knows nothing."""

    queries: Tensor | None = None  # (B, T) float32, the teacher's vectors, of length 1
    documents: Tensor | None = None  # (N, T) float32, likewise
    # (B, G) float32, the teacher's score of each positive minus those of the query's own G extra documents, which are
    # the documents B + i G and following for query i
    margins: Tensor | None = None


@dataclass(eq=False)
class LossInput:
    """One batch as a loss sees it."""

    queries: Tensor  # (B, D), prepared for the similarity
    documents: Tensor  # (N, D), likewise
    # (B, N) bool, the documents that each query is pushed away from. Never true at (i, i), nor for a document that is
    # known to be relevant to the query or equals a positive in text.
    negatives: Tensor
    similarity: Similarity
    teacher: TeacherBatch | None = None

    @cached_property
    def scores(self) -> Tensor:
        """(B, N) float32 (float64 of such vectors), larger is nearer; computed once, on demand."""
        scores = self.similarity.scores(self.queries, self.documents)
        # Upcast half precision: sums of exponentials and differences lose too many digits in it.
        return scores.to(torch.promote_types(scores.dtype, torch.float32))

    def leading(self, dim: int) -> LossInput:
        """The same batch with the first ``dim`` numbers of each vector, prepared again for the similarity."""
        queries, documents = (self.similarity.prepare(v[:, :dim]) for v in (self.queries, self.documents))
        return replace(self, queries=queries, documents=documents)


class LossOutput(NamedTuple):
    """The scalar to minimize, and what to plot beside it (0-dimensional tensors, detached)."""

    loss: Tensor
    diagnostics: dict[str, Tensor]


class Loss(nn.Module, ABC):
    """Base of all losses."""

    # The parts of `LossInput.teacher` that the loss reads: ``vectors`` of a teacher model, ``margins`` from the data.
    needs: frozenset[Literal["vectors", "margins"]] = frozenset()
    # The default of ``negatives.in_batch_negatives``: push every query away from the documents of the whole batch, or
    # only from its own extra ones.
    in_batch_negatives: bool = True

    @abstractmethod
    def forward(self, batch: LossInput) -> LossOutput:
        """The loss of a batch, and at least what `diagnostics` returns."""


def check_above_0(**values: float) -> None:
    """Refuse a value by its name."""
    for name, value in values.items():
        if value <= 0:
            raise ValueError(f"{name}={value} must be above 0")


def checked_weights(weights: Mapping[str, float], names: Sequence[str], default: float) -> dict[str, float]:
    """The weight of each of the names, which must be at least 0 and not all 0."""
    for name, weight in weights.items():
        if name not in names:
            raise ValueError(f"weights.{name} does not exist; valid: {', '.join(names)}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise ValueError(f"weights.{name}={weight} must be a number of at least 0")
    if not any(weights.get(name, default) for name in names):
        raise ValueError(f"weights leaves nothing to learn from: set one of them above 0 ({', '.join(names)})")
    return {name: weights.get(name, default) for name in names}


@torch.no_grad()
def diagnostics(batch: LossInput, counts_B: Tensor | None = None, lead_B: Tensor | None = None) -> dict[str, Tensor]:
    """Mean score of the positives and of the negatives, accuracy, and the share of queries without negatives.

    ``accuracy`` is the share of the queries with negatives whose positive is above all of them. A tie is not a win:
    collapsed vectors must read 0, not 1. A loss may give what it has already: the number of each query's negatives,
    and how far its positive is above the nearest of them, in any unit.
    """
    scores_BN = batch.scores.detach()
    if counts_B is None:
        counts_B = batch.negatives.sum(1, dtype=torch.int32)
    if lead_B is None:
        lead_B = scores_BN.diagonal() - torch.where(batch.negatives, scores_BN, -torch.inf).amax(1)
    judged_B = counts_B > 0
    return {
        "positive_similarity": scores_BN.diagonal().mean(),
        "negative_similarity": torch.where(batch.negatives, scores_BN, 0).sum() / counts_B.sum().clamp(min=1),
        "accuracy": ((lead_B > 0) & judged_B).sum() / judged_B.sum().clamp(min=1),
        "idle_queries": 1 - judged_B.float().mean(),
    }
