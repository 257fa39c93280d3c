"""``two-tower doctor RUN``: the checks again, on a finished or running run and its index."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from two_tower.assemble import make_data
from two_tower.config import read
from two_tower.data.base import full_text
from two_tower.doctor.diagnoses import diagnose
from two_tower.doctor.finding import Finding
from two_tower.doctor.measure_batch import difference_alone
from two_tower.doctor.measure_data import measure_data, some_texts
from two_tower.doctor.signals import Check, IndexSignals, Signals, Step
from two_tower.encode import Encoder
from two_tower.errors import UserError
from two_tower.run import Run
from two_tower.store import VectorStore

__all__ = ["Examination", "examine"]

PASSAGES = 64  # of an index that are encoded again


class Examination:
    """What was found of a run.

    Attributes:
        signals: those of its training, and those that were measured again.
        findings: the likeliest cause first; then what was wrong once, as ``info``.
        unchecked: what could not be looked at, and why.
    """

    def __init__(self, signals: Signals) -> None:
        self.signals = signals
        self.findings: list[Finding] = []
        self.unchecked: list[str] = []

    @contextmanager
    def checking(self, what: str) -> Iterator[None]:
        """A check that may be impossible: data that is gone, a tower whose module is elsewhere."""
        try:
            yield
        except UserError as error:
            self.unchecked.append(f"{what}: {error}")


def examine(path: Path | str, index: Path | str | None = None) -> Examination:
    """Repeat the checks on a run; changes nothing.

    Args:
        path: the run folder; the run may still be training.
        index: the folder that embed.py wrote; the run's own by default, if there is one.

    Raises:
        UserError: there is no run.
    """
    run = Run(Path(path))
    if not run.config.exists():
        raise UserError(f"{path} is not the folder of a run: it holds no config.yaml.")
    config = read(run.config)
    examination = Examination(_signals(run, config))
    signals = examination.signals
    texts = None
    with examination.checking("the data"):
        if not run.tokenizer.exists():
            raise UserError(f"{run.tokenizer} is not there yet.")
        data = make_data(config, run.tokenizer)
        signals.data, texts = measure_data(data), some_texts(data)
    with examination.checking("the model"):
        encoder = Encoder.load(Run.existing(path))
        signals.similarity = encoder.model.similarity.name
        if texts is not None:
            signals.alone = difference_alone(encoder.model, texts)
        folder = Path(index) if index else run.index
        if index or (folder / "manifest.json").exists():
            signals.index = _index_signals(folder, encoder)
    known = _known(run)
    since = {f.id: f.step for f in known}
    found = [replace(f, step=since.get(f.id, f.step)) for f in diagnose(signals)]
    examination.findings = [*found, *(f for f in known if f.severity == "info" and f.id not in {n.id for n in found})]
    return examination


def _signals(run: Run, config: Mapping[str, Any]) -> Signals:
    """What the run's own doctor measured; without one, what the history tells."""
    try:
        plain = json.loads(run.signals.read_text(encoding="utf-8"))
        return Signals.from_plain(_with_nan(plain), config)
    except FileNotFoundError:
        return _from_history(run, config)
    except (ValueError, TypeError) as error:
        raise UserError(f"{run.signals} cannot be read ({error}): delete it, the history is used then.") from error


def _with_nan(value: Any) -> Any:  # noqa: ANN401
    """JSON's null, which stands for a number that does not exist; lists and settings keep theirs."""
    if isinstance(value, dict):
        keep = ("data", "words", "index", "total_steps", "coverage")
        return {k: v if v is None and k in keep else _with_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_nan(v) for v in value]
    return math.nan if value is None else value


def _from_history(run: Run, config: Mapping[str, Any]) -> Signals:
    signals = Signals(config=config, monitor=config.get("validation", {}).get("monitor", "mrr@10"))
    try:
        with run.metrics.open(encoding="utf-8", newline="") as file:
            rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    except FileNotFoundError:
        rows = []
    for row in rows:
        step, of = int(row["step"]) + 1, row.get
        if "train/loss" in row:
            names = ("positive_similarity", "negative_similarity", "accuracy")
            signals.steps.append(Step(step, row["train/loss"], *(of(f"train/{n}", math.nan) for n in names)))
        value = of(f"val/{signals.monitor}")
        if value is not None:
            accuracy = signals.steps[-1].accuracy if signals.steps else math.nan
            signals.checks.append(Check(f"step {step}", step, of("epoch", 0.0) + 1, value, accuracy))
        for name in ("untrained", "bm25"):
            if f"{name}/{signals.monitor}" in row:
                signals.baseline[name] = row[f"{name}/{signals.monitor}"]
    return signals


def _known(run: Run) -> list[Finding]:
    """What the run's own doctor found."""
    try:
        return [Finding(**f) for f in json.loads(run.doctor.read_text(encoding="utf-8"))["findings"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []


def _index_signals(folder: Path, encoder: Encoder) -> IndexSignals:
    """How an index fits a run: what its manifest says, and some passages encoded again."""
    try:
        store = VectorStore.open(folder)
        found = IndexSignals(
            str(folder),
            store.manifest.checkpoint == encoder.fingerprint,
            store.manifest.tokenizer == encoder.tokenizer.fingerprint,
            store.manifest.similarity,
        )
        if store.manifest.dim != encoder.model.document_tower.dim:
            found.damage = f"its vectors have {store.manifest.dim} dimensions"
            return found
        found.checked, found.difference = _encoded_again(store, encoder)
        return found
    except UserError as error:
        return IndexSignals(str(folder), True, True, encoder.model.similarity.name, damage=str(error))


def _encoded_again(store: VectorStore, encoder: Encoder) -> tuple[int, float]:
    """How many passages of all shards were encoded again, and the largest difference from what is stored."""
    worst, count = 0.0, 0
    shards = list(zip(store.vectors(), store.texts(), strict=True))
    for vectors, passages in shards:
        rows = np.unique(np.linspace(0, len(vectors) - 1, max(1, PASSAGES // len(shards))).astype(np.int64))
        stored = np.asarray(vectors[rows], np.float32)
        again = encoder.documents(full_text(passages.take(pa.array(rows))))
        lengths = np.maximum(np.linalg.norm(again, axis=1), 1e-12)
        worst = max(worst, float((np.linalg.norm(again - stored, axis=1) / lengths).max(initial=0.0)))
        count += len(rows)
    return count, worst
