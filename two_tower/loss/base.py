"""What a loss sees (scores and a mask, nothing else) and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Loss", "LossOutput", "diagonal_mean", "masked_mean"]


class LossOutput(NamedTuple):
    """The scalar to minimise, and what should be plotted beside it (0-dimensional tensors, detached)."""

    loss: Tensor
    diagnostics: dict[str, Tensor]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values where the mask is true; 0 if it is true nowhere."""
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)


def diagonal_mean(scores_BN: Tensor) -> Tensor:
    """Mean score of the queries with their own positives."""
    return scores_BN.diagonal().mean()


class Loss(nn.Module, ABC):
    """Base of all losses.

    Attributes:
        shares_batch: the default of ``negatives.share_batch``: whether every query uses the extra
            documents of all queries of the batch as candidates.
    """

    shares_batch: ClassVar[bool] = True

    @abstractmethod
    def forward(self, scores_BN: Tensor, candidates_BN: Tensor) -> LossOutput:
        """Loss of a batch of B queries and N ≥ B documents.

        Args:
            scores_BN: (B, N) float, larger is nearer; document i is the positive of query i.
            candidates_BN: (B, N) bool, the negatives of each query. Never true at (i, i), nor for any
                other document that is known to be relevant to the query or equals a positive in text.
        """
