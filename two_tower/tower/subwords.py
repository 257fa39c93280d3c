"""Vectors for words that training never saw, from the parts that they share with words it did see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from two_tower.tower._kernels import in_parts, sum_rows

__all__ = ["SubwordVectors"]

SHORTEST, LONGEST = 3, 6  # letters of a part, with a mark at the word's beginning and end
SHARED = 2  # words that a part must be in, else it says nothing of others
RIDGE = 0.1  # in relation to one word: parts of few words stay near zero
STEPS = 10  # of conjugate gradients (63,000 words: 13 s); twice as many bring nothing to speak of


class SubwordVectors:
    """A vector for each part of words (3 to 6 letters), such that the mean over a word's parts is near its vector.

    Source:
        Zhao et al. 2018, "Generalizing Word Embeddings using Bag of Subwords", arXiv:1809.04259; here the squared error
        is minimised by conjugate gradients, with ridge regression.

    Args:
        words: V different words.
        vectors: (V, D) float32.
    """

    def __init__(self, words: Sequence[str], vectors: Tensor) -> None:
        table = vectors.detach().cpu().numpy()
        self.mean = table.mean(0)
        hashes, offsets = _parts(words)
        parts, place, counts = np.unique(hashes, return_inverse=True, return_counts=True)
        shared = counts >= SHARED
        self._known = parts[shared]
        number = np.where(shared, np.cumsum(shared) - 1, -1)[place]
        self._vectors = _ridge(_means(number, offsets), table - self.mean, len(self._known))

    def __call__(self, words: Sequence[str]) -> Tensor:
        """The vectors of other words, (W, D) float32; the mean of all for one that shares no part with any."""
        if not words or not len(self._known):
            return torch.from_numpy(np.tile(self.mean, (len(words), 1)))
        hashes, offsets = _parts(words)
        place = np.searchsorted(self._known, hashes).clip(max=len(self._known) - 1)
        number = np.where(self._known[place] == hashes, place, -1)
        return torch.from_numpy(_means(number, offsets) @ self._vectors + self.mean)


def _parts(words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes (P,) uint64 of the parts of each word, and where those of each word start, (W + 1,) int64."""
    codes = np.frombuffer("".join(f"<{word}>" for word in words).encode("utf-32-le"), np.uint32)
    starts = np.cumsum([0, *(len(word) + 2 for word in words)])
    return _hashed(codes, starts)


@numba.njit(nogil=True, cache=True)
def _hashed(codes: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    count = 0
    for w in range(len(starts) - 1):
        for size in range(SHORTEST, LONGEST + 1):
            count += max(0, starts[w + 1] - starts[w] - size + 1)
    hashes, offsets, n = np.empty(count, np.uint64), np.zeros(len(starts), np.int64), 0
    for w in range(len(starts) - 1):
        for size in range(SHORTEST, LONGEST + 1):
            for first in range(starts[w], starts[w + 1] - size + 1):
                h = np.uint64(14695981039346656037)  # FNV-1a, a letter at a time
                for i in range(first, first + size):
                    h = (h ^ np.uint64(codes[i])) * np.uint64(1099511628211)
                hashes[n] = h
                n += 1
        offsets[w + 1] = n
    return hashes, offsets


class _Sparse(NamedTuple):
    """A matrix (W, P) in compressed rows."""

    starts: np.ndarray
    columns: np.ndarray
    values: np.ndarray

    def __matmul__(self, dense: np.ndarray) -> np.ndarray:
        """The product with (P, D) float32, (W, D)."""
        out = np.empty((len(self.starts) - 1, dense.shape[1]), np.float32)
        in_parts(lambda a, b: sum_rows(self.starts, self.columns, a, b, dense, self.values, out), self.starts)
        return out

    def turned(self, columns: int) -> _Sparse:
        """The transpose, (P, W)."""
        owner = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        order = np.argsort(self.columns, kind="stable")
        starts = np.cumsum([0, *np.bincount(self.columns, minlength=columns)])
        return _Sparse(starts, owner[order], self.values[order])


def _means(number: np.ndarray, offsets: np.ndarray) -> _Sparse:
    """The matrix whose product with the parts' vectors is the mean over each word's parts.

    Args:
        number: (P,) which part each one is, -1 for one without a vector.
        offsets: (W + 1,) where those of each word start.
    """
    known = number >= 0
    ends = np.concatenate([[0], np.cumsum(known)])[offsets]
    counts = np.diff(ends)
    return _Sparse(ends, number[known], (1 / np.repeat(counts, counts)).astype(np.float32))


def _ridge(rows: _Sparse, wanted: np.ndarray, columns: int) -> np.ndarray:
    """The (P, D) that minimises ``|rows x - wanted|² + RIDGE |x|²``, column by column."""
    turned = rows.turned(columns)
    x = np.zeros((columns, wanted.shape[1]), np.float32)
    residual = turned @ wanted
    direction, square = residual.copy(), np.square(residual).sum(0)
    for _ in range(STEPS):
        image = rows @ direction
        curvature = np.square(image).sum(0) + RIDGE * np.square(direction).sum(0)
        step = square / np.maximum(curvature, 1e-30)
        x += step * direction
        residual -= step * (turned @ image + RIDGE * direction)
        now = np.square(residual).sum(0)
        direction = residual + (now / np.maximum(square, 1e-30)) * direction
        square = now
    return x
