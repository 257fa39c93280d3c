"""The other queries' positives as negatives, without extra documents to encode."""

from __future__ import annotations

import numpy as np

from two_tower.negatives.base import DrawContext, Negatives


class InBatchNegatives(Negatives):
    """No extra negatives: every query is pushed away from the other documents of the batch."""

    def __init__(self, mask_known_positives: bool = True) -> None:
        super().__init__(True, mask_known_positives)

    def extra_negatives(self, context: DrawContext) -> np.ndarray:
        return np.empty((len(context.query_rows), 0), np.int64)
