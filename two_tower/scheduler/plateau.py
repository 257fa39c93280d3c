"""Lower the learning rate when the validation metric stops getting better."""

from __future__ import annotations

from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from two_tower.errors import UserError
from two_tower.scheduler.base import Scheduler, check_share

__all__ = ["Plateau"]


class Plateau(Scheduler):
    """Multiplies the rates by ``factor`` after ``patience`` validations in a row without a new best.

    Needs no length, so it suits training until stopped. ``patience`` validations are forgiven: with 1 the
    second one without a new best lowers the rates.

    Args:
        factor: what the rates are multiplied by.
        patience: how many validations without a new best are forgiven.
        monitor: the metric, as it is logged.
        mode: ``max`` if more is better, ``min`` if less is.
        floor: the smallest rate, as a share of each group's first.

    Raises:
        UserError: a value is out of range.
    """

    def __init__(
        self,
        factor: float = 0.5,
        patience: int = 1,
        monitor: str = "val/mrr@10",
        mode: Literal["max", "min"] = "max",
        floor: float = 0.01,
    ) -> None:
        if not 0 < factor < 1:
            raise UserError(f"scheduler.factor is {factor}: set it to a number between 0 and 1, both excluded.")
        if patience < 0:
            raise UserError(f"scheduler.patience is {patience}: set it to at least 0.")
        if mode not in ("max", "min"):
            raise UserError(f"scheduler.mode is {mode!r}: set it to max or min.")
        check_share("floor", floor)
        self.factor = factor
        self.patience = patience
        self.monitor = monitor
        self.mode: Literal["max", "min"] = mode
        self.floor = floor

    def build(self, optimizer: Optimizer, total_steps: float | None) -> dict[str, Any]:
        """See `Scheduler.build`."""
        scheduler = ReduceLROnPlateau(
            optimizer,
            mode=self.mode,
            factor=self.factor,
            patience=self.patience,
            min_lr=[self.floor * group["lr"] for group in optimizer.param_groups],
        )
        return {"scheduler": scheduler, "monitor": self.monitor, "interval": "epoch"}
