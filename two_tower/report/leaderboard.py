"""From runs to a ranked table: what distinguishes them, seeds gathered, intervals, tests of significance."""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from two_tower.config.saved import Composition, choices_of, leaves
from two_tower.metrics.significance import clearest, holm, mean_interval, paired_differences, randomisation_test
from two_tower.report.runs import FinishedRun, metric_of, read_runs

log = logging.getLogger(__name__)

EXAMPLES = 5  # queries of each kind that a comparison names
# Keys that make a run another run of the same experiment; `embedding.seed` follows `seed`.
_SAME_EXPERIMENT = ("seed", "run_dir")
# What is shown or stored of a run, and how fast its batches come: the model is the same.
_NO_EFFECT = (
    "console", "logger", "callbacks.samples", "callbacks.speed", "callbacks.last", "data.num_workers",
    "trainer.log_every_n_steps", "trainer.enable_progress_bar", "trainer.enable_model_summary",
)  # fmt: skip
LONGEST_NAME = 80  # characters; a table has no room for longer overrides


class PValue(NamedTuple):
    """Of a paired randomisation test over the queries: of this test alone, and corrected for all of its family."""

    raw: float
    holm: float


@dataclass(frozen=True, eq=False)
class Row:
    """Runs of one configuration, whatever their seeds."""

    name: str  # the overrides as they are typed, or what the names of its runs' folders begin with
    overrides: dict[str, Any]  # what distinguishes it from the other rows
    runs: list[FinishedRun]
    values: np.ndarray  # (Q,) the metric for each query, averaged over the runs
    means: dict[str, float]  # metric → mean over runs and queries
    interval: tuple[float, float]  # 95 % interval of the mean: where it might be, were the queries others
    vs_best: PValue | None  # tested against the best row; None for that row
    vs_bm25: PValue | None  # tested against BM25; None without it

    @property
    def seconds(self) -> float | None:
        """Mean duration of the runs; None where no run says."""
        known = [run.results["seconds"] for run in self.runs if run.results.get("seconds") is not None]
        return float(np.mean(known)) if known else None

    def figure(self, key: str) -> float | None:
        """The mean over the runs of a figure of ``results.json``; None where a run lacks it."""
        found = [run.results[key] for run in self.runs if key in run.results]
        return float(np.mean(found)) if len(found) == len(self.runs) else None

    def run_means(self, metric: str) -> list[float]:
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
            "name": self.name, "overrides": self.overrides, "runs": [run.to_dict() for run in self.runs],
            "mean": float(self.values.mean()), "std": self.std(metric), "seconds": self.seconds,
            "low": self.interval[0], "high": self.interval[1],
            "p_vs_best": self.vs_best and self.vs_best.holm, "p_vs_bm25": self.vs_bm25 and self.vs_bm25.holm,
            "raw_p_vs_best": self.vs_best and self.vs_best.raw, "raw_p_vs_bm25": self.vs_bm25 and self.vs_bm25.raw,
        }  # fmt: skip


