"""What all schedulers have in common: they build Lightning's scheduler description for an optimizer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from two_tower.errors import UserError

__all__ = ["Scheduler", "WarmupDecay", "check_share"]


class Scheduler(ABC):
    """Builds a learning rate schedule.

    Attributes:
        needs_length: whether `build` must know how many steps training takes.
    """

    needs_length: ClassVar[bool] = False

    @abstractmethod
    def build(self, optimizer: Optimizer, total_steps: float | None) -> dict[str, Any] | None:
        """Lightning's ``lr_scheduler`` description for ``optimizer``; None: the rates stay as they are.

        Args:
            optimizer: the optimizer; each of its groups keeps its own rate as the 1 of the schedule.
            total_steps: optimizer steps of the whole training; None, -1 or infinite if unknown.

        Raises:
            UserError: the schedule needs the length and it is unknown.
        """


class WarmupDecay(Scheduler):
    """A linear rise over the first steps, then a decay until the last; subclasses give the decay's shape.

    Step ``s`` of the ``w`` warm-up steps has the factor ``(s + 1) / (w + 1)`` and step ``w`` the factor 1;
    the floor is reached just after the last step. So no step is spent at rate 0.

    Args:
        warmup: share of all steps that the rise takes; 0 starts at the full rate.
        floor: where the decay ends, as a share of the rate.

    Raises:
        UserError: a share is not between 0 and 1.
    """

    needs_length = True

    def __init__(self, warmup: float = 0.05, floor: float = 0.0) -> None:
        check_share("warmup", warmup)
        check_share("floor", floor)
        self.warmup = warmup
        self.floor = floor

    @abstractmethod
    def decay(self, progress: float) -> float:
        """From 1 at ``progress`` 0 (the end of the rise) to 0 at ``progress`` 1 (the end of training)."""

    def factor(self, step: int, total_steps: int) -> float:
        """What the rates are multiplied by at ``step`` (from 0); the floor from ``total_steps`` on."""
        rise = round(self.warmup * total_steps)
        if step < rise:
            return (step + 1) / (rise + 1)
        progress = min(1.0, (step - rise) / max(1, total_steps - rise))
        return self.floor + (1 - self.floor) * self.decay(progress)

    def build(self, optimizer: Optimizer, total_steps: float | None) -> dict[str, Any]:
        """See `Scheduler.build`."""
        if total_steps is None or not 0 <= total_steps < math.inf:
            raise UserError(
                f"scheduler={type(self).__name__.lower()} needs a known length: "
                "set trainer.max_steps or use scheduler=none|plateau"
            )
        length = int(total_steps)
        return {"scheduler": LambdaLR(optimizer, lambda step: self.factor(step, length)), "interval": "step"}


def check_share(name: str, value: float) -> None:
    """Raise a UserError unless ``0 <= value <= 1``."""
    if not 0 <= value <= 1:
        raise UserError(f"scheduler.{name} is {value}: set it to a share between 0 and 1.")
