"""Average pooling over word vectors: the fastest tower, and a hard one to beat on short texts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from two_tower.ragged import Ragged
from two_tower.tower._lexical import LexicalHalf
from two_tower.tower._products import Projection
from two_tower.tower.base import Tower, WordTable


class AverageTower(Tower):
    """Weighted mean of the text's word vectors, then an optional projection and tanh.

    The weights make the average work: "the" must count less than "photosynthesis". They start as idf.
    """

    parallel_by_text = True

    def __init__(
        self, words: WordTable, dim: int, learn_weights: bool = True, tanh: bool = False, token_dropout: float = 0.0,
        lexical_dims: int = 0, lexical_scale: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__(dim + lexical_dims)
        if not 0 <= token_dropout < 1:
            raise ValueError(f"token_dropout={token_dropout} must be at least 0 and below 1")
        self.words, self.tanh, self.token_dropout = words, tanh, token_dropout
        words.log_weights.requires_grad_(learn_weights)
        width = words.vectors.shape[1]
        self.projection = nn.Identity() if width == dim else Projection(width, dim)
        self.lexical = LexicalHalf(words, lexical_dims, lexical_scale) if lexical_dims else None

    def forward(self, tokens: Ragged) -> Tensor:
        if self.training and self.token_dropout:
            tokens = tokens.keep(torch.rand(len(tokens.ids), device=tokens.device) >= self.token_dropout)
        vectors = self.projection(self.words.pool(tokens))
        vectors = vectors.tanh() if self.tanh else vectors
        return self.lexical(vectors, tokens, self.words.log_weights) if self.lexical else vectors
