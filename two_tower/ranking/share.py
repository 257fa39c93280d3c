"""How several processes rank one corpus together."""

from __future__ import annotations

import numpy as np

__all__ = ["Share"]


class Share:
    """One process' part of the corpus: every ``size``-th block of documents, beginning with block ``rank``.

    This class is the one process that owns everything; a subclass says how processes exchange arrays. Each
    block has exactly one owner, so nothing is ranked twice, whatever the number of processes.

    Attributes:
        rank: this process, from 0.
        size: the number of processes.
    """

    rank = 0
    size = 1

    def owns(self, block: int) -> bool:
        """Whether a block of documents (its number, from 0) is this process'."""
        return block % self.size == self.rank

    def maximum(self, values: np.ndarray) -> np.ndarray:
        """The largest value of all processes, element by element; no NaN among them."""
        return values

    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum over all processes, element by element."""
        return values

    def beside(self, values: np.ndarray) -> np.ndarray:
        """The (Q, k) arrays of all processes beside each other, (Q, size · k)."""
        return values
