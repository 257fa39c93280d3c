"""The doctor as a callback: measures a few steps closely, says what is wrong as soon as it shows."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from two_tower.candidates import Compared
from two_tower.config import read
from two_tower.data.module import TripletData
from two_tower.data.stream.batch import Batch
from two_tower.doctor.diagnoses import diagnose
from two_tower.doctor.finding import Finding
from two_tower.doctor.measure_batch import Weights, difference_alone, gradients, look
from two_tower.doctor.measure_data import measure_data, measure_words
from two_tower.doctor.record import Record
from two_tower.doctor.signals import Check, Probe, Signals, Step
from two_tower.doctor.timing import Stopwatch
from two_tower.model import TwoTower
from two_tower.optimizer.rows import RowOptimizer
from two_tower.report.run import Run
from two_tower.validation.full import FullValidation

__all__ = ["Doctor"]

# The steps that are looked at closely in every run; later ones as long as that is cheap.
PROBED = (1, 2, 3, 5, 10, 15, 20, 25, 30, 40, 50)
# Later looks: at steps that are apart by this factor …
APART = 1.25
# … and only while the doctor has taken less than this share of the run's time.
BUDGET = 0.006
# Steps that are kept; beyond, every second one is dropped.
MOST_STEPS = 1000
PROBE_TEXTS = 24  # texts whose vectors must not depend on each other


class Doctor(Callback):
    """Looks for what goes wrong in a run, and says so on the console, in ``doctor.json`` and to the loggers.

    It costs well under 1 % of a run's time: each step it notes what the loss reports anyway; at steps 1, 2, 3, 5, 10 …
    50, and then ever more rarely, it looks closely at a part of the batch.

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
        spent: seconds that all this took.
    """

    def __init__(
        self, run: Run, validation: FullValidation, on_error: Literal["continue", "stop"] = "continue"
    ) -> None:
        self.run, self.validation, self.on_error = run, validation, on_error
        self.signals = Signals(config=read(run.config) if run.config.exists() else {})
        self.reason = ""
        self.stopped_at: int | None = None
        self.spent = 0.0
        self._record = Record(run)
        self._watch = Stopwatch()
        self._seen: tuple[Compared, Tensor | list[Tensor]] | None = None
        self._probe: Probe | None = None
        self._weights: Weights | None = None
        self._next = 0.0  # the next step to look at, beyond the fixed ones
        self._start = 0.0
        self._elapsed = 0.0  # seconds of the run before it was interrupted
        self._right: list[float] = []  # accuracy of the steps since the last check
        self._best: np.ndarray | None = None
        self._own = 0.0

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
        if self.reason:
            trainer.should_stop = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the data, the start vectors, and whether a text's vector depends on its neighbours."""
        if not trainer.is_global_zero:
            return
        with self._spending():
            model, data = cast(TwoTower, pl_module), cast(TripletData, trainer.datamodule)  # type: ignore[attr-defined]
            signals = self.signals
            signals.monitor, signals.similarity = self.validation.monitor, model.similarity.name
            signals.total_steps = _last_step(trainer)
            if signals.data is None:
                signals.data = measure_data(data)
                signals.words = measure_words(signals.config, data, model)
                signals.alone = difference_alone(model, _texts(data))
            self._baseline()
            self._examine(trainer)

    def _baseline(self) -> None:
        known = {"bm25": self.validation.bm25, "untrained": self.validation.untrained}
        monitor = self.validation.monitor
        self.signals.baseline = {name: means[monitor] for name, means in known.items() if monitor in means}

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Checks and checkpoints between epochs are no wait for a batch."""
        self._watch.pause()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int) -> None:
        """Prepare for a close look if this step is one."""
        if not trainer.is_global_zero:
            return
        self._watch.start()
        if self._due(trainer):
            with self._spending():
                model = cast(TwoTower, pl_module)
                model.observer = self._observe
                self._weights = Weights(model, batch)
        self._own = 0.0

    def _due(self, trainer: L.Trainer) -> bool:
        """Whether the step that begins is looked at closely; while gradients accumulate only its last batch is."""
        if trainer.fit_loop._should_accumulate():
            return False
        step = trainer.global_step + 1
        if step <= PROBED[-1]:
            return step in PROBED
        return step >= self._next and self.spent < BUDGET * self._seconds

    @property
    def _seconds(self) -> float:
        """Of the run so far."""
        return self._elapsed + time.perf_counter() - self._start

    def _observe(self, compared: Compared, scores: Tensor | list[Tensor]) -> None:
        self._seen = compared, scores

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
                if self.validation.just_checked:
                    self._check(trainer)
                if looked or self.validation.just_checked or not math.isfinite(self.signals.steps[-1].loss):
                    self._examine(trainer)
            self._watch.end(self._own)
        if looked or self.validation.just_checked or self.on_error == "stop":
            self._stop_if_hopeless(trainer)
        self._watch.resume()

    def _note(self, trainer: L.Trainer, looked: bool) -> None:
        """Keep what the loss reported; on a GPU, where reading waits for the step, only now and then."""
        metrics = trainer.callback_metrics
        if "train/loss" not in metrics or (metrics["train/loss"].is_cuda and not looked and trainer.global_step % 10):
            return
        names = ("loss", "positive_similarity", "negative_similarity", "accuracy")
        values = [float(metrics[f"train/{name}"]) if f"train/{name}" in metrics else math.nan for name in names]
        steps = self.signals.steps
        steps.append(Step(trainer.global_step, *values))
        if len(steps) > MOST_STEPS:
            del steps[1:-1:2]
        if not math.isnan(values[3]):
            self._right.append(values[3])

    def _finish_look(self, trainer: L.Trainer, model: TwoTower, batch: Batch) -> None:
        assert self._seen is not None and self._weights is not None and model.loss is not None
        compared, scores = self._seen
        data = cast(TripletData, trainer.datamodule)  # type: ignore[attr-defined]
        probe = look(
            trainer.global_step, trainer.current_epoch == 0, batch, compared, scores, model.loss,
            model.similarity.name, data.training_set.positives,
        )  # fmt: skip
        probe.gradients, probe.without_gradient, probe.frozen = self._gradients
        probe.updates, probe.rate = self._weights.changed(), _rate(trainer)
        self.signals.probes.append(probe)
        model.observer, self._seen, self._weights = None, None, None
        self._next = trainer.global_step * APART

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the check of the epoch."""
        if not self.validation.just_checked:
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
                validation.name_of_check,
                trainer.global_step,
                row["epoch"],
                row[validation.monitor],
                float(np.mean(self._right)) if self._right else math.nan,
                _errors_below(values, untrained),
                _errors_below(values, self._best),
                _untouched(trainer),
            )
        )
        if row is validation.best:
            self._best = values
        self._right = []

    def _examine(self, trainer: L.Trainer) -> None:
        clock = self._watch.read(self.signals.clock)
        clock.validation = self.validation.spent / max(self._seconds, 1e-9)
        clock.doctor = self.spent
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
                self._record.finish(self.signals, trainer.loggers)

    @contextmanager
    def _spending(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.spent += seconds
        self._own += seconds

    def state_dict(self) -> dict[str, Any]:
        """What was measured and found so far."""
        return {
            "signals": self.signals.to_plain(),
            "record": self._record.to_plain(),
            "reason": self.reason,
            "stopped_at": self.stopped_at,
            "spent": self.spent,
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
        self.spent, self._elapsed, self._next = state_dict["spent"], state_dict["elapsed"], state_dict["next"]
        self._right = list(state_dict["right"])
        self._best = None if state_dict["best"] is None else np.array(state_dict["best"])


def _last_step(trainer: L.Trainer) -> int | None:
    batches = getattr(trainer.datamodule, "batches_per_epoch", None)  # type: ignore[attr-defined]
    limits = [trainer.max_steps] if trainer.max_steps > 0 else []
    if batches and trainer.max_epochs is not None and trainer.max_epochs > 0:
        limits.append(math.ceil(batches / trainer.accumulate_grad_batches) * trainer.max_epochs)
    return min(limits) if limits else None


def _texts(data: TripletData) -> dict[str, Any]:
    """A few validation queries and passages of different lengths."""
    sides = {}
    for name, tokens in (("queries", data.validation.tokens), ("documents", data.corpus.tokens)):
        sides[name] = tokens.select(np.linspace(0, len(tokens) - 1, min(PROBE_TEXTS, len(tokens))).astype(np.int64))
    return sides


def _rate(trainer: L.Trainer) -> float:
    """The learning rate in relation to the largest of the schedule, as far as a schedule is in its first part."""
    rates = [g["lr"] / g["initial_lr"] for o in trainer.optimizers for g in o.param_groups if g.get("initial_lr")]
    return max(rates, default=1.0)


def _errors_below(values: np.ndarray, before: np.ndarray | None) -> float:
    """By how many standard errors, paired by query, the mean of ``values`` is below that of ``before``."""
    if before is None or len(before) != len(values):
        return math.nan
    difference = before - values
    spread = float(difference.std()) / math.sqrt(max(1, len(values)))
    return float(difference.mean()) / spread if spread > 0 else 0.0


def _untouched(trainer: L.Trainer) -> float:
    """Share of the words that the optimizer has never stepped, where it keeps count."""
    for optimizer in map(lambda o: getattr(o, "optimizer", o), trainer.optimizers):
        if not isinstance(optimizer, RowOptimizer):
            continue
        for parameter, state in optimizer.state.items():
            moment = state.get(type(optimizer)._moment)
            if getattr(parameter, "is_word_table", False) and moment is not None and moment.dim():
                rows = moment if moment.dim() == 1 else moment.flatten(1).amax(1)
                return float((rows == 0).float().mean())
    return math.nan
