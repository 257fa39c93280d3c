"""``two-tower doctor RUN``: the checks again, on a finished or running run and its index."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from two_tower.assemble import make_data
from two_tower.config.compose import composed
from two_tower.data.base import full_text
from two_tower.doctor.base import Check, Finding, IndexSignals, Signals, Step
from two_tower.doctor.diagnose import diagnose
from two_tower.doctor.measure_batch import difference_alone
from two_tower.doctor.measure_data import measure_data, some_texts
from two_tower.encode import WORDS, Encoder
from two_tower.errors import UserError
from two_tower.files import file_hash
from two_tower.loading import load_model, own_config
from two_tower.new_words import NewWords
from two_tower.run import Run
from two_tower.store import VectorStore

PASSAGES = 64  # of an index that are encoded again


@dataclass
class Examination:
    """What was found of a run."""

    signals: Signals  # those of its training, and those that were measured again
    findings: list[Finding] = field(default_factory=list)  # the likeliest cause first; then what was wrong once
    unchecked: list[str] = field(default_factory=list)  # what could not be looked at, and why

    @contextmanager
    def checking(self, what: str) -> Iterator[None]:
        """A check that may be impossible: data that is gone, a tower whose module is elsewhere."""
        try:
            yield
        except UserError as error:
            self.unchecked.append(f"{what}: {error}")


def examine(path: Path | str, index: Path | str | None = None) -> Examination:
    """Repeat the checks on a run, which may still be training; changes nothing.

    ``index`` is the folder that embed.py wrote; the run's own by default, if there is one.
    """
    run = Run(Path(path))
    if not run.config.exists():
        raise UserError(f"{path} is not the folder of a run: it holds no config.yaml.")
    config = own_config(run)
    examination = Examination(_signals(run, config))
    signals, texts = examination.signals, None
    with examination.checking("the data"):
        if not run.tokenizer.exists():
            raise UserError(f"{run.tokenizer} is not there yet.")
        data = make_data(config, run.tokenizer)
        try:
            run.check_data(data.source.facts())
        except UserError as error:
            signals.changed = str(error).partition(";")[0]
        signals.data, texts = measure_data(data), some_texts(data)
    with examination.checking("the model"):
        encoder = Encoder(*load_model(Run.existing(path)), file_hash(run.best))
        signals.similarity, signals.broken = encoder.model.similarity.name, encoder.broken
        if texts is not None and not signals.broken:
            signals.alone = difference_alone(encoder.model, texts)
        folder = Path(index) if index else run.index
        if not signals.broken and (index or (folder / "manifest.json").exists()):
            signals.index = _index_signals(folder, run)
    told = _told(run)
    found = {f.id: replace(f, step=told[f.id].step) if f.id in told else f for f in diagnose(signals)}
    passed = [f for f in told.values() if f.severity == "info" and f.id not in found]
    examination.findings = [*found.values(), *passed]
    return examination


def retry(path: Path | str, findings: Sequence[Finding]) -> list[str] | None:
    """The overrides of a run with those that the likeliest finding advises; None where it names none that fit."""
    composition = Run(Path(path)).composition()
    wrong = next((finding for finding in findings if finding.severity != "info"), None)
    changes = _advised(wrong.remedy) if wrong else []
    if not changes or not composition.choices:
        return None
    changed = {change.partition("=")[0] for change in changes}

    def replaced(override: str) -> bool:  # by a change of its key, or of its group's choice
        key = override.lstrip("+~").partition("=")[0]
        return key in changed or key.partition(".")[0] in changed

    overrides = [*(each for each in composition.again if not replaced(each)), *changes]
    with suppress(UserError):
        composed(overrides, {})
        return overrides
    return None


def _advised(remedy: str) -> list[str]:
    """The overrides that a remedy begins with, up to the first other word or mark; none if one is to be filled in."""
    changes = []
    for word in remedy.split():
        if not (change := re.fullmatch(r"([\w.]+=[^\s,;]+)([,;]?)", word)):
            break
        changes.append(change[1])
        if change[2]:
            break
    return [] if any(re.search("=[A-Z]+$", change) for change in changes) else changes


def _signals(run: Run, config: Mapping[str, Any]) -> Signals:
    """What the run's own doctor measured; without one, what the history says."""
    try:
        return Signals.from_plain(_with_nan(json.loads(run.signals.read_text(encoding="utf-8"))), config)
    except FileNotFoundError:
        return _from_history(run, config)
    except (ValueError, TypeError) as error:
        raise UserError(f"{run.signals} cannot be read ({error}): delete it, the history is used then.") from error


def _with_nan(value: Any) -> Any:  # noqa: ANN401
    """JSON's null, which stands for a number that does not exist; lists and settings keep theirs."""
    if isinstance(value, dict):
        keep = ("data", "words", "index", "unseen", "total_steps", "coverage", "teaching", "own")
        return {k: v if v is None and k in keep else _with_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_nan(v) for v in value]
    return math.nan if value is None else value


def _from_history(run: Run, config: Mapping[str, Any]) -> Signals:
    signals = Signals(config=config, monitor=config.get("validation", {}).get("monitor", "mrr@10"))
    if not run.metrics.exists():
        return signals
    with run.metrics.open(encoding="utf-8", newline="") as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    names, monitored = ("positive_similarity", "negative_similarity", "accuracy"), f"val/{signals.monitor}"
    for row in rows:
        step = int(row["step"]) + 1
        if "train/loss" in row:
            signals.steps.append(Step(step, row["train/loss"], *(row.get(f"train/{n}", math.nan) for n in names)))
        if monitored in row:
            accuracy = signals.steps[-1].accuracy if signals.steps else math.nan
            signals.checks.append(Check(f"step {step}", step, row.get("epoch", 0.0) + 1, row[monitored], accuracy))
        keys = {name: f"{name}/{signals.monitor}" for name in ("untrained", "bm25")}
        signals.baseline |= {name: row[key] for name, key in keys.items() if key in row}
    return signals


def _told(run: Run) -> dict[str, Finding]:
    """What the run's own doctor found, by id."""
    try:
        return {f["id"]: Finding(**f) for f in json.loads(run.doctor.read_text(encoding="utf-8"))["findings"]}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


def _index_signals(folder: Path, run: Run) -> IndexSignals:
    try:
        store, encoder = VectorStore.open(folder), Encoder.load(run, NewWords.read(folder / WORDS))
        mismatches = [f"it was made with another {key}" for key in encoder.mismatches(store.manifest)]
        signals = IndexSignals(str(folder), mismatches)
        if store.manifest.dim == encoder.model.document_tower.dim:
            signals.checked, signals.difference = _encoded_again(store, encoder)
        return signals
    except UserError as error:
        return IndexSignals(str(folder), [str(error).rstrip(".")])


def _encoded_again(store: VectorStore, encoder: Encoder) -> tuple[int, float]:
    """How many passages of all shards were encoded again, and the largest difference from what is stored."""
    largest, count = 0.0, 0
    shards = list(zip(store.vectors(), store.texts(), strict=True))
    for vectors, passages in shards:
        rows = np.unique(np.linspace(0, len(vectors) - 1, max(1, PASSAGES // len(shards))).astype(np.int64))
        stored = np.asarray(vectors[rows], np.float32)
        again = encoder.documents(full_text(passages.take(pa.array(rows))))
        lengths = np.maximum(np.linalg.norm(again, axis=1), 1e-12)
        largest = max(largest, float((np.linalg.norm(again - stored, axis=1) / lengths).max(initial=0.0)))
        count += len(rows)
    return count, largest
