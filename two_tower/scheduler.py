"""How the learning rate changes during training; every schedule multiplies each group's own rate."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from two_tower.errors import UserError, at_least


class Scheduler(ABC):
    """Builds a learning rate schedule."""

    needs_length: ClassVar[bool] = False  # whether `build` must know how many steps training takes

    @abstractmethod
    def build(self, optimizer: Optimizer, total_steps: float | None) -> dict[str, Any] | None:
        """Lightning's ``lr_scheduler`` description or None; ``total_steps`` may be None, -1 or infinite: unknown."""


class NoScheduler(Scheduler):
    """Keeps the learning rate."""

    def build(self, optimizer: Optimizer, total_steps: float | None) -> None:
        return


class Plateau(Scheduler):
    """Multiplies the rates by ``factor`` when more than ``patience`` validations in a row bring no new best."""

    def __init__(
        self, factor: float = 0.5, patience: int = 1, monitor: str = "val/mrr@10",
        mode: Literal["max", "min"] = "max", floor: float = 0.01,
    ) -> None:  # fmt: skip
        if not 0 < factor < 1:
            raise ValueError(f"factor={factor} must be between 0 and 1, both excluded")
        at_least(0, patience=patience)
        if mode not in ("max", "min"):
            raise ValueError(f"mode={mode} must be max or min")
        _check_share("floor", floor)
        self.factor, self.patience, self.floor, self.monitor, self.mode = factor, patience, floor, monitor, mode

    def build(self, optimizer: Optimizer, total_steps: float | None) -> dict[str, Any]:
        floors = [self.floor * group["lr"] for group in optimizer.param_groups]
        scheduler = ReduceLROnPlateau(optimizer, self.mode, self.factor, self.patience, min_lr=floors)
        return {"scheduler": scheduler, "monitor": self.monitor, "interval": "epoch"}


class WarmupDecay(Scheduler):
    """A linear rise over the first steps, then a decay until the last; subclasses give the decay's shape.

    Step ``s`` of the ``w`` warm-up steps has the factor ``(s + 1) / (w + 1)`` and step ``w`` the factor 1; the floor
    is reached just after the last step. So no step is spent at rate 0.
    """

    needs_length = True

    def __init__(self, warmup: float = 0.05, floor: float = 0.0) -> None:
        _check_share("warmup", warmup)
        _check_share("floor", floor)
        self.warmup, self.floor = warmup, floor

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
        if total_steps is None or not 0 <= total_steps < math.inf:
            name, remedy = type(self).__name__.lower(), "set trainer.max_steps or use scheduler=none|plateau"
            raise UserError(f"scheduler={name} needs a known length: {remedy}")
        length = int(total_steps)
        return {"scheduler": LambdaLR(optimizer, lambda step: self.factor(step, length)), "interval": "step"}


class Linear(WarmupDecay):
    """Falls by the same amount every step."""

    def decay(self, progress: float) -> float:
        return 1 - progress


class Cosine(WarmupDecay):
    """Half a cosine wave: falls slowly at first and at the end, fastest in the middle."""

    def decay(self, progress: float) -> float:
        return (1 + math.cos(math.pi * progress)) / 2


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value} must be between 0 and 1")
