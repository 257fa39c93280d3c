"""Documents drawn at random from the whole corpus."""

from __future__ import annotations

from typing import Literal

import numpy as np

from two_tower.negatives.base import Collection, DrawContext, DrawnNegatives

REDRAWS = 8  # of known positives; any that are left then are masked, so they do no harm


class RandomNegatives(DrawnNegatives):
    """``count`` documents per query from the whole corpus, none of them a known positive.

    With ``distribution=log_frequency`` the positive of f training pairs weighs 1 + ln(1 + f). In-batch negatives
    weigh f: every document is pushed away as often as it is pulled. A uniform draw never corrects popular documents.
    The logarithm lies between the two, as do word2vec's power of 0.75 (Mikolov et al. 2013, arXiv:1310.4546) and the
    mixture of both draws (Yang et al. 2020, doi:10.1145/3366424.3386195).
    """

    def __init__(
        self,
        count: int = 1,
        distribution: Literal["uniform", "log_frequency"] = "uniform",
        in_batch_negatives: bool | None = None,
        mask_known_positives: bool = True,
    ) -> None:
        super().__init__(count, in_batch_negatives, mask_known_positives)
        self.needs_collection = distribution == "log_frequency"
        self._cumulated: np.ndarray | None = None

    def prepare(self, collection: Collection) -> None:
        if self.needs_collection:
            frequency = np.bincount(collection.pairs[1], minlength=collection.positives.documents)
            self._cumulated = np.cumsum(1 + np.log1p(frequency))

    def draw(self, count: int, context: DrawContext) -> np.ndarray:
        return random_rows(count, context, self._cumulated, redraw_positives=self.mask_known_positives)


def random_rows(
    count: int, context: DrawContext, cumulated: np.ndarray | None = None, redraw_positives: bool = True
) -> np.ndarray:
    """(B, count) int64 rows from the whole corpus; ``cumulated``: (N,) running sums of the documents' weights."""
    positives, rng = context.positives, context.rng

    def draw(size: int | tuple[int, int]) -> np.ndarray:
        if cumulated is None:
            return rng.integers(positives.documents, size=size)
        return np.searchsorted(cumulated, rng.random(size) * cumulated[-1], side="right")

    rows = draw((len(context.query_rows), count))
    queries = np.broadcast_to(context.query_rows[:, None], rows.shape)
    for _ in range(REDRAWS if redraw_positives else 0):
        wrong = positives.contains(queries, rows)
        if not wrong.any():
            break
        rows[wrong] = draw(int(wrong.sum()))
    return rows
