"""The finished runs of a comparison, and whether they may be compared."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from two_tower.config.saved import Composition, read
from two_tower.data.base import LOADER_KEYS
from two_tower.errors import UserError, one_of
from two_tower.files import read_json
from two_tower.metrics import PerQuery, read_per_query
from two_tower.run import Run

log = logging.getLogger(__name__)

# Share of the queries on which BM25 may differ between two runs of one collection: rounding on another machine.
_ROUNDING = 0.01


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """What a run left behind."""

    path: Path  # its folder
    config: dict[str, Any]  # resolved
    composition: Composition  # what that was composed from
    results: dict[str, Any]  # flat numbers
    per_query: PerQuery
    history: dict[str, list[tuple[float, float]]]  # what it logged while it trained, see `read_history`
    findings: list[str]  # the doctor's warnings and errors, by their ids
    data: dict[str, Any] | None  # what told its data apart when it began, see `two_tower.data.base.Source.facts`

    def to_dict(self) -> dict[str, Any]:
        figures = {key: value for key, value in self.results.items() if key.startswith(("val/", "val_"))}
        own = {"seed": self.config.get("seed"), "seconds": self.results.get("seconds"), "findings": self.findings}
        return {"path": str(self.path), **own, **figures}


def read_runs(paths: Sequence[Path]) -> list[FinishedRun]:
    """Read runs that may be compared, their queries in the order of the first one's.

    A folder of runs, of a sweep for example, stands for all finished ones in it; others are left out with a warning.
    A run and those that started from it may have seen a collection at different times: then the queries count that all
    of them have, which is said.
    """
    folders = {folder.resolve(): folder for path in paths for folder in _folders(path)}
    runs = [_read(folder) for folder in folders.values()]
    if not runs:
        raise UserError(f"{', '.join(map(str, paths))} holds no finished run: give folders that train.py wrote.")
    ids = runs[0].per_query.ids
    if len(runs) > 1 and all(_is_related(run, runs) for run in runs):
        ids = _shared_queries(runs)
    else:
        _check_same_data(runs)
        for run in runs[1:]:
            _check_same_validation(run, runs[0])
    return [_aligned(run, ids) for run in runs]


def _is_related(run: FinishedRun, runs: Sequence[FinishedRun]) -> bool:
    """Whether a run started from another of these, or another from it."""

    def starts(one: FinishedRun, other: FinishedRun) -> bool:
        begun = one.config.get("init_from")
        return begun is not None and Path(begun).resolve() == other.path.resolve()

    return any(starts(run, other) or starts(other, run) for other in runs)


def _shared_queries(runs: Sequence[FinishedRun]) -> list[str]:
    """The queries that all runs have; says what differs."""
    shared = set.intersection(*(set(run.per_query.ids) for run in runs))
    if not shared:
        raise UserError(f"{' and '.join(str(run.path) for run in runs)} cannot be compared: they share no query.")
    passages = [run.results.get("documents") for run in runs]
    if len({*passages}) > 1 or any(len(run.per_query.ids) > len(shared) for run in runs):
        known = ", ".join(f"{run.path} among {count:,}" for run, count in zip(runs, passages, strict=True) if count)
        log.warning("The runs searched a collection at different times (%s): on the %s queries of all of them.",
                    known, f"{len(shared):,}")  # fmt: skip
    return [query for query in runs[0].per_query.ids if query in shared]


def _check_same_data(runs: Sequence[FinishedRun]) -> None:
    """Raise a UserError for runs that name the same data, which was another when they began."""
    known: dict[str, tuple[Path, str]] = {}
    for run in runs:
        if run.data is not None:
            source = {key: value for key, value in run.config["data"].items() if key not in LOADER_KEYS}
            name, fingerprint = json.dumps(source, sort_keys=True), run.data["fingerprint"]
            path, same = known.setdefault(name, (run.path, fingerprint))
            if same != fingerprint:
                raise UserError(f"{path} and {run.path} cannot be compared: {run.data['name']} changed between them.")


def metric_of(runs: Sequence[FinishedRun], wanted: str | None) -> str:
    """The metric to compare by: the one that is wanted, else that by which the runs chose their best epoch."""
    monitors = {run.config["validation"]["monitor"]: run.path for run in runs}
    if wanted is None and len(monitors) > 1:
        (a, first), (b, second), *_ = monitors.items()
        both = f"{first} chose its best epoch by {a} and {second} by {b}"
        raise UserError(f"{both}: say by which to compare: --metric {a}")
    metric = wanted or next(iter(monitors))
    for run in runs:
        if metric not in run.per_query.values:
            measured = [name for name in run.per_query.values if "/" not in name]
            raise UserError(f"{run.path} has not measured {metric}; {one_of(metric, measured)}")
    return metric


def _folders(path: Path) -> Iterator[Path]:
    if (path / "config.yaml").exists():
        yield path
        return
    for config in sorted(path.glob("*/config.yaml")):
        if Run(config.parent).complete:
            yield config.parent
        else:
            log.warning("%s is left out: the run is not finished.", config.parent)


def _read(path: Path) -> FinishedRun:
    run = Run(path)
    config = read(run.config)
    if not run.complete:
        raise UserError(f"{path} is not finished: start its train.py command again, or leave it out.")
    findings = (read_json(run.doctor) or {"findings": []})["findings"]
    found = [each["id"] for each in findings if each["severity"] in ("warning", "error")]
    per_query, history, data = read_per_query(path / "per_query.csv"), read_history(run.metrics), read_json(run.data)
    return FinishedRun(path, config, run.composition(), run.read_results(), per_query, history, found, data)


def read_history(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Metric → its points (epochs, value), from a run's ``metrics.csv``; empty without the file.

    A point lies where its step ended; ``untrained/METRIC`` is the point of ``val/METRIC`` at 0.
    """
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    # The last row of an epoch falls on its last step, which gives the steps of an epoch.
    steps = max([(row["step"] + 1) / (row["epoch"] + 1) for row in rows if "epoch" in row], default=1.0)
    history: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for key, value in row.items():
            if key.startswith("untrained/"):
                history.setdefault("val/" + key.removeprefix("untrained/"), []).append((0.0, value))
            elif key not in ("step", "epoch"):
                history.setdefault(key, []).append(((row["step"] + 1) / steps, value))
    return history


