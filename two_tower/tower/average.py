"""Average pooling over word vectors: the fastest tower, and a hard one to beat on short texts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from two_tower.errors import UserError
from two_tower.ragged import Ragged
from two_tower.tower._words import WordTable
from two_tower.tower.base import Tower

__all__ = ["AverageTower"]


class AverageTower(Tower):
    """Mean of the text's word vectors, each word counting its learned weight, then an optional projection and tanh.

    The weights are what makes the average work: "the" must count less than "photosynthesis". They start
    at the inverse document frequency and are learned in log space, so that they stay positive.

    Args:
        words: the word table, (V, E).
        dim: dimensions of the output; another number than the word vectors' adds a linear projection.
        learn_weights: learn the token weights (false: they stay at their start; with ``embedding.weights=uniform``
            the vector is then the plain mean).
        tanh: squash each dimension into -1 … 1 at the end.
        token_dropout: share of the tokens that is left out at random in training, against over-fitting.

    Raises:
        UserError: a ``token_dropout`` outside 0 … 1.
    """

    parallel_by_text = True

    def __init__(
        self,
        words: WordTable,
        dim: int,
        learn_weights: bool = True,
        tanh: bool = False,
        token_dropout: float = 0.0,
    ) -> None:
        super().__init__(dim)
        self.words, self.tanh = words, tanh
        if not 0 <= token_dropout < 1:
            raise UserError(f"tower.token_dropout={token_dropout} must be from 0 up to, not including, 1.")
        self.token_dropout = token_dropout
        words.log_weights.requires_grad_(learn_weights)
        width = words.vectors.shape[1]
        self.projection = nn.Identity() if width == dim else nn.Linear(width, dim, bias=False)

    def forward(self, tokens: Ragged) -> Tensor:
        """Vectors (B, D) float32 of B texts; zeros for a text without tokens."""
        if self.training and self.token_dropout:
            tokens = tokens.keep(torch.rand(len(tokens.ids), device=tokens.device) >= self.token_dropout)
        vectors = self.projection(self.words.pool(tokens))
        return vectors.tanh() if self.tanh else vectors
