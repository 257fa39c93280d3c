"""Checkpoints: the best evaluation to use, the last step to continue from."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, cast

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from two_tower.files import atomic_path
from two_tower.logger import run_loggers
from two_tower.model import TwoTower, is_row_due
from two_tower.run import Run
from two_tower.validation.full import FullValidation


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its name and renames it, so that a killed run never leaves half of one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        with atomic_path(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


class BestCheckpoint(Checkpoint):
    """``checkpoints/best.ckpt``: the trained weights of the evaluation that the table marks with its last star."""

    def __init__(self, run: Run, validation: FullValidation) -> None:
        super().__init__()
        self._path, self._validation = run.best, validation

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:  # noqa: ANN401
        if self._validation.just_evaluated and self._validation.best is self._validation.history[-1]:
            with cast(TwoTower, pl_module).folded():
                trainer.save_checkpoint(self._path, weights_only=True)

    on_train_epoch_end = on_train_batch_end


class LastCheckpoint(Checkpoint):
    """``checkpoints/last.ckpt``: the state from which the same command continues.

    Written between two optimizer steps only: a state saved in the middle of one would repeat or skip a batch. So
    Ctrl-C and SIGTERM wait for the end of the running step, save, and then stop the run; a second Ctrl-C stops at
    once. If one of several processes is asked to stop, all save and stop after the same step.

    Four things of Lightning's would make a continued run differ from an uninterrupted one:

    - It steps schedules that wait for a metric (plateau) after the last hook in which a checkpoint can be written.
      So the checkpoint of an epoch keeps the metrics they have not seen, and `on_train_start` makes up for it.
    - In the epoch that a run is continued in the middle of, it does not step them at all.
    - It hands a step's figures to the loggers after that hook, too; `_log_step` does so before.
    - What was logged after the last checkpoint is logged again: loggers are flushed before one, and rewound to it.

    ``every_seconds`` counts within an epoch; the end of each epoch is saved in any case.
    """

    def __init__(self, run: Run, every_seconds: float = 60.0) -> None:
        super().__init__()
        self._path, self._every, self._saved_at = run.last, every_seconds, time.monotonic()
        self._unseen_metrics: dict[str, float] = {}  # by the plateau schedules
        self._stop_requested = False
        self._previous_handlers: dict[int, Any] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if not self._path.exists():  # the run may have been killed before its first checkpoint
            self.on_load_checkpoint(trainer, pl_module, {"global_step": 0})

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        for logger in run_loggers(trainer.loggers):
            logger.rewind(checkpoint["global_step"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Step the plateau schedules that the checkpoint was ahead of; take over Ctrl-C and SIGTERM."""
        self._saved_at = time.monotonic()
        for config in _plateaus(trainer):
            if config.monitor in self._unseen_metrics:
                config.scheduler.step(self._unseen_metrics[config.monitor])
        self._unseen_metrics = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous_handlers[number] = signal.signal(number, self._request_stop)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        if self._stop_requested:
            raise KeyboardInterrupt
        self._stop_requested = True

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:  # noqa: ANN401
        if 0 < trainer.max_steps <= trainer.global_step or trainer.should_stop or trainer.is_last_batch:
            return  # saved after the epoch's validation
        if (args[-1] + 1) % trainer.accumulate_grad_batches:
            return  # no checkpoint holds the gradients that the next step will add to
        due = self._stop_requested or time.monotonic() - self._saved_at >= self._every
        # Saving waits for the other processes, whose clocks and signals are their own: all or none.
        if trainer.strategy.reduce_boolean_decision(due, all=False):
            _log_step(trainer, cast(TwoTower, pl_module))
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        monitored, metrics = {c.monitor for c in _plateaus(trainer)}, trainer.callback_metrics
        self._unseen_metrics = {name: float(value) for name, value in metrics.items() if name in monitored}
        self._save(trainer)
        self._unseen_metrics = {}
        if trainer.fit_loop.restarting:
            trainer.fit_loop.epoch_loop.update_lr_schedulers("epoch", update_plateau_schedulers=True)

    def _save(self, trainer: L.Trainer) -> None:
        for logger in run_loggers(trainer.loggers):
            logger.flush()
        trainer.save_checkpoint(self._path)
        self._saved_at = time.monotonic()
        if trainer.strategy.reduce_boolean_decision(self._stop_requested, all=False):
            raise KeyboardInterrupt

    def state_dict(self) -> dict[str, Any]:
        return {"waiting": self._unseen_metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._unseen_metrics = dict(state_dict["waiting"])

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Restore the previous signal handlers, before Lightning does so: its own would keep the whole run alive."""
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers.clear()

    on_exception = on_train_end


def _plateaus(trainer: L.Trainer) -> list[Any]:
    """The schedules that wait for a metric, as Lightning describes them."""
    return [c for c in trainer.lr_scheduler_configs if c.reduce_on_plateau]


def _log_step(trainer: L.Trainer, model: TwoTower) -> None:
    """Log the figures of the step if they are due, to the loggers that accept them a second time from Lightning."""
    if not is_row_due(trainer):
        return
    figures = {name: float(value) for name, value in model.figures.items()}
    for logger in run_loggers(trainer.loggers):
        if logger.may_repeat:
            logger.log_metrics({"epoch": trainer.current_epoch, **figures}, step=trainer.global_step - 1)
