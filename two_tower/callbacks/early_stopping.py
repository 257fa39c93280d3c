"""Ends training when it no longer helps."""

from __future__ import annotations

import math
from typing import Any, Literal, cast

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from two_tower.errors import UserError, at_least, one_of
from two_tower.model import TwoTower
from two_tower.validation.full import FullValidation

# What a continued run must know to end as one that was never interrupted.
_STATE = ("best", "best_name", "waited", "stopped_at", "reason")


class EarlyStopping(Callback):
    """Stops when a metric has not improved in ``patience`` evaluations in a row, or is not finite.

    The rule is Lightning's `EarlyStopping` (a test compares them), which cannot be the base: it looks at ends of
    epochs only, keeps no reason, and a run that is killed after it has stopped would train on when it is continued.

    ``monitor`` is any metric that is logged; a name that training does not log is refused after the first step. The
    figures of training are those of the last batch before an evaluation, and noisy. Without a ``mode``, less of a loss
    is better and more of a search metric or accuracy.
    """

    def __init__(
        self, validation: FullValidation, monitor: str = "val/mrr@10", patience: int = 3, min_delta: float = 0.0,
        mode: Literal["max", "min"] | None = None,
    ) -> None:  # fmt: skip
        at_least(1, patience=patience)
        at_least(0, min_delta=min_delta)
        in_training = monitor.startswith("train/")
        if not in_training and monitor not in validation.logged:
            raise _not_logged(monitor, [*validation.logged, "train/loss"])
        self.validation, self.monitor, self.patience, self.min_delta = validation, monitor, patience, min_delta
        if mode is None and in_training and not monitor.endswith(("loss", "accuracy")):
            say = "set callbacks.early_stopping.mode=max or min"
            raise ValueError(f"monitor={monitor} does not say which way is better: {say}")
        self.mode = mode or ("min" if monitor.endswith("loss") else "max")
        self.best: float | None = None
        self.best_name = ""
        self.waited = 0
        self.stopped_at: int | None = None  # the step after which training was stopped
        self.reason = ""  # one sentence on why, empty until then
        self._is_logged = not in_training

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Do not continue a run that was interrupted after it had stopped."""
        if self.reason:
            trainer.should_stop = True

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:  # noqa: ANN401
        if not self._is_logged and self.monitor not in (figures := _figures(trainer, pl_module)):
            names = [*self.validation.logged, *figures]
            raise UserError(f"callbacks.early_stopping.{_not_logged(self.monitor, names)}.")
        self._is_logged = True
        self._judge(trainer, pl_module)

    def _judge(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.validation.just_evaluated or self.reason:
            return
        # A loss is that of a process's own part of the batch; all must stop together, so the first one's decides.
        value = trainer.strategy.broadcast(float(_figures(trainer, pl_module)[self.monitor]))
        name = self.validation.latest_name
        if self._improves(value):
            self.best, self.best_name, self.waited = value, name, 0
        else:
            self.waited += 1
        if math.isfinite(value) and self.waited < self.patience:
            return
        beyond = "above" if self.mode == "max" else "below"
        enough = f" by more than {self.min_delta:g}" if self.min_delta else ""
        checks = "the last check" if self.waited == 1 else f"the last {self.waited} checks"
        stuck = f"{self.monitor} was not {beyond} {self.best or 0:.4g} ({self.best_name}){enough} in {checks}"
        cause = stuck if math.isfinite(value) else f"{self.monitor} is {value}"
        self.reason = f"Stopped early after {name}: {cause}."
        self.stopped_at, trainer.should_stop = trainer.global_step, True

    on_train_epoch_end = _judge

    def _improves(self, value: float) -> bool:
        if self.best is None or not math.isfinite(value):
            return math.isfinite(value)
        return value > self.best + self.min_delta if self.mode == "max" else value < self.best - self.min_delta

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)


def _not_logged(monitor: str, names: list[str]) -> ValueError:
    return ValueError(f"monitor={monitor} is not logged; {one_of(monitor, dict.fromkeys(names))}")


def _figures(trainer: L.Trainer, model: L.LightningModule) -> dict[str, Tensor]:
    """What is logged, and all figures of the latest step, logged or not."""
    return {**trainer.callback_metrics, **cast(TwoTower, model).figures}
