"""The doctor as a callback: measures a few steps closely, says what is wrong as soon as it shows."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from two_tower.config import read
from two_tower.data.stream.batch import Batch
from two_tower.data.stream.module import TripletData
from two_tower.doctor.diagnoses import diagnose
from two_tower.doctor.finding import Finding
from two_tower.doctor.measure_batch import difference_alone, look
from two_tower.doctor.measure_data import measure_data, measure_words, some_texts
from two_tower.doctor.measure_step import Weights, errors_below, gradients, rate, untouched
from two_tower.doctor.record import Record
from two_tower.doctor.signals import Check, Signals, Step
from two_tower.doctor.timing import Stopwatch
from two_tower.logger import RunLogger
from two_tower.loss.base import LossInput, LossOutput
from two_tower.model import TwoTower, total_steps
from two_tower.run import Run
from two_tower.validation.full import FullValidation

__all__ = ["Doctor"]

# The steps that are looked at closely in every run; later ones as long as that is cheap.
PROBED = (2, 20, 40)
# Later looks: at steps that are apart by this factor …
APART = 1.25
# … and only while the doctor has taken less than this share of the run's time.
BUDGET = 0.006
# Steps that are kept; beyond, every second one is dropped.
MOST_STEPS = 1000


class Doctor(Callback):
    """Looks for what goes wrong in a run, and says so on the console, in ``doctor.json`` and to the loggers.

    It costs about 1 % of a short run's time, and less of a longer one's: each step it notes what the loss reports
    anyway; at steps 2, 20 and 40, and then ever more rarely, it looks closely at a part of the batch.

    Args:
        run: the run folder.
        validation: what makes the checks.
        on_error: ``stop`` ends a run that cannot become good, as if it had reached its last step; ``continue`` only
            says so.

    Attributes:
        signals: what was measured so far.
        findings: what is wrong at present, the likely cause of the others first.
        reason: why the run was stopped, empty if it was not.
        stopped_at: the step at which it was, or None.
        overhead_seconds: seconds that all this took.
    """

    def __init__(
        self, run: Run, validation: FullValidation, on_error: Literal["continue", "stop"] = "continue"
    ) -> None:
        self.run, self.validation, self.on_error = run, validation, on_error
        self.signals = Signals(config=read(run.config) if run.config.exists() else {})
        self.reason = ""
        self.stopped_at: int | None = None
        self.overhead_seconds = 0.0
        self._record = Record(run)
        self._watch = Stopwatch()
        self._output: LossOutput | None = None  # of the last step
        self._looking = False  # whether the step that runs is looked at closely
        self._seen: LossInput | None = None
        self._weights: Weights | None = None
        self._next = 0.0  # the next step to look at, beyond the fixed ones
        self._start = 0.0
        self._elapsed = 0.0  # seconds of the run before it was interrupted
        self._right: list[float] = []  # accuracy of the steps since the last check
        self._best: np.ndarray | None = None
        self._own = 0.0  # seconds of this step that were the doctor's
        self._gradients: tuple[dict[str, float], dict[str, float], dict[str, float]] = ({}, {}, {})

    @property
    def findings(self) -> list[Finding]:
        """What is wrong at present, the likely cause of the others first."""
        return self._record.findings

    @property
    def count(self) -> int:
        """How many of them are warnings or errors."""
        return sum(finding.severity != "info" for finding in self.findings)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock; do not go on with a run that was interrupted after it had been stopped."""
        self._start = time.perf_counter()
        loss = cast(TwoTower, pl_module).loss
        assert loss is not None
        loss.register_forward_hook(self._observe)
        if self.reason:
            trainer.should_stop = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over what is known before the first step."""
        signals, validation = self.signals, self.validation
        signals.monitor, signals.similarity = validation.monitor, cast(TwoTower, pl_module).similarity.name
        signals.total_steps = total_steps(trainer)
        known = {"bm25": validation.bm25, "untrained": validation.untrained}
        monitor = validation.monitor
        signals.baseline = {name: means[monitor] for name, means in known.items() if monitor in means}

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Checks and checkpoints between epochs are no wait for a batch."""
        self._watch.pause()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Look at the data before the first step; prepare for a close look if this step is one."""
        if not trainer.is_global_zero:
            return
        model = cast(TwoTower, pl_module)
        if self.signals.data is None:
            with self._spending():
                self._look_before(trainer, model)
        self._watch.start()
        if self._due(trainer):
            with self._spending():
                self._looking = True
                self._weights = Weights(model, batch)
        self._own = 0.0

    def _look_before(self, trainer: L.Trainer, model: TwoTower) -> None:
        """Look at the data, the start vectors, and whether a text's vector depends on its neighbours."""
        data = cast(TripletData, trainer.datamodule)  # type: ignore[attr-defined]
        self.signals.data = measure_data(data)
        self.signals.words = measure_words(self.signals.config, data, model)
        self.signals.alone = difference_alone(model, some_texts(data))
        self._examine(trainer)

    def _due(self, trainer: L.Trainer) -> bool:
        """Whether the step that begins is looked at closely; while gradients accumulate only its last batch is."""
        if trainer.fit_loop._should_accumulate():
            return False
        step = trainer.global_step + 1
        cheap = self.overhead_seconds < BUDGET * self._seconds
        return step in PROBED or (step >= max(self._next, PROBED[-1]) and cheap)

    @property
    def _seconds(self) -> float:
        """Of the run so far."""
        return self._elapsed + time.perf_counter() - self._start

    def _observe(self, loss: nn.Module, inputs: tuple[LossInput], output: LossOutput) -> None:
        self._output = output
        if self._looking:
            self._seen, self._looking = inputs[0], False

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """The forward pass has ended."""
        self._watch.mark()

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The backward pass has ended: the gradients are there, not clipped yet."""
        self._watch.mark()
        if self._seen is not None and self._weights is not None:
            with self._spending():
                self._gradients = gradients(cast(TwoTower, pl_module))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int,  # noqa: ANN401
    ) -> None:  # fmt: skip
        """Note the step; finish a close look and examine everything."""
        looked = self._seen is not None
        if trainer.is_global_zero:
            with self._spending():
                self._note(trainer, looked)
                if looked:
                    self._finish_look(trainer, cast(TwoTower, pl_module), batch)
                if self.validation.just_evaluated:
                    self._check(trainer)
                if looked or self.validation.just_evaluated or not math.isfinite(self.signals.steps[-1].loss):
                    self._examine(trainer)
            self._watch.end(self._own)
        if looked or self.validation.just_evaluated or self.on_error == "stop":
            self._stop_if_hopeless(trainer)
        self._watch.resume()

    def _note(self, trainer: L.Trainer, looked: bool) -> None:
        """Keep what the loss reported; on a GPU, where reading waits for the step, only now and then."""
        if self._output is None or (self._output.loss.is_cuda and not looked and trainer.global_step % 10):
            return
        loss, more = self._output
        names = ("positive_similarity", "negative_similarity", "accuracy")
        values = [loss.item(), *(more[name].item() if name in more else math.nan for name in names)]
        steps = self.signals.steps
        steps.append(Step(trainer.global_step, *values))
        if len(steps) > MOST_STEPS:
            del steps[1:-1:2]
        if not math.isnan(values[3]):
            self._right.append(values[3])

    def _finish_look(self, trainer: L.Trainer, model: TwoTower, batch: Batch) -> None:
        assert self._seen is not None
        assert self._weights is not None
        assert model.loss is not None
        data = cast(TripletData, trainer.datamodule)  # type: ignore[attr-defined]
        probe = look(
            trainer.global_step, trainer.current_epoch == 0, batch, self._seen, model.loss,
            data.training_set.positives, next(reversed(self.signals.probes), None),
        )  # fmt: skip
        probe.gradients, probe.without_gradient, probe.frozen = self._gradients
        probe.updates, probe.rate = self._weights.changed(), rate(trainer)
        self.signals.probes.append(probe)
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger) and probe.positives:
                for name, counts in (("positive", probe.positives), ("negative", probe.negatives)):
                    logger.log_histogram(f"doctor/{name}_similarities", counts, probe.limits, trainer.global_step - 1)
        self._seen, self._weights = None, None
        self._next = trainer.global_step * APART

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the check of the epoch."""
        if not self.validation.just_evaluated:
            return
        if trainer.is_global_zero:
            with self._spending():
                self._check(trainer)
                self._examine(trainer)
        self._stop_if_hopeless(trainer)

    def _check(self, trainer: L.Trainer) -> None:
        validation = self.validation
        row, latest = validation.history[-1], validation.latest
        assert latest is not None
        values = latest.per_query[validation.monitor]
        untrained = None if validation.baseline is None else validation.baseline.per_query[validation.monitor]
        self.signals.checks.append(
            Check(
                validation.latest_name,
                trainer.global_step,
                row["epoch"],
                row[validation.monitor],
                float(np.mean(self._right)) if self._right else math.nan,
                errors_below(values, untrained),
                errors_below(values, self._best),
            )
        )
        if row is validation.best:
            self._best = values
        self._right = []

    def _examine(self, trainer: L.Trainer) -> None:
        clock = self._watch.read(self.signals.clock)
        clock.validation = self.validation.overhead_seconds / max(self._seconds, 1e-9)
        clock.doctor = self.overhead_seconds
        self._record.update(diagnose(self.signals), self.signals, trainer.loggers)

    def _stop_if_hopeless(self, trainer: L.Trainer) -> None:
        if self.on_error != "stop" or self.reason:
            return
        worst = next((f for f in self.findings if f.severity == "error"), None)
        # All processes must stop together, and only the first one knows.
        worst = trainer.strategy.broadcast(worst)
        if worst is not None:
            self.reason = (
                f"Stopped by the doctor at step {trainer.global_step:,}: {worst.id}: {worst.evidence} "
                f"Try {worst.remedy}."
            )
            self.stopped_at, trainer.should_stop = trainer.global_step, True

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Keep what is known of a run that fails or is interrupted."""
        if trainer.is_global_zero and self.signals.probes:
            self._record.write(self.signals)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show everything that was found, or that nothing was."""
        if trainer.is_global_zero:
            with self._spending():
                if self.signals.checks:
                    self.signals.checks[-1].untouched = untouched(trainer)
                self._examine(trainer)
                self._record.finish(self.signals, trainer.loggers)

    @contextmanager
    def _spending(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.overhead_seconds += seconds
        self._own += seconds

    def state_dict(self) -> dict[str, Any]:
        """What was measured and found so far."""
        return {
            "signals": self.signals.to_plain(),
            "record": self._record.to_plain(),
            "reason": self.reason,
            "stopped_at": self.stopped_at,
            "overhead_seconds": self.overhead_seconds,
            "elapsed": self._seconds,
            "next": self._next,
            "right": self._right,
            "best": None if self._best is None else self._best.tolist(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.signals = Signals.from_plain(state_dict["signals"], self.signals.config)
        self._record.take(state_dict["record"])
        self.reason, self.stopped_at = state_dict["reason"], state_dict["stopped_at"]
        self.overhead_seconds = state_dict["overhead_seconds"]
        self._elapsed, self._next = state_dict["elapsed"], state_dict["next"]
        self._right = list(state_dict["right"])
        self._best = None if state_dict["best"] is None else np.array(state_dict["best"])
