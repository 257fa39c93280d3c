"""The interface of all teachers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np


class Teacher(ABC):
    """A model that maps texts to vectors whose cosine says how similar the texts are."""

    name: str  # for messages

    @property
    @abstractmethod
    def dim(self) -> int:
        """Dimensions of a vector."""

    def common_words(self) -> list[str]:
        """Words that it reads as one piece each, the most common ones of its languages; none if it does not tell."""
        return []

    def pieces(self, texts: Sequence[str]) -> tuple[int, int] | None:
        """How many pieces it reads in texts, and how many of these it does not know; None if it does not tell."""
        return None

    @abstractmethod
    def fingerprint(self) -> str:
        """A short hash that changes whenever a vector might."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(B, T) float32 vectors of length 1."""
