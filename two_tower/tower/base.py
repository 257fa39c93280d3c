"""What every tower is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from two_tower.ragged import Ragged

__all__ = ["Tower"]


class Tower(nn.Module, ABC):
    """Maps texts to vectors. A text's vector depends on that text alone.

    A tower whose constructor has a parameter ``words`` is given the word table to look words up in.

    Args:
        dim: dimensions of the vectors.

    Attributes:
        parallel_by_text: several threads may encode different texts at once, each on one core; false
            where one text batch uses all cores by itself.
    """

    parallel_by_text: ClassVar[bool] = False

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @abstractmethod
    def forward(self, tokens: Ragged) -> Tensor:
        """Vectors (B, D) float32 of B texts; zeros for a text without tokens."""
