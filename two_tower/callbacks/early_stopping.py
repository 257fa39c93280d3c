"""Ends training when it no longer helps."""

from __future__ import annotations

import math
from typing import Any, Literal

import lightning as L
from lightning.pytorch.callbacks import Callback

from two_tower.errors import UserError, one_of
from two_tower.validation.full import FullValidation

__all__ = ["EarlyStopping"]

# What a continued run has to know, so that it ends as one that was never interrupted.
_KEPT = ("best", "best_name", "waited", "stopped_at", "reason")


class EarlyStopping(Callback):
    """Stops when a metric has not become better in so many checks of the validation in a row, or is not finite.

    Lightning's own looks at ends of epochs only, and a run that is killed after it has stopped would train another
    epoch when it is continued.

    Args:
        validation: what makes the checks.
        monitor: any metric that is logged: ``val/METRIC``, ``hybrid/METRIC``, ``train/loss`` or another of the loss's
            figures. Those of training are of one batch, that of the last step before a check, and noisy.
        patience: how many checks in a row without a better value end training.
        min_delta: by how much a value must be better to count as better.
        mode: ``max`` if more is better, ``min`` if less is; None: less of a loss, more of a search metric or accuracy.

    Attributes:
        stopped_at: the step after which training was stopped, or None.
        reason: one sentence on why, empty until then.

    Raises:
        UserError: a value is out of range, or validation measures no such metric. That training logs none of this
            name is told after the first step.
    """

    def __init__(
        self,
        validation: FullValidation,
        monitor: str = "val/mrr@10",
        patience: int = 3,
        min_delta: float = 0.0,
        mode: Literal["max", "min"] | None = None,
    ) -> None:
        if patience < 1:
            raise UserError(f"callbacks.early_stopping.patience={patience} must be at least 1.")
        if min_delta < 0:
            raise UserError(f"callbacks.early_stopping.min_delta={min_delta} must be at least 0.")
        in_training = monitor.startswith("train/")
        if not in_training and monitor not in validation.logged:
            raise _unknown(monitor, [*validation.logged, "train/loss"])
        self.validation, self.monitor, self.patience, self.min_delta = validation, monitor, patience, min_delta
        self.mode = mode or _mode(monitor)
        self.best: float | None = None
        self.best_name = ""
        self.waited = 0
        self.stopped_at: int | None = None
        self.reason = ""
        self._exists = not in_training

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Do not go on with a run that was interrupted after it had stopped."""
        if self.reason:
            trainer.should_stop = True

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:  # noqa: ANN401
        """Look at a check within an epoch."""
        if not self._exists and self.monitor not in trainer.callback_metrics:
            raise _unknown(self.monitor, [*self.validation.logged, *map(str, trainer.callback_metrics)])
        self._exists = True
        self._look(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the check of an epoch."""
        self._look(trainer)

    def _look(self, trainer: L.Trainer) -> None:
        if not self.validation.just_checked or self.reason:
            return
        # A loss is that of a process' own part of the batch; all must stop together, so the first one's decides.
        value = trainer.strategy.broadcast(float(trainer.callback_metrics[self.monitor]))
        name = self.validation.name_of_check
        if self._better(value):
            self.best, self.best_name, self.waited = value, name, 0
        else:
            self.waited += 1
        if not math.isfinite(value):
            self.reason = f"Stopped early after {name}: {self.monitor} is {value}."
        elif self.waited >= self.patience:
            self.reason = f"Stopped early after {name}: {self._stagnation()}."
        if self.reason:
            self.stopped_at, trainer.should_stop = trainer.global_step, True

    def _better(self, value: float) -> bool:
        if self.best is None or not math.isfinite(value):
            return math.isfinite(value)
        return value > self.best + self.min_delta if self.mode == "max" else value < self.best - self.min_delta

    def _stagnation(self) -> str:
        beyond = "above" if self.mode == "max" else "below"
        enough = f" by more than {self.min_delta:g}" if self.min_delta else ""
        checks = "the last check" if self.waited == 1 else f"the last {self.waited} checks"
        return f"{self.monitor} was not {beyond} {self.best:.4g} ({self.best_name}){enough} in {checks}"

    def state_dict(self) -> dict[str, Any]:
        """What was seen so far."""
        return {name: getattr(self, name) for name in _KEPT}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        vars(self).update(state_dict)


def _mode(monitor: str) -> Literal["max", "min"]:
    """Which way is better, where the name says so.

    Raises:
        UserError: it does not.
    """
    if monitor.endswith("loss"):
        return "min"
    if monitor.startswith("train/") and not monitor.endswith("accuracy"):
        raise UserError(
            f"callbacks.early_stopping.monitor={monitor} does not say which way is better: set "
            "callbacks.early_stopping.mode=max or min."
        )
    return "max"


def _unknown(monitor: str, names: list[str]) -> UserError:
    return UserError(
        f"callbacks.early_stopping.monitor={monitor} is not logged; {one_of(monitor, dict.fromkeys(names))}."
    )
