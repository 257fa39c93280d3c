"""No schedule: the learning rate stays as it is."""

from __future__ import annotations

from torch.optim import Optimizer

from two_tower.scheduler.base import Scheduler

__all__ = ["NoScheduler"]


class NoScheduler(Scheduler):
    """Keeps the learning rate."""

    def build(self, optimizer: Optimizer, total_steps: float | None) -> None:
        """None, whatever the arguments."""
        return
