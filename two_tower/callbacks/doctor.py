"""The doctor as a callback: measures a few steps closely, says what is wrong as soon as it shows."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, cast

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback
from torch import nn

from two_tower.config import read
from two_tower.data.stream.batch import Batch
from two_tower.data.stream.module import TripletData
from two_tower.doctor import measure_step
from two_tower.doctor.base import Check, Finding, Signals, Step
from two_tower.doctor.diagnose import diagnose
from two_tower.doctor.measure_batch import difference_alone, look
from two_tower.doctor.measure_data import measure_data, measure_teaching, measure_words, own_of_words, some_texts
from two_tower.doctor.record import Record, report
from two_tower.logger import run_loggers
from two_tower.loss.base import LossInput, LossOutput
from two_tower.model import TwoTower, total_steps
from two_tower.run import Run
from two_tower.validation.full import FullValidation

PROBED = (2, 20, 40)  # the steps that are looked at closely in every run
# Later ones: each at this multiple of the last, while the doctor has taken less than this share of the run's time.
APART, BUDGET = 1.25, 0.006
MAX_STEPS = 1000  # that are kept; beyond, every second one is dropped
STEPS_BETWEEN = {"cuda": 10}  # by device: how often the loss is read where that takes time


class Doctor(Callback):
    """Looks for what goes wrong in a run, and says so on the console, in ``doctor.json`` and to the loggers.

    It costs about 1 % of a short run's time, and less of a longer one's: each step it notes what the loss reports
    anyway; at steps 2, 20 and 40, and then ever more rarely, it looks closely at a part of the batch.
    """

    def __init__(
        self, run: Run, validation: FullValidation, on_error: Literal["continue", "stop"] = "continue"
    ) -> None:
        self.run, self.validation, self.on_error = run, validation, on_error
        self.signals = Signals(config=read(run.config) if run.config.exists() else {})
        self.reason = ""  # why the run was stopped, empty if it was not
        self.stopped_at: int | None = None  # the step at which it was
        self.overhead_seconds = 0.0  # that all this took
        self._record = Record(run)
        self._watch = measure_step.Stopwatch()
        self._output: LossOutput | None = None  # of the last step
        # Of a step that is looked at closely: the weights before it, what its loss saw, the gradients.
        self._weights: measure_step.Weights | None = None
        self._seen: LossInput | None = None
        self._gradients: dict[str, Any] = {}
        self._next = 0.0  # the next step to look at, beyond the fixed ones
        self._start = 0.0
        self._elapsed = 0.0  # seconds of the run before it was interrupted
        self._own = 0.0  # seconds of this step that were the doctor's
        self._right: list[float] = []  # accuracy of the steps since the last check
        self._best: np.ndarray | None = None  # per query, of the best check so far

    @property
    def findings(self) -> list[Finding]:
        return self._record.findings

    @property
    def count(self) -> int:
        """How many findings are warnings or errors."""
        return sum(finding.severity != "info" for finding in self.findings)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start = time.perf_counter()
        loss = cast(TwoTower, pl_module).loss
        assert loss is not None
        loss.register_forward_hook(self._observe)
        if self.reason:  # it was interrupted after the doctor had stopped it
            trainer.should_stop = True

    def _observe(self, loss: nn.Module, inputs: tuple[LossInput], output: LossOutput) -> None:
        self._output = output
        if self._weights is not None and self._seen is None:
            self._seen = inputs[0]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        signals, validation, monitor = self.signals, self.validation, self.validation.monitor
        signals.monitor, signals.similarity = monitor, cast(TwoTower, pl_module).similarity.name
        signals.total_steps = total_steps(trainer)
        known = {"bm25": validation.bm25, "untrained": validation.untrained}
        signals.baseline = {name: means[monitor] for name, means in known.items() if monitor in means}

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._watch.pause()  # checks and checkpoints between epochs are no wait for a batch

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero:
            return
        model, signals = cast(TwoTower, pl_module), self.signals
        if signals.data is None:
            with self._spending():
                data = cast(TripletData, trainer.datamodule)  # type: ignore[attr-defined]
                signals.data = measure_data(data)
                signals.words = measure_words(signals.config, data, model)
                signals.teaching = measure_teaching(data, model)
                signals.alone = difference_alone(model, some_texts(data))
                self._examine(trainer)
        self._watch.start()
        if self._due(trainer, batch_idx):
            with self._spending():
                self._weights = measure_step.Weights(model, batch)
        self._own = 0.0

    def _due(self, trainer: L.Trainer, batch: int) -> bool:
        """Whether the step that begins is looked at closely; while gradients accumulate only its last batch is."""
        if (batch + 1) % trainer.accumulate_grad_batches and batch + 1 != trainer.num_training_batches:
            return False
        step = trainer.global_step + 1
        cheap = self.overhead_seconds < BUDGET * self._seconds
        last = step == self.signals.total_steps and step < PROBED[-1]
        return step in PROBED or last or (step >= max(self._next, PROBED[-1]) and cheap)

    @property
    def _seconds(self) -> float:
        """Of the run so far."""
        return self._elapsed + time.perf_counter() - self._start

    def on_before_backward(self, *args: Any) -> None:  # noqa: ANN401
        self._watch.mark()

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._watch.mark()
        if self._seen is not None:
            with self._spending():
                self._gradients = measure_step.gradients(cast(TwoTower, pl_module))  # not clipped yet

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int,  # noqa: ANN401
    ) -> None:  # fmt: skip
        looked = self._seen is not None
        if trainer.is_global_zero:
            with self._spending():
                diverged = not math.isfinite(self._note(trainer, looked))
                if looked:
                    self._finish_look(trainer, cast(TwoTower, pl_module), batch)
                if self.validation.just_evaluated:
                    self._check(trainer)
                if looked or self.validation.just_evaluated or diverged:
                    self._examine(trainer)
            self._watch.end(self._own)
        if looked or self.validation.just_evaluated or self.on_error == "stop":
            self._stop_if_hopeless(trainer)
        self._watch.resume()

    def _note(self, trainer: L.Trainer, looked: bool) -> float:
        """Keep what the loss reported, and return it; on a GPU, where reading waits for the step, only now and then."""
        if self._output is None:
            return 0.0
        if not looked and trainer.global_step % STEPS_BETWEEN.get(self._output.loss.device.type, 1):
            return 0.0
        loss, more = self._output
        names = ("positive_similarity", "negative_similarity", "accuracy")
        values = [loss.item(), *(more[name].item() if name in more else math.nan for name in names)]
        steps = self.signals.steps
        steps.append(Step(trainer.global_step, *values))
        if len(steps) > MAX_STEPS:
            del steps[1:-1:2]
        if not math.isnan(values[3]):
            self._right.append(values[3])
        return values[0]

    def _finish_look(self, trainer: L.Trainer, model: TwoTower, batch: Batch) -> None:
        assert self._seen is not None
        assert self._weights is not None
        assert model.loss is not None
        data = cast(TripletData, trainer.datamodule)  # type: ignore[attr-defined]
        before = self.signals.probes[-1] if self.signals.probes else None
        first_epoch, positives = trainer.current_epoch == 0, data.training_set.positives
        probe = look(trainer.global_step, first_epoch, batch, self._seen, model.loss, positives, before)
        changes, rate = self._weights.changes(), measure_step.schedule_share(trainer)
        probe = replace(probe, **self._gradients, updates=changes, rate=rate)
        self.signals.probes.append(probe)
        for logger in run_loggers(trainer.loggers):
            for name, counts in (("positive", probe.positives), ("negative", probe.negatives)):
                logger.log_histogram(f"doctor/{name}_similarities", counts, probe.limits, trainer.global_step - 1)
        self._seen, self._weights = None, None
        self._next = trainer.global_step * APART

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.validation.just_evaluated:
            return
        if trainer.is_global_zero:
            with self._spending():
                self._check(trainer)
                self._examine(trainer)
        self._stop_if_hopeless(trainer)

    def _check(self, trainer: L.Trainer) -> None:
        validation = self.validation
        row, latest, monitor = validation.history[-1], validation.latest, validation.monitor
        assert latest is not None
        values = latest.per_query[monitor]
        untrained = None if validation.baseline is None else validation.baseline.per_query[monitor]
        accuracy = float(np.mean(self._right)) if self._right else math.nan
        below = [measure_step.standard_errors_below(values, before) for before in (untrained, self._best)]
        check = Check(validation.latest_name, trainer.global_step, row["epoch"], row[monitor], accuracy, *below)
        self.signals.checks.append(check)
        if row is validation.best:
            self._best = values
            if validation.query_groups is not None and validation.query_groups.seen.any():
                bm25 = validation.bm25_evaluation
                baseline = None if bm25 is None else bm25.per_query[monitor]
                self.signals.unseen = measure_step.by_group(validation.query_groups, values, baseline)
        self._right = []

    def _examine(self, trainer: L.Trainer) -> None:
        clock = self.signals.clock
        self._watch.read(clock)
        clock.validation = self.validation.overhead_seconds / max(self._seconds, 1e-9)
        clock.doctor = self.overhead_seconds
        self._record.update(diagnose(self.signals), self.signals, trainer.loggers)

    def _stop_if_hopeless(self, trainer: L.Trainer) -> None:
        if self.on_error != "stop" or self.reason:
            return
        # All processes must stop together, and only the first one knows.
        worst = trainer.strategy.broadcast(next((f for f in self.findings if f.severity == "error"), None))
        if worst is not None:
            where = f"Stopped by the doctor at step {trainer.global_step:,}"
            self.reason = f"{where}: {worst.id}: {worst.evidence} Try {worst.remedy}."
            self.stopped_at, trainer.should_stop = trainer.global_step, True

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if trainer.is_global_zero and self.signals.probes:
            self._record.write(self.signals)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            with self._spending():
                if self.signals.checks:
                    self.signals.checks[-1].untouched = measure_step.untouched(trainer)
                if self.signals.words is not None:
                    self.signals.words.own = own_of_words(pl_module)
                self._examine(trainer)
                self._record.finish(self.signals, trainer.loggers)

    def show(self) -> None:
        report(self._record.all, self.signals)

    @contextmanager
    def _spending(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.overhead_seconds += seconds
        self._own += seconds

    def state_dict(self) -> dict[str, Any]:
        return {
            "signals": self.signals.to_plain(), "record": self._record.to_plain(), "reason": self.reason,
            "stopped_at": self.stopped_at, "overhead_seconds": self.overhead_seconds, "elapsed": self._seconds,
            "next": self._next, "right": self._right, "best": None if self._best is None else self._best.tolist(),
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.signals = Signals.from_plain(state_dict["signals"], self.signals.config)
        self._record.restore(state_dict["record"])
        self.reason, self.stopped_at = state_dict["reason"], state_dict["stopped_at"]
        self.overhead_seconds = state_dict["overhead_seconds"]
        self._elapsed, self._next = state_dict["elapsed"], state_dict["next"]
        self._right = list(state_dict["right"])
        self._best = None if state_dict["best"] is None else np.array(state_dict["best"])
