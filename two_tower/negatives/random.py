"""Documents drawn at random from the whole corpus."""

from __future__ import annotations

from typing import Literal

import numpy as np

from two_tower.negatives.base import Collection, DrawnNegatives, Positives

__all__ = ["RandomNegatives", "random_rows"]

# A known positive is drawn again this often; what is left then is masked out, so it is never wrong.
REDRAWS = 8


class RandomNegatives(DrawnNegatives):
    """``count`` documents per query from the whole corpus, none of them a known positive.

    With ``distribution=log_frequency`` a document that is the positive of f training pairs has the weight
    1 + ln(1 + f). In-batch negatives have the weight f: every document is pushed away as often as it is pulled, and
    those that answer no training query never are. A uniform draw never corrects popular documents. The logarithm
    lies between the two, as word2vec's power of 0.75 (Mikolov et al. 2013, arXiv:1310.4546) and the mixture of both
    draws (Yang et al. 2020, doi:10.1145/3366424.3386195) do. The log-uniform draw of sampled softmax is something
    else: it takes frequencies that follow Zipf's law for granted, and most passages answer no or one query.

    Args:
        count: extra documents per query.
        distribution: ``uniform`` or ``log_frequency``.
        share_batch: see `Negatives`.
        mask_known: see `Negatives`.

    Raises:
        UserError: a count below 1.
    """

    def __init__(
        self,
        count: int = 1,
        distribution: Literal["uniform", "log_frequency"] = "uniform",
        share_batch: bool | None = None,
        mask_known: bool = True,
    ) -> None:
        super().__init__(count, share_batch, mask_known)
        self.needs_collection = distribution == "log_frequency"
        self._cumulated: np.ndarray | None = None

    def prepare(self, collection: Collection) -> None:
        """Count how often each document is a positive."""
        if self.needs_collection:
            frequency = np.bincount(collection.pairs[1], minlength=collection.positives.documents)
            self._cumulated = np.cumsum(1 + np.log1p(frequency))

    def draw(
        self,
        count: int,
        query_rows: np.ndarray,
        given: np.ndarray | None,
        positives: Positives,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """(B, count)."""
        return random_rows(query_rows, count, positives, rng, self._cumulated, self.mask_known)


def random_rows(
    query_rows: np.ndarray,
    count: int,
    positives: Positives,
    rng: np.random.Generator,
    cumulated: np.ndarray | None = None,
    mask_known: bool = True,
) -> np.ndarray:
    """(B, count) int64 rows of documents from the whole corpus.

    Args:
        query_rows: (B,) rows of queries.
        count: documents per query.
        positives: known relevant pairs, and how many documents there are.
        rng: the source of chance.
        cumulated: (N,) sums of the documents' weights up to each; None: all weigh the same.
        mask_known: draw known positives again.
    """

    def draw(size: int | tuple[int, int]) -> np.ndarray:
        if cumulated is None:
            return rng.integers(positives.documents, size=size)
        return np.searchsorted(cumulated, rng.random(size) * cumulated[-1], side="right")

    rows = draw((len(query_rows), count))
    queries = np.broadcast_to(query_rows[:, None], rows.shape)
    for _ in range(REDRAWS if mask_known else 0):
        wrong = positives.contains(queries, rows)
        if not wrong.any():
            break
        rows[wrong] = draw(int(wrong.sum()))
    return rows
