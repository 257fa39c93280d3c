"""The negatives that the data itself brings with each query (MS MARCO's triples, mined lists)."""

from __future__ import annotations

import numpy as np

from two_tower.errors import UserError
from two_tower.negatives._table import draw_from
from two_tower.negatives.base import DrawContext, DrawnNegatives


class GivenNegatives(DrawnNegatives):
    """The explicit negatives of each training triplet, all of them."""

    needs_triplets = True
    stochastic = False

    def __init__(self, in_batch_negatives: bool | None = None, mask_known_positives: bool = True) -> None:
        super().__init__(1, in_batch_negatives, mask_known_positives)

    def extra_negatives(self, context: DrawContext) -> np.ndarray:
        """(B, G), what the data gives.

        Raises:
            UserError: the data has no triplets.
        """
        if context.given is None:
            raise UserError(
                "negatives=given needs data with triplets, and this data has none: "
                "use negatives=in_batch, random, bm25, ann or mixed."
            )
        return context.given

    def draw(self, count: int, context: DrawContext) -> np.ndarray:
        """(B, count) of the (B, G), each as often as any other."""
        return draw_from(self.extra_negatives(context), count, context.rng)
