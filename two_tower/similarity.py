"""The similarity of two vectors, chosen once per run. This is the only place that normalizes vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

SimilarityName: TypeAlias = Literal["cosine", "dot", "euclidean"]
SIMILARITIES = get_args(SimilarityName)


@dataclass(frozen=True)
class Similarity:
    """Cosine, dot product or negative Euclidean distance of query and document vectors; larger is nearer."""

    name: str = "cosine"

    def __post_init__(self) -> None:
        if self.name not in SIMILARITIES:
            raise ValueError(f"similarity={self.name} does not exist; valid: {', '.join(SIMILARITIES)}")

    @property
    def metric(self) -> Literal["inner_product", "l2"]:
        """What an index must compute over *prepared* vectors to rank as `scores` does."""
        return "l2" if self.name == "euclidean" else "inner_product"

    def prepare(self, vectors: Tensor) -> Tensor:
        """(B, D) float vectors of a tower: unit length for cosine, unchanged otherwise.

        A zero vector (a text without any known word) stays zero, so it scores 0 against everything.
        """
        return F.normalize(vectors, dim=1) if self.name == "cosine" else vectors

    def scores(self, q_BD: Tensor, d_ND: Tensor) -> Tensor:
        """(B, N) similarity of every query with every document, both prepared."""
        if self.name == "euclidean":
            return -torch.cdist(q_BD, d_ND)
        return q_BD @ d_ND.T

    def from_distance(self, distances: Tensor) -> Tensor:
        """Scores from what an index returns: inner products, or squared distances for ``l2``."""
        return -distances.clamp(min=0).sqrt() if self.metric == "l2" else distances
