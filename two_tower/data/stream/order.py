"""The order of training data: a block shuffle, a pure function of (seed, epoch).

Blocks of consecutive examples are permuted, and then the examples within each window of blocks. So reading stays
nearly sequential, memory does not grow with the data, and the examples at any position can be computed directly.
"""

from __future__ import annotations

import numpy as np


class BlockShuffle:
    """The examples 0 … count - 1 in the order of one epoch (from 0).

    ``block`` consecutive examples move together, and ``window`` blocks are shuffled together, so data of up to
    ``block * window`` examples is fully shuffled.
    """

    def __init__(self, count: int, seed: int, epoch: int, block: int = 1024, window: int = 256) -> None:
        self._count, self._seed, self._epoch = count, seed, epoch
        self._block, self._window = block, window
        blocks = -(-count // block)
        self._blocks = np.random.default_rng((seed, epoch)).permutation(blocks)
        sizes = np.minimum(block, count - self._blocks * block)
        windows = -(-blocks // window)
        starts = np.arange(windows) * window
        self._ends = np.cumsum(np.add.reduceat(sizes, starts)) if blocks else np.zeros(0, np.int64)
        self._cached: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def take(self, start: int, stop: int) -> np.ndarray:
        """int64 examples at the positions ``start`` to ``stop`` (exclusive)."""
        parts = []
        while start < stop:
            window = int(np.searchsorted(self._ends, start, side="right"))
            begin = int(self._ends[window - 1]) if window else 0
            end = min(stop, int(self._ends[window]))
            parts.append(self._examples(window)[start - begin : end - begin])
            start = end
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _examples(self, window: int) -> np.ndarray:
        if self._cached[0] != window:
            first = window * self._window
            blocks = self._blocks[first : first + self._window]
            examples = np.concatenate(
                [np.arange(b * self._block, min((b + 1) * self._block, self._count)) for b in blocks]
            )
            np.random.default_rng((self._seed, self._epoch, window)).shuffle(examples)
            self._cached = (window, examples)
        return self._cached[1]
