"""The negatives that the data itself brings with each query (MS MARCO's triples, mined lists)."""

from __future__ import annotations

import numpy as np

from two_tower.errors import UserError
from two_tower.negatives._table import draw_from
from two_tower.negatives.base import DrawnNegatives, Positives

__all__ = ["GivenNegatives"]


class GivenNegatives(DrawnNegatives):
    """The explicit negatives of each training triplet, all of them.

    Args:
        share_batch: see `Negatives`.
        mask_known: see `Negatives`.
    """

    needs_triplets: bool = True
    by_chance: bool = False

    def __init__(self, share_batch: bool | None = None, mask_known: bool = True) -> None:
        super().__init__(1, share_batch, mask_known)

    def extras(
        self,
        query_rows: np.ndarray,
        given: np.ndarray | None,
        positives: Positives,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """(B, G), just what the data gives.

        Raises:
            UserError: the data has no triplets.
        """
        if given is None:
            raise UserError(
                "negatives=given needs data with triplets, and this data has none: "
                "use negatives=in_batch, random, bm25, ann or mixed."
            )
        return given

    def draw(
        self,
        count: int,
        query_rows: np.ndarray,
        given: np.ndarray | None,
        positives: Positives,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """(B, count) of the (B, G), each as often as any other."""
        return draw_from(self.extras(query_rows, given, positives, rng), count, rng)