@dataclass(frozen=True)
class Example:
    """A query that two systems answer differently well, with the value of each."""

    query: str
    text: str
    a: float
    b: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two systems, query by query."""

    a: str
    b: str
    wins: int  # number of queries on which the first is better
    losses: int
    ties: int
    won: list[Example]  # the first's clearest wins, the largest difference first
    lost: list[Example]
    differences: np.ndarray  # (Q,) first minus second

    def to_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "differences"}


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """Comparable runs."""

    metric: str  # what the rows are ordered and tested by
    split: str  # name of the validation queries
    queries: int
    documents: int  # number of passages that each query was ranked against
    rows: list[Row]  # the best first
    bm25: dict[str, float]  # metric → mean of BM25; empty without it
    bm25_interval: tuple[float, float] | None  # 95 % interval of its mean
    comparisons: list[Comparison]  # the best row with BM25, and with the second row

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
    first, comparisons = runs[0], [_comparison(runs[0], best, name, values) for name, values in rivals]
    bm25_means = {name: float(values.mean()) for name, values in bm25.items()}
    interval = _intervals([bm25[metric]])[0] if bm25 else None
    split, documents = first.config["data"]["validation_split"], first.results["documents"]
    return Leaderboard(metric, split, len(first.per_query.ids), documents, rows, bm25_means, interval, comparisons)


def _rows(runs: Sequence[FinishedRun], metric: str, bm25: np.ndarray | None) -> list[Row]:
    """The runs by configuration, the best first, tested against the best and against BM25."""
    experiments: dict[str, list[FinishedRun]] = {}
    for run in runs:
        group = experiments.setdefault(json.dumps(experiment(run.config), sort_keys=True), [])
        if again := next((each for each in group if _repeats(run, each, metric)), None):
            log.warning("%s is left out: it is %s once more.", run.path, again.path)
        else:
            group.append(run)
    groups = sorted(experiments.values(), key=lambda group: _average(group, metric).mean(), reverse=True)
    values = [_average(group, metric) for group in groups]
    overrides = distinguish([group[0].config for group in groups], [group[0].composition for group in groups])
    names = row_names(overrides, [[run.path for run in group] for group in groups])
    if len(groups) == 1 and len(seeds := [str(run.config.get("seed")) for run in groups[0]]) > 1:
        names = [f"seed={','.join(seeds)}"]
    vs_best = [None, *_tests(values[1:], values[0])]
    vs_bm25 = _tests(values, bm25) if bm25 is not None else [None] * len(groups)
    columns = (names, overrides, groups, values, map(_means, groups), _intervals(values), vs_best, vs_bm25)
    return [Row(*row) for row in zip(*columns, strict=True)]


def _repeats(run: FinishedRun, other: FinishedRun, metric: str) -> bool:
    """Whether two runs of one configuration are the same, so that their difference says nothing of chance."""
    same_seed = run.config.get("seed") == other.config.get("seed")
    return same_seed and np.array_equal(run.per_query.values[metric], other.per_query.values[metric])


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

    def examples(sign: int) -> list[Example]:
        return [
            Example(first.per_query.ids[i], texts[i], float(best.values[i]), float(values[i]))
            for i in clearest(differences, sign, EXAMPLES)
        ]

    wins, losses, ties = (int((np.sign(differences) == sign).sum()) for sign in (1, -1, 0))
    return Comparison(best.name, name, wins, losses, ties, examples(1), examples(-1), differences)


def experiment(config: Mapping[str, Any]) -> dict[str, Any]:
    """``key.key`` → value of each leaf of a configuration that may change the result, seeds left out."""
    without_effect = tuple(f"{key}." for key in _NO_EFFECT)
    return {
        key: value
        for key, value in leaves(config).items()
        if key.split(".")[-1] not in _SAME_EXPERIMENT and not f"{key}.".startswith(without_effect)
    }


def distinguish(
    configs: Sequence[Mapping[str, Any]], compositions: Sequence[Composition] | None = None
) -> list[dict[str, Any]]:
    """For each of several configurations the keys in which they differ, with its own values.

    Another component is shown by its choice (``tower: gru``), and the keys that only come with it are left out; so
    are keys that conf/ derives from another key. A key that only some configurations of one component have
    (``+trainer.limit_train_batches=30``) is None for the others. No two of ``configs`` are equal up to the seed.
    """
    compositions = compositions or [Composition()] * len(configs)
    compared = [experiment(config) for config in configs]
    keys = sorted({key for each in compared for key in each})
    different = [key for key in keys if len({repr(each.get(key)) for each in compared}) > 1]
    optional = {key for key in different if _is_optional(key, compared)}
    shown = [
        key
        for key in different
        if (key in optional or len({repr(each[key]) for each in compared if key in each}) > 1)
        and not all(key in c.derived for c, each in zip(compositions, compared, strict=True) if key in each)
    ]
    named = []  # with ``tower: gru`` for ``tower._target_``
    for each, config, source in zip(compared, configs, compositions, strict=True):
        choices = {f"{group}._target_": choice for group, choice in choices_of(config, source).items()}
        own = {key: choices.get(key, each.get(key)) for key in shown if key in each or key in optional}
        named.append({key.removesuffix("._target_"): value for key, value in own.items()})
    if len({repr(each) for each in named}) == len(named):
        return named
    return [{key: each.get(key) for key in different} for each in compared]


def _is_optional(key: str, compared: Sequence[Mapping[str, Any]]) -> bool:
    """Whether only some have a key, though every component around it is the same in all."""
    parts = key.split(".")
    around = [".".join([*parts[:depth], "_target_"]) for depth in range(1, len(parts))]
    components = {tuple(each.get(target) for target in around) for each in compared}
    return len(components) == 1 and any(key not in each for each in compared)


def typed(overrides: Mapping[str, Any]) -> str:
    """Overrides as they are typed on the command line."""
    return " ".join(f"{key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in overrides.items())


def row_names(overrides: Sequence[Mapping[str, Any]], folders: Sequence[Sequence[Path]]) -> list[str]:
    """A name for each configuration: its overrides, or if these are long, what its folders begin with."""
    names = [typed(each) or paths[0].name for each, paths in zip(overrides, folders, strict=True)]
    if max(map(len, names)) <= LONGEST_NAME:
        return names
    prefixes = [_common_words([path.name for path in paths]) for paths in folders]
    return prefixes if all(prefixes) and len(set(prefixes)) == len(prefixes) else names


def _common_words(names: Sequence[str]) -> str:
    words = zip(*(re.split(r"([\W_]+)", name) for name in names), strict=False)
    shared = itertools.takewhile(lambda each: len(set(each)) == 1, words)
    return re.sub(r"[\W_]+$", "", "".join(word for word, *_ in shared))
