"""The order of training data: a block shuffle, a pure function of (seed, epoch).

Blocks of consecutive examples are permuted; the examples of a window of blocks are permuted together.
Reading stays nearly sequential however large the data is, nothing of the data's size is held, and the
examples of any position can be named without going through the ones before.
"""

from __future__ import annotations

import numpy as np

__all__ = ["BlockShuffle"]


class BlockShuffle:
    """The examples 0 … count - 1 in the order of one epoch.

    Args:
        count: number of examples.
        seed: run's seed.
        epoch: 0-based; two epochs differ, the same (seed, epoch) repeats.
        block: consecutive examples that travel together to a window.
        window: blocks that are shuffled together; data of up to ``block * window`` examples is fully
            shuffled.
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

    def __len__(self) -> int:
        return self._count

    def take(self, start: int, stop: int) -> np.ndarray:
        """Examples at the positions ``start`` to ``stop`` (exclusive), int64."""
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
