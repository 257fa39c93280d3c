"""Vectors of words outside a vocabulary, made of the parts that they share with its words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

MIN_LETTERS, MAX_LETTERS = 3, 6  # of a part, with a mark at the word's beginning and end
SHARED = 2  # occurrences that a part must have, else it says nothing of other words
RIDGE = 0.1  # in relation to one word: parts of few words stay near zero
STEPS = 10  # of conjugate gradients; twice as many gain next to nothing


class SubwordVectors:
    """A vector for each part of words (3 to 6 letters), such that the mean over a word's parts is near its vector.

    Zhao et al. 2018, "Generalizing Word Embeddings using Bag of Subwords", arXiv:1809.04259; here conjugate gradients
    minimize the squared error, with ridge regression.
    """

    def __init__(self, words: Sequence[str], vectors: Tensor) -> None:  # V different words, (V, D)
        table = vectors.detach().cpu()
        self._mean = table.mean(0)
        counts = Counter(part for word in words for part in _parts(word))
        shared = (part for part, count in counts.items() if count >= SHARED)
        self._number = {part: i for i, part in enumerate(shared)}
        self._vectors = _ridge(self._averages(words), table - self._mean)

    def __call__(self, words: Sequence[str]) -> Tensor:
        """The vectors of other words, (W, D) float32; the mean of all for one that shares no part with any."""
        return self._averages(words) @ self._vectors + self._mean

    def _averages(self, words: Sequence[str]) -> Tensor:
        """The sparse matrix (W, P) whose product with the parts' vectors is the mean over each word's parts."""
        numbers = [[self._number[part] for part in _parts(word) if part in self._number] for word in words]
        counts = torch.tensor([len(parts) for parts in numbers], dtype=torch.int64)
        rows = torch.repeat_interleave(torch.arange(len(words)), counts)
        columns = torch.tensor([part for parts in numbers for part in parts], dtype=torch.int64)
        values, size = 1 / counts[rows].float(), (len(words), len(self._number))
        return torch.sparse_coo_tensor(torch.stack([rows, columns]), values, size, check_invariants=False)


def _parts(word: str) -> list[str]:
    marked = f"<{word}>"
    return [marked[i : i + n] for n in range(MIN_LETTERS, MAX_LETTERS + 1) for i in range(len(marked) - n + 1)]


def _ridge(rows: Tensor, targets: Tensor) -> Tensor:
    """The x (P, D) that minimises ``|rows x - targets|² + RIDGE |x|²``, column by column."""
    rows, transposed = rows.coalesce(), rows.t().coalesce()
    x = torch.zeros(rows.shape[1], targets.shape[1])
    residual = transposed @ targets
    direction, square = residual.clone(), residual.square().sum(0)
    for _ in range(STEPS):
        image = rows @ direction
        curvature = image.square().sum(0) + RIDGE * direction.square().sum(0)
        step = square / curvature.clamp(min=1e-30)
        x += step * direction
        residual -= step * (transposed @ image + RIDGE * direction)
        smaller = residual.square().sum(0)
        direction = residual + (smaller / square.clamp(min=1e-30)) * direction
        square = smaller
    return x
