"""From runs to a ranked table: seeds gathered, intervals, tests of significance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from two_tower.metrics.significance import holm, mean_interval, paired_differences, randomisation_test
from two_tower.report.overrides import distinguish, experiment, row_names, typed
from two_tower.report.runs import FinishedRun, metric_of, read_runs

EXAMPLES = 5  # queries of each kind that a comparison names


@dataclass(frozen=True)
class PValue:
    """Of a paired randomisation test over the queries: of this test alone, and corrected for all of its family."""

    raw: float
    holm: float


@dataclass(frozen=True, eq=False)
class Row:
    """Runs of one configuration, whatever their seeds.

    Attributes:
        name: the overrides as they are typed, or what the names of its runs' folders begin with.
        overrides: what distinguishes it from the other rows.
        runs: its runs.
        values: (Q,) the metric for each query, averaged over the runs.
        means: metric → mean over runs and queries.
        interval: 95 % interval of the mean: where it might be, were the queries others.
        vs_best: tested against the best row; None for that row.
        vs_bm25: tested against BM25; None without it.
    """

    name: str
    overrides: dict[str, Any]
    runs: list[FinishedRun]
    values: np.ndarray
    means: dict[str, float]
    interval: tuple[float, float]
    vs_best: PValue | None
    vs_bm25: PValue | None

    @property
    def seconds(self) -> float | None:
        """Mean duration of the runs; None where no run says."""
        known = [run.results["seconds"] for run in self.runs if run.results.get("seconds") is not None]
        return float(np.mean(known)) if known else None

    def run_means(self, metric: str) -> list[float]:
        """The metric of each run."""
        return [float(run.per_query.values[metric].mean()) for run in self.runs]

    def std(self, metric: str) -> float | None:
        """Standard deviation of the metric over the runs (n − 1); None of one run."""
        return float(np.std(self.run_means(metric), ddof=1)) if len(self.runs) > 1 else None

    @property
    def configuration(self) -> str:
        """The overrides as they are typed, or for the only row its folder."""
        return typed(self.overrides) or self.runs[0].path.name

    def to_dict(self, metric: str) -> dict[str, Any]:
        return {
            "name": self.name,
            "overrides": self.overrides,
            "runs": [run.to_dict() for run in self.runs],
            "mean": float(self.values.mean()),
            "std": self.std(metric),
            "seconds": self.seconds,
            "low": self.interval[0],
            "high": self.interval[1],
            "p_vs_best": self.vs_best and self.vs_best.holm,
            "p_vs_bm25": self.vs_bm25 and self.vs_bm25.holm,
            "raw_p_vs_best": self.vs_best and self.vs_best.raw,
            "raw_p_vs_bm25": self.vs_bm25 and self.vs_bm25.raw,
        }


@dataclass(frozen=True)
class Example:
    """A query that two systems answer differently well, with the value of each."""

    query: str
    text: str
    a: float
    b: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two systems, query by query.

    Attributes:
        a: name of the first.
        b: name of the second.
        wins: number of queries on which the first is better; ``losses`` and ``ties`` likewise.
        won: the first's clearest wins, the largest difference first; ``lost`` likewise.
        differences: (Q,) first minus second.
    """

    a: str
    b: str
    wins: int
    losses: int
    ties: int
    won: list[Example]
    lost: list[Example]
    differences: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "differences"}


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """Rows of comparable runs, the best first.

    Attributes:
        metric: what the rows are ordered and tested by.
        split: name of the validation queries.
        queries: their number.
        documents: number of passages that each was ranked against.
        rows: the best first.
        bm25: metric → mean of BM25; empty without it.
        bm25_interval: 95 % interval of its mean.
        comparisons: the best row with BM25, and with the second row.
    """

    metric: str
    split: str
    queries: int
    documents: int
    rows: list[Row]
    bm25: dict[str, float]
    bm25_interval: tuple[float, float] | None
    comparisons: list[Comparison]

    def to_dict(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in ("metric", "split", "queries", "documents")},
            **{f"bm25/{name}": value for name, value in self.bm25.items()},
            "rows": [row.to_dict(self.metric) for row in self.rows],
            "comparisons": [each.to_dict() for each in self.comparisons],
        }


