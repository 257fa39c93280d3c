"""The line that moves while a run trains: epoch, batch, triplets a second, loss, time left."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import rich
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from two_tower.data.stream.batch import Batch

__all__ = ["TrainingProgress"]


class TrainingProgress(ProgressBar):
    """One line for the whole run, in the first of several processes; what is printed meanwhile appears above it."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._shown: Progress | None = None

    def enable(self) -> None:
        """Show the line; Lightning's own switch."""
        self._enabled = True

    def disable(self) -> None:
        """Show nothing; Lightning calls it in all processes but the first."""
        self._enabled = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the line where the run continues."""
        if not self._enabled:
            return
        self._shown = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[batch]}  {task.fields[speed]}  loss {task.fields[loss]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=rich.get_console(),
            transient=True,
        )
        self._shown.add_task("", total=self._total(trainer), batch="", speed="", loss="–")
        self._task.completed = trainer.current_epoch * float(trainer.num_training_batches)
        self._shown.start()

    @staticmethod
    def _total(trainer: L.Trainer) -> float | None:
        """Batches of the whole run; None where nothing but its user ends it."""
        epochs = trainer.max_epochs if trainer.max_epochs not in (None, -1) else math.inf
        steps = trainer.max_steps * trainer.accumulate_grad_batches if trainer.max_steps != -1 else math.inf
        total = min(float(epochs or math.inf) * float(trainer.num_training_batches), float(steps))
        return total if math.isfinite(total) else None

    @property
    def _task(self) -> Any:  # noqa: ANN401
        assert self._shown is not None
        return self._shown.tasks[0]

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Move on by a batch."""
        if self._shown is None:
            return
        task = self._task
        triplets = len(batch) * trainer.world_size
        loss = trainer.callback_metrics.get("train/loss")
        epochs = "" if trainer.max_epochs in (None, -1) else f" of {trainer.max_epochs}"
        self._shown.update(
            task.id,
            advance=1,
            description=f"Epoch {trainer.current_epoch + 1}{epochs}",
            batch=f"batch {batch_idx + 1:,} of {trainer.num_training_batches:,}",
            speed=f"{task.speed * triplets:,.0f} triplets/s" if task.speed else "",
            loss="–" if loss is None else f"{float(loss):.4f}",
        )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the line away."""
        self._stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Take the line away, so that what went wrong is readable."""
        self._stop()

    def _stop(self) -> None:
        if self._shown is not None:
            self._shown.stop()
            self._shown = None
