"""Documents drawn at random from the whole corpus."""

from __future__ import annotations

import numpy as np

from two_tower.errors import UserError
from two_tower.negatives.base import Negatives, Positives

__all__ = ["RandomNegatives"]

# A known positive is drawn again this often; what is left then is masked out, so it is never wrong.
REDRAWS = 8


class RandomNegatives(Negatives):
    """``count`` documents per query, uniform over the corpus, none of them a known positive.

    Args:
        count: extra documents per query.
        share_batch: see `Negatives`.
        mask_known: see `Negatives`.

    Raises:
        UserError: a count below 1.
    """

    def __init__(self, count: int = 1, share_batch: bool | None = None, mask_known: bool = True) -> None:
        super().__init__(share_batch, mask_known)
        if count < 1:
            raise UserError(f"negatives.count={count} must be at least 1.")
        self.count = count

    def extras(
        self,
        query_rows: np.ndarray,
        given: np.ndarray | None,
        positives: Positives,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """(B, count)."""
        documents = positives.documents
        rows = rng.integers(documents, size=(len(query_rows), self.count))
        queries = np.broadcast_to(query_rows[:, None], rows.shape)
        for _ in range(REDRAWS if self.mask_known else 0):
            wrong = positives.contains(queries, rows)
            if not wrong.any():
                break
            rows[wrong] = rng.integers(documents, size=int(wrong.sum()))
        return rows
