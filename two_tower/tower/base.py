"""What every tower is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from two_tower.ragged import Ragged
from two_tower.tower.words import WordTable

__all__ = ["Tower"]


class Tower(nn.Module, ABC):
    """Maps texts to vectors. A text's vector depends on that text alone.

    Args:
        words: the word table.
        dim: dimensions of the vectors.

    Attributes:
        parallel_by_text: several threads may encode different texts at once, each on one core; false
            where one text batch uses all cores by itself.
    """

    parallel_by_text: ClassVar[bool] = False

    def __init__(self, words: WordTable, dim: int) -> None:
        super().__init__()
        self.words = words
        self.dim = dim

    @abstractmethod
    def forward(self, tokens: Ragged) -> Tensor:
        """Vectors (B, D) float32 of B texts; zeros for a text without tokens."""
