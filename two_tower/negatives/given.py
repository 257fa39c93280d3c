"""The negatives of the data's own triplets (MS MARCO's triples, mined lists)."""

from __future__ import annotations

import numpy as np

from two_tower.errors import UserError
from two_tower.negatives._mined import draw_from
from two_tower.negatives.base import DrawContext, DrawnNegatives


class GivenNegatives(DrawnNegatives):
    """All negatives of each training triplet."""

    needs_triplets = True
    stochastic = False

    def __init__(self, in_batch_negatives: bool | None = None, mask_known_positives: bool = True) -> None:
        super().__init__(1, in_batch_negatives, mask_known_positives)

    def extra_negatives(self, context: DrawContext) -> np.ndarray:
        if context.given is None:
            raise UserError(
                "negatives=given needs data with triplets, and this data has none: "
                "use negatives=in_batch, random, bm25, ann or mixed."
            )
        return context.given

    def draw(self, count: int, context: DrawContext) -> np.ndarray:
        return draw_from(self.extra_negatives(context), count, context.rng)