def _check_same_validation(run: FinishedRun, first: FinishedRun) -> None:
    """Raise a UserError for runs that were validated on other queries or passages."""
    both = f"{first.path} and {run.path}"
    for what in ("documents", "queries"):
        a, b = first.results.get(what), run.results.get(what)
        if a != b:
            raise UserError(f"{both} cannot be compared: they were validated with {a} and {b} {what}.")
    if {*run.per_query.ids} != {*first.per_query.ids}:
        raise UserError(f"{both} cannot be compared: they were validated on different queries.")
    a, b = (each.config["validation"].get("sample_seed") for each in (first, run))
    if a is not None and b is not None and a != b:
        raise UserError(f"{both} cannot be compared: they ranked different samples (validation.sample_seed={a}, {b}).")
    _same_bm25(first, _aligned(run, first.per_query.ids))


def _aligned(run: FinishedRun, ids: Sequence[str]) -> FinishedRun:
    """The run with these of its queries, in this order."""
    places = {query: place for place, query in enumerate(run.per_query.ids)}
    order = np.array([places[query] for query in ids], np.int64)
    values = {name: column[order] for name, column in run.per_query.values.items()}
    texts = [run.per_query.texts[place] for place in order.tolist()] if run.per_query.texts else []
    return replace(run, per_query=PerQuery([*ids], values, texts))


def _same_bm25(first: FinishedRun, run: FinishedRun) -> None:
    """BM25 knows no seed and no tower: where it differs, the texts behind equal ids do."""
    keys = ("split_camel_case", "strip_accents", "language")
    a, b = ({key: each.config["tokenizer"].get(key) for key in keys} for each in (first, run))
    if a != b:  # BM25 reads the same words as the tower
        return
    values = run.per_query.values
    for name in values.keys() & first.per_query.values.keys():
        if name.startswith("bm25/") and (values[name] != first.per_query.values[name]).mean() > _ROUNDING:
            both = f"{first.path} and {run.path} cannot be compared"
            raise UserError(f"{both}: {name} differs, so their passages, queries or judgements do.")
