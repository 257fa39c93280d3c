"""Checkpoints: the best epoch to use, the last step to continue from."""

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
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from two_tower.files import atomic_path
from two_tower.logger.csv import CsvLogger
from two_tower.report.run import Run

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


class BestCheckpoint(ModelCheckpoint):
    """``checkpoints/best.ckpt``: the trained epoch with the best validation metric.

    Args:
        run: the run folder.
        monitor: what to compare; larger is better.
    """

    def __init__(self, run: Run, monitor: str = "val/mrr@10") -> None:
        super().__init__(
            dirpath=run.checkpoints,
            filename="best",
            monitor=monitor,
            mode="max",
            save_top_k=1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )


def _plateaus(trainer: L.Trainer) -> list[Any]:
    """The descriptions of the schedules that wait for a metric."""
    return [c for c in trainer.lr_scheduler_configs if c.reduce_on_plateau]


def _histories(trainer: L.Trainer) -> list[CsvLogger]:
    """The history that must not fall behind the checkpoint."""
    return [logger for logger in trainer.loggers if isinstance(logger, CsvLogger)]


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

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Catch up with the checkpoint that the run continues from; take over Ctrl-C and SIGTERM."""
        self._saved = time.monotonic()
        for history in _histories(trainer):
            history.rewind(trainer.global_step)
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

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:  # noqa: ANN401
        """Save when it is time, or stop when asked to."""
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return  # saved after the epoch's validation
        due = self._asked_to_stop or time.monotonic() - self._saved >= self._every
        # Saving waits for the other processes, whose clocks and signals are their own: all or none.
        if trainer.strategy.reduce_boolean_decision(due, all=False):
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
