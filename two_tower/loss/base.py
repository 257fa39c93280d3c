"""What a loss sees and what it returns. Imports torch and the similarity, nothing else of this package.

Shapes here and in every loss: B queries, N ≥ B documents, D dimensions; document i is the positive of query i.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from two_tower.similarity import Similarity

# Every loss reports these with the same meaning, so that the curves of different losses can be compared.
COMMON_DIAGNOSTICS = ("positive_similarity", "negative_similarity", "accuracy", "idle_queries")


class TeacherBatch(NamedTuple):
    """What a teacher knows of a batch; None where it knows nothing.

    Attributes:
        queries: (B, T) float32, the teacher's vectors, of length 1.
        documents: (N, T) float32, likewise.
        margins: (B, G) float32, the teacher's score of each positive minus that of each of the query's own G extra
            documents, which are the documents B + i G and following for query i.
    """

    queries: Tensor | None = None
    documents: Tensor | None = None
    margins: Tensor | None = None


@dataclass(eq=False)
class LossInput:
    """One batch as a loss sees it.

    Attributes:
        queries: (B, D), prepared for the similarity.
        documents: (N, D), likewise.
        negatives: (B, N) bool, the documents that each query is pushed away from. Never true at (i, i), nor for a
            document that is known to be relevant to the query or equals a positive in text.
    """

    queries: Tensor
    documents: Tensor
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
    """Base of all losses.

    Attributes:
        needs: which parts of `LossInput.teacher` the loss reads: ``vectors`` of a teacher model, ``margins`` from
            the data.
        in_batch_negatives: the default of ``negatives.in_batch_negatives``: whether every query is pushed away from
            the documents of all queries of the batch, or only from its own extra documents.
    """

    needs: frozenset[Literal["vectors", "margins"]] = frozenset()
    in_batch_negatives: bool = True

    @abstractmethod
    def forward(self, batch: LossInput) -> LossOutput:
        """The loss of a batch, and at least what `diagnostics` returns."""


@torch.no_grad()
def diagnostics(batch: LossInput, counts_B: Tensor | None = None, lead_B: Tensor | None = None) -> dict[str, Tensor]:
    """The diagnostics that every loss returns.

    Args:
        batch: the batch.
        counts_B: (B,) number of negatives of each query, if the loss has it already.
        lead_B: (B,) how far each positive is above its nearest negative, in any unit, if the loss has it already.

    Returns:
        ``positive_similarity``: mean score of the positives;
        ``negative_similarity``: mean score of all negatives, 0 without any;
        ``accuracy``: share of the queries with negatives whose positive is above all of them, 0 without any
        (a tie is not a win: collapsed vectors must read 0, not 1);
        ``idle_queries``: share of the queries without negatives, which teach nothing.
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
