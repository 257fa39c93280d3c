"""Checkpoints: the best check to use, the last step to continue from."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from two_tower.files import atomic_path
from two_tower.logger import History
from two_tower.run import Run
from two_tower.validation.full import FullValidation

__all__ = ["AtomicCheckpointIO", "BestCheckpoint", "LastCheckpoint"]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its name and renames it, so that a killed run never leaves half of one."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any = None,  # noqa: ANN401
    ) -> None:
        """Save atomically."""
        with atomic_path(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


class BestCheckpoint(Checkpoint):
    """``checkpoints/best.ckpt``: the check of trained weights that the validation calls the best, star and all.

    Args:
        run: the run folder.
        validation: what makes the checks.
    """

    def __init__(self, run: Run, validation: FullValidation) -> None:
        super().__init__()
        self._path, self._validation = run.best, validation

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:  # noqa: ANN401
        """Save after a check within an epoch."""
        self._save_if_best(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save after the check of an epoch."""
        self._save_if_best(trainer)

    def _save_if_best(self, trainer: L.Trainer) -> None:
        if self._validation.just_checked and self._validation.best is self._validation.history[-1]:
            trainer.save_checkpoint(self._path)


def _plateaus(trainer: L.Trainer) -> list[Any]:
    """The descriptions of the schedules that wait for a metric."""
    return [c for c in trainer.lr_scheduler_configs if c.reduce_on_plateau]


def _epoch_ends(trainer: L.Trainer) -> bool:
    """Whether the batch that just ended is the last one of its epoch, which may be cut short."""
    no_more_steps = 0 < trainer.max_steps <= trainer.global_step
    return no_more_steps or trainer.should_stop or trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


def _histories(trainer: L.Trainer) -> list[History]:
    """The history that must not fall behind the checkpoint."""
    return [logger for logger in trainer.loggers if isinstance(logger, History)]


def _log_step(trainer: L.Trainer) -> None:
    """Write the figures of the step into the history if they are due.

    Lightning hands them to the loggers after the last hook in which a checkpoint can be written: a run killed in
    between would lack them when it continues.
    """
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    if not every or trainer.global_step % every:
        return
    figures = {name: v.item() for name, v in trainer.callback_metrics.items() if name.startswith("train/")}
    for history in _histories(trainer):
        history.log_metrics({"epoch": trainer.current_epoch, **figures}, step=trainer.global_step - 1)


class LastCheckpoint(Checkpoint):
    """``checkpoints/last.ckpt``: the state from which the same command continues.

    Written between two steps only: a state saved in the middle of one would repeat or skip a batch. So
    Ctrl-C and SIGTERM wait for the end of the running step, save, and then stop the run; a second Ctrl-C
    stops at once. Of several processes all save and stop after the same step, whichever of them is asked.

    Args:
        run: the run folder.
        every_seconds: how often it is written within an epoch; it also is at the end of each epoch.
    """

    def __init__(self, run: Run, every_seconds: float = 60.0) -> None:
        super().__init__()
        self._path = run.last
        self._every = every_seconds
        self._saved = time.monotonic()
        self._waiting: dict[str, float] = {}
        self._asked_to_stop = False
        self._handlers: dict[int, Any] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Forget what a run logged that was killed before it saved anything."""
        if not self._path.exists():
            self._rewind(trainer, 0)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Forget what was logged after the checkpoint that the run continues from."""
        self._rewind(trainer, checkpoint["global_step"])

    def _rewind(self, trainer: L.Trainer, step: int) -> None:
        for history in _histories(trainer):
            history.rewind(step)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Catch up with the checkpoint that the run continues from; take over Ctrl-C and SIGTERM."""
        self._saved = time.monotonic()
        for config in _plateaus(trainer):
            if config.monitor in self._waiting:
                config.scheduler.step(self._waiting[config.monitor])
        self._waiting = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._ask_to_stop)

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        if self._asked_to_stop:
            raise KeyboardInterrupt
        self._asked_to_stop = True

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Save when it is time, or stop when asked to."""
        if _epoch_ends(trainer):
            return  # saved after the epoch's validation
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # no checkpoint holds the gradients that the next step will add to
        due = self._asked_to_stop or time.monotonic() - self._saved >= self._every
        # Saving waits for the other processes, whose clocks and signals are their own: all or none.
        if trainer.strategy.reduce_boolean_decision(due, all=False):
            _log_step(trainer)
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save after the epoch's validation."""
        metrics = trainer.callback_metrics
        monitored = {c.monitor for c in _plateaus(trainer) if c.monitor in metrics}
        self._waiting = {name: float(metrics[name]) for name in monitored}
        self._save(trainer)
        self._waiting = {}

    def _save(self, trainer: L.Trainer) -> None:
        for history in _histories(trainer):
            history.flush()
        trainer.save_checkpoint(self._path)
        self._saved = time.monotonic()
        if trainer.strategy.reduce_boolean_decision(self._asked_to_stop, all=False):
            raise KeyboardInterrupt

    def state_dict(self) -> dict[str, Any]:
        """At the end of an epoch, the metrics that plateau schedules have not seen yet.

        Lightning steps those schedules only after the last hook in which a checkpoint can be written, so
        a continued run would miss one step of theirs.
        """
        return {"waiting": self._waiting}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember what `on_train_start` has to catch up on."""
        self._waiting = dict(state_dict["waiting"])

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
