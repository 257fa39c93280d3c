"""Warm-up, then half a cosine wave down."""

from __future__ import annotations

import math

from two_tower.scheduler.base import WarmupDecay

__all__ = ["Cosine"]


class Cosine(WarmupDecay):
    """Falls slowly at first and at the end, fastest in the middle; otherwise as `WarmupDecay`."""

    def decay(self, progress: float) -> float:
        """(1 + cos(pi * progress)) / 2."""
        return (1 + math.cos(math.pi * progress)) / 2
