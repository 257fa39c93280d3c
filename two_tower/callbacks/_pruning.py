"""Ends a run that is not worth going on: one of many in a sweep that looks for the best."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import Callback

from two_tower.errors import one_of
from two_tower.model import TwoTower
from two_tower.validation.full import FullValidation

# A figure, and what is called with the number of a check, from 1, and its value then; it says whether to end the run.
Watched = tuple[str, Callable[[int, float], bool]]
# Figures of ``results.json`` that only the end of a run has.
_AT_THE_END = ("seconds", "validation/seconds", "train/triplets_per_second", "epochs", "best_epoch", "best_step")


class Pruning(Callback):
    """Reports ``metric`` at each check, and ends the run if ``report`` says so.

    A run whose training is over anyway is never given up. A figure that no check has is not reported.
    """

    def __init__(self, validation: FullValidation, metric: str, report: Callable[[int, float], bool]) -> None:
        names = dict.fromkeys([*validation.logged, "train/loss", *_AT_THE_END])
        if metric not in names and not metric.startswith(("train/", "doctor/")):
            raise ValueError(f"metric={metric} is no figure of a run; {one_of(metric, names)}")
        self.validation, self.metric, self.report = validation, metric, report
        self.pruned = ""  # one sentence once the run is given up

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:  # noqa: ANN401
        if not self.validation.just_evaluated:
            return
        figures = {**trainer.callback_metrics, **cast(TwoTower, pl_module).figures}
        if self.metric not in figures:
            return
        value = float(figures[self.metric])
        hopeless = self.report(len(self.validation.history), value)
        epochs = trainer.current_epoch + trainer.is_last_batch
        over = trainer.should_stop or epochs == trainer.max_epochs or trainer.global_step == trainer.max_steps
        if hopeless and not over:
            self.pruned = f"{self.metric} was {value:.4g} after {self.validation.latest_name}, worse than other jobs'."
            trainer.should_stop = True

    on_train_epoch_end = on_train_batch_end


def watch(trainer: L.Trainer, validation: FullValidation, watched: Watched | None) -> None:
    """Let a run be given up, if it is to be watched."""
    if watched:
        trainer.callbacks.append(Pruning(validation, *watched))  # type: ignore[attr-defined]


def given_up(trainer: L.Trainer) -> str:
    """Why a run was given up, in one sentence; empty if it was not."""
    return next((each.pruned for each in trainer.callbacks if isinstance(each, Pruning)), "")  # type: ignore[attr-defined]
