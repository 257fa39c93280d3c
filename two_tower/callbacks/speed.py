"""How long a run takes and how fast it trains, over interruptions too."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from two_tower.data.stream.batch import Batch
from two_tower.logger import log_epoch

__all__ = ["Speed"]


class Speed(Callback):
    """Counts seconds of the whole run, and training triplets per second without validation."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.training_seconds = 0.0
        self.triplets = 0
        self._tick = 0.0
        self._step_tick = 0.0
        self._spent = 0.0

    @property
    def triplets_per_second(self) -> float:
        """Mean over the run, validation and start-up left out."""
        return self.triplets / self.training_seconds if self.training_seconds else 0.0

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._tick = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of the steps, for an epoch that is continued: it is not started again."""
        self._start_steps(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of the epoch's steps."""
        self._start_steps(trainer)

    def _start_steps(self, trainer: L.Trainer) -> None:
        self._step_tick, self._spent = time.monotonic(), _spent(trainer)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count the step; state may be saved at any step, so both clocks move here."""
        now, spent = time.monotonic(), _spent(trainer)
        self.training_seconds += now - self._step_tick - (spent - self._spent)
        self.seconds += now - self._tick
        self._tick = self._step_tick = now
        self._spent = spent
        self.triplets += len(batch) * trainer.world_size

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the speed of the run so far."""
        self.seconds += time.monotonic() - self._tick
        self._tick = time.monotonic()
        log_epoch(trainer, {"train/triplets_per_second": self.triplets_per_second})

    def state_dict(self) -> dict[str, Any]:
        """Counts of the run so far."""
        return {"seconds": self.seconds, "training_seconds": self.training_seconds, "triplets": self.triplets}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.seconds, self.triplets = state_dict["seconds"], state_dict["triplets"]
        self.training_seconds = state_dict["training_seconds"]


def _spent(trainer: L.Trainer) -> float:
    """Seconds that callbacks which count their own (``spent``), such as validation, took from training."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return float(sum(getattr(callback, "spent", 0) for callback in callbacks))
