"""Warm-up, then a straight line down."""

from __future__ import annotations

from two_tower.scheduler.base import WarmupDecay

__all__ = ["Linear"]


class Linear(WarmupDecay):
    """Falls by the same amount every step; otherwise as `WarmupDecay`."""

    def decay(self, progress: float) -> float:
        """1 - progress."""
        return 1 - progress
