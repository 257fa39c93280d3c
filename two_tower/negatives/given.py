"""The negatives that the data itself brings with each query (MS MARCO's triples, mined lists)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from two_tower.errors import UserError
from two_tower.negatives.base import Negatives, Positives

__all__ = ["GivenNegatives"]


class GivenNegatives(Negatives):
    """The explicit negatives of each training triplet."""

    needs_triplets: ClassVar[bool] = True

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
                "use negatives=in_batch or negatives=random."
            )
        return given
