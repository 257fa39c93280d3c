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

# What every loss reports with the same meaning, so that curves of different losses can be compared.
COMMON_DIAGNOSTICS = ("positive_similarity", "negative_similarity", "accuracy", "idle_queries")


class TeacherBatch(NamedTuple):
    """What a teacher says of a batch; None where it says nothing.

    Attributes:
        queries: (B, T) float32 of length 1, the teacher's vectors.
        documents: (N, T) float32 of length 1.
        margins: (B, G) float32, the teacher's score of each positive less that of the query's own G extra documents,
            which are B + i G and following for query i.
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
        similarity: compares queries with documents.
        teacher: what a teacher says of the batch, or None.
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
        # Half precision loses too many digits in sums of exponentials and in differences.
        return scores.to(torch.promote_types(scores.dtype, torch.float32))

    def leading(self, dim: int) -> LossInput:
        """The same batch with the first ``dim`` numbers of each vector, prepared again for the similarity."""
        queries, documents = (self.similarity.prepare(v[:, :dim]) for v in (self.queries, self.documents))
        return replace(self, queries=queries, documents=documents)


class LossOutput(NamedTuple):
    """The scalar to minimize, and what should be plotted beside it (0-dimensional tensors, detached)."""

    loss: Tensor
    diagnostics: dict[str, Tensor]


class Loss(nn.Module, ABC):
    """Base of all losses.

    Attributes:
        needs: what of ``LossInput.teacher`` must be there: ``vectors`` of a teacher model, ``margins`` that the data
            brings.
        in_batch_negatives: the default of ``negatives.in_batch_negatives``: whether every query is pushed away from
            the documents of all queries of the batch, or from its own extra documents only.
    """

    needs: frozenset[Literal["vectors", "margins"]] = frozenset()
    in_batch_negatives: bool = True

    @abstractmethod
    def forward(self, batch: LossInput) -> LossOutput:
        """Loss and diagnostics of a batch, see `LossInput` and `diagnostics`."""


@torch.no_grad()
def diagnostics(batch: LossInput, counts_B: Tensor | None = None, lead_B: Tensor | None = None) -> dict[str, Tensor]:
    """The diagnostics that every loss returns.

    Args:
        batch: the batch.
        counts_B: (B,) integers, the negatives of each query, if they are known already.
        lead_B: (B,) float, how far each positive is above its nearest negative in any unit, if that is known already.

    Returns:
        ``positive_similarity``: mean score of the queries with their positives;
        ``negative_similarity``: mean score of all negatives, 0 without any;
        ``accuracy``: share of the queries with negatives whose positive is above all of them, 0 without any
        (a tie is not a win: collapsed vectors must read 0, not 1);
        ``idle_queries``: share of the queries that have no negatives and so teach nothing.
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