def leaderboard(paths: Sequence[Path], metric: str | None = None) -> Leaderboard:
    """Compare the finished runs in folders of runs or of sweeps, by default by what they chose their best epoch by."""
    runs = read_runs(paths)
    metric = metric_of(runs, metric)
    bm25 = _strongest_bm25(runs, metric)
    rows = _rows(runs, metric, bm25.get(metric))
    best, *others = rows
    rivals = [("BM25", bm25[metric])] if bm25 else []
    rivals += [(row.name, row.values) for row in others[:1]]
    return Leaderboard(
        metric,
        split=runs[0].config["data"]["validation_split"],
        queries=len(runs[0].per_query.ids),
        documents=runs[0].results["documents"],
        rows=rows,
        bm25={name: float(values.mean()) for name, values in bm25.items()},
        bm25_interval=_intervals([bm25[metric]])[0] if bm25 else None,
        comparisons=[_comparison(runs[0], best, name, values) for name, values in rivals],
    )


def _rows(runs: Sequence[FinishedRun], metric: str, bm25: np.ndarray | None) -> list[Row]:
    """The runs by configuration, the best first, tested against the best and against BM25."""
    experiments: dict[str, list[FinishedRun]] = {}
    for run in runs:
        experiments.setdefault(json.dumps(experiment(run.config), sort_keys=True), []).append(run)
    groups = sorted(experiments.values(), key=lambda group: _average(group, metric).mean(), reverse=True)
    values = [_average(group, metric) for group in groups]
    first = [group[0] for group in groups]
    overrides = distinguish([run.config for run in first], [run.composition for run in first])
    columns = zip(
        row_names(overrides, [[run.path for run in group] for group in groups]),
        overrides,
        groups,
        values,
        map(_means, groups),
        _intervals(values),
        [None, *_tests(values[1:], values[0])],
        _tests(values, bm25) if bm25 is not None else [None] * len(groups),
        strict=True,
    )
    return [Row(*row) for row in columns]


def _average(group: Sequence[FinishedRun], metric: str) -> np.ndarray:
    """(Q,) what each query scores, averaged over runs."""
    return np.mean([run.per_query.values[metric] for run in group], axis=0)


def _means(group: Sequence[FinishedRun]) -> dict[str, float]:
    """Means of all metrics that every run has measured."""
    shared = set.intersection(*({*run.per_query.values} for run in group))
    measured = [name for name in group[0].per_query.values if name in shared and "/" not in name]
    return {name: float(_average(group, name).mean()) for name in measured}


def _intervals(values: Sequence[np.ndarray]) -> list[tuple[float, float]]:
    low, high = mean_interval(np.stack(values, axis=1))
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _tests(values: Sequence[np.ndarray], against: np.ndarray) -> list[PValue]:
    """A family of tests: several systems against the same one."""
    raw = [randomisation_test(each, against) for each in values]
    return [PValue(*both) for both in zip(raw, holm(raw), strict=True)]


def _strongest_bm25(runs: Sequence[FinishedRun], metric: str) -> dict[str, np.ndarray]:
    """Metric → (Q,) values of BM25; empty if no run has measured it.

    It reads the words that a run's tokenizer makes, so there may be several: the best is the one to beat.
    """
    measured = [run.per_query.values for run in runs if f"bm25/{metric}" in run.per_query.values]
    if not measured:
        return {}
    best = max(measured, key=lambda values: values[f"bm25/{metric}"].mean())
    return {name.removeprefix("bm25/"): values for name, values in best.items() if name.startswith("bm25/")}


def _comparison(first: FinishedRun, best: Row, name: str, values: np.ndarray) -> Comparison:
    differences = paired_differences(best.values, values)
    texts = first.per_query.texts or [""] * len(differences)

    def clearest(sign: int) -> list[Example]:
        largest = np.argsort(-sign * differences, kind="stable")[:EXAMPLES]
        return [
            Example(first.per_query.ids[i], texts[i], float(best.values[i]), float(values[i]))
            for i in largest.tolist()
            if sign * differences[i] > 0
        ]

    wins, losses, ties = (int((np.sign(differences) == sign).sum()) for sign in (1, -1, 0))
    return Comparison(best.name, name, wins, losses, ties, clearest(1), clearest(-1), differences)
