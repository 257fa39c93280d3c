"""What every teacher gives: vectors of texts, and a name for what decides them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np


class Teacher(ABC):
    """A model that maps texts to vectors whose cosine says how much they have in common.

    Attributes:
        name: for messages.
    """

    name: str

    @property
    @abstractmethod
    def dim(self) -> int:
        """Dimensions of a vector."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A short hash that changes whenever any vector might."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of length 1, (B, T) float32."""
