"""The other queries' positives as negatives: no extra documents to encode."""

from __future__ import annotations

import numpy as np

from two_tower.negatives.base import Negatives, Positives

__all__ = ["InBatchNegatives"]


class InBatchNegatives(Negatives):
    """No extras: every other document of the batch is a candidate (always shared).

    Args:
        mask_known: see `Negatives`.
    """

    def __init__(self, mask_known: bool = True) -> None:
        super().__init__(True, mask_known)

    def extras(
        self,
        query_rows: np.ndarray,
        given: np.ndarray | None,
        positives: Positives,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """(B, 0)."""
        return np.empty((len(query_rows), 0), np.int64)
