"""Average pooling over word vectors: the fastest tower, and a hard one to beat on short texts."""

from __future__ import annotations

from torch import Tensor, nn

from two_tower.ragged import Ragged
from two_tower.tower.base import Tower
from two_tower.tower.words import WordTable

__all__ = ["AverageTower"]


class AverageTower(Tower):
    """Mean of the text's word vectors, each word counting its learned weight, then an optional projection.

    The weights are what makes the average work: "the" must count less than "photosynthesis". They start
    at the inverse document frequency and are learned in log space, so that they stay positive.

    Args:
        words: the word table, (V, E).
        dim: dimensions of the output; another number than the word vectors' adds a linear projection.
        learn_weights: learn the token weights (false: they stay at their start).
    """

    parallel_by_text = True

    def __init__(self, words: WordTable, dim: int, learn_weights: bool = True) -> None:
        super().__init__(words, dim)
        words.log_weights.requires_grad_(learn_weights)
        width = words.vectors.shape[1]
        self.projection = nn.Identity() if width == dim else nn.Linear(width, dim, bias=False)

    def forward(self, tokens: Ragged) -> Tensor:
        """Vectors (B, D) float32 of B texts; zeros for a text without tokens."""
        return self.projection(self.words.pool(tokens))
