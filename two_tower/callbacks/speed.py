"""How long a run takes and how fast it trains, over interruptions too; and the line that shows it while it runs."""

from __future__ import annotations

import math
import time
from typing import Any, cast

import lightning as L
import rich
from lightning.pytorch.callbacks import Callback, ProgressBar
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from two_tower.data.stream.batch import Batch
from two_tower.logger import log_epoch
from two_tower.model import TwoTower


class Speed(Callback):
    """Counts seconds of the whole run, and training triplets per second without validation."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.training_seconds = 0.0
        self.triplets = 0
        self._clock = 0.0  # when `seconds` was updated last
        self._step_clock = 0.0  # when `training_seconds` was
        self._overhead = 0.0  # other callbacks' seconds then

    @property
    def triplets_per_second(self) -> float:
        """Mean over the run, without validation and start-up."""
        return self.triplets / self.training_seconds if self.training_seconds else 0.0

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._clock = time.monotonic()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._step_clock, self._overhead = time.monotonic(), _overhead_seconds(trainer)

    on_train_start = on_train_epoch_start  # for an epoch that is continued: Lightning does not start it again

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int,  # noqa: ANN401
    ) -> None:  # fmt: skip
        # A checkpoint may be written at any step, so both clocks move here.
        now, overhead = time.monotonic(), _overhead_seconds(trainer)
        self.training_seconds += now - self._step_clock - (overhead - self._overhead)
        self.seconds += now - self._clock
        self._clock, self._step_clock, self._overhead = now, now, overhead
        self.triplets += len(batch) * trainer.world_size

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds += time.monotonic() - self._clock
        self._clock = time.monotonic()
        log_epoch(trainer, {"train/triplets_per_second": self.triplets_per_second})

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "training_seconds": self.training_seconds, "triplets": self.triplets}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)


def _overhead_seconds(trainer: L.Trainer) -> float:
    """Seconds that callbacks which count their own, such as validation, took from training."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return float(sum(getattr(callback, "overhead_seconds", 0) for callback in callbacks))


class TrainingProgress(ProgressBar):
    """One line for the whole run, in the first of several processes; what is printed meanwhile appears above it."""

    _enabled = True
    _bar: Progress | None = None

    def disable(self) -> None:  # which Lightning calls in all processes but the first
        self._enabled = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._enabled:
            return
        figures = TextColumn("{task.fields[batch]}  {task.fields[speed]}  loss {task.fields[loss]}")
        times = TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()
        columns = TextColumn("{task.description}"), BarColumn(), figures, *times
        self._bar = Progress(*columns, console=rich.get_console(), transient=True)
        self._bar.add_task("", total=_total_batches(trainer), batch="", speed="", loss="–")
        self._bar.tasks[0].completed = trainer.current_epoch * float(trainer.num_training_batches)
        self._bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int,  # noqa: ANN401
    ) -> None:  # fmt: skip
        if self._bar is None:
            return
        task = self._bar.tasks[0]
        loss = cast(TwoTower, pl_module).figures["train/loss"]
        epochs = "" if trainer.max_epochs in (None, -1) else f" of {trainer.max_epochs}"
        self._bar.update(
            task.id,
            advance=1,
            description=f"Epoch {trainer.current_epoch + 1}{epochs}",
            batch=f"batch {batch_idx + 1:,} of {trainer.num_training_batches:,}",
            speed=f"{task.speed * len(batch) * trainer.world_size:,.0f} triplets/s" if task.speed else "",
            loss=f"{float(loss):.4f}",
        )

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        if self._bar is not None:
            self._bar.stop()
        self._bar = None

    on_exception = on_train_end  # so that the error is readable


def _total_batches(trainer: L.Trainer) -> float | None:
    """Batches of the whole run; None if only its user ends it."""
    epochs = math.inf if trainer.max_epochs in (None, -1) else trainer.max_epochs
    steps = math.inf if trainer.max_steps == -1 else trainer.max_steps * trainer.accumulate_grad_batches
    total = min(float(epochs or math.inf) * float(trainer.num_training_batches), float(steps))
    return total if math.isfinite(total) else None
