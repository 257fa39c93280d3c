"""A prepared W&B workspace: curves by tower, recall at every depth, runs compared, sample queries, similarities."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb

from two_tower.config import read
from two_tower.errors import UserError
from two_tower.logger.progress import Progress
from two_tower.logger.wandb import HISTOGRAMS, SAMPLES, STEP, logged_in
from two_tower.run import Run

__all__ = ["Shown", "create", "described", "shown", "workspace"]

NAME = "Two-tower search"
TRAINING = ("train/loss", "train/accuracy", "train/learning_rate", "train/triplets_per_second")
# What runs are told apart by, as keys of their configuration in W&B.
TOWER, SETTINGS = "choice.tower", ["choice.tower", "choice.loss", "choice.negatives", "optimizer.lr", "tower.dim"]


@dataclass(frozen=True)
class Shown:
    """What a dashboard is for; without runs, for all of a project, as they are configured by default.

    Attributes:
        project: the W&B project.
        entity: user or team; None = the account's default.
        ids: W&B's ids of the runs that are shown; none = all of the project.
        metrics: of the validation, without ``val/``.
        monitor: the one that decides which check is best.
    """

    project: str = "two-tower"
    entity: str | None = None
    ids: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("mrr", "mrr@10", "recall@1", "recall@5", "recall@10", "recall@100", "ndcg@10")
    monitor: str = "mrr@10"

    @property
    def curves(self) -> dict[str, list[str]]:
        """Section → what it draws over the steps of training; all of it is logged by every such run."""
        first = [self.monitor, *(name for name in self.metrics if name != self.monitor)]
        return {
            "Quality": [f"val/{name}" for name in first if not name.startswith("recall@")],
            "Recall": [f"val/{name}" for name in self.metrics if name.startswith("recall@")],
            "Training": [*TRAINING],
        }

    @property
    def baselines(self) -> list[str]:
        """The metric that decides, of BM25, the untrained towers and the best check."""
        return [f"{kind}/{self.monitor}" for kind in ("bm25", "untrained", "val")]


def shown(paths: Sequence[Path], project: str | None = None, entity: str | None = None) -> Shown:
    """What a dashboard of these runs, or of a whole project, shows.

    Args:
        paths: folders of runs with logger=wandb, or folders that hold such folders, of a sweep for example.
        project: the W&B project; None = that of the runs.
        entity: None = that of the runs.

    Raises:
        UserError: a folder holds no run with logger=wandb, or the runs are in several projects.
    """
    if not paths:
        return Shown(project or Shown.project, entity)
    runs = [run for path in paths for run in _runs(path)]
    configs = {run.path: read(run.config) for run, _ in runs}
    places = {config["logger"].get("project", Shown.project): path for path, config in configs.items()}
    if len(places) > 1 and not project:
        (a, first), (b, second), *_ = places.items()
        raise UserError(f"{first} is in the W&B project {a} and {second} in {b}: make a dashboard for each.")
    config = next(iter(configs.values()))
    return Shown(
        project or next(iter(places)),
        entity or config["logger"].get("entity"),
        tuple(id_ for _, id_ in runs),
        tuple(dict.fromkeys(name for each in configs.values() for name in each["validation"]["metrics"])),
        config["validation"]["monitor"],
    )


def _runs(path: Path) -> list[tuple[Run, str]]:
    """The runs with logger=wandb in a folder, with their ids in W&B."""
    folders = [path] if Run(path).config.exists() else [each.parent for each in sorted(path.glob("*/config.yaml"))]
    found = [(Run(folder), Progress.read(folder / "wandb" / "run.txt")) for folder in folders]
    runs = [(run, progress.id) for run, progress in found if progress]
    if not runs:
        raise UserError(f"{path} holds no run with logger=wandb: a dashboard shows what such runs have logged.")
    return runs


def workspace(what: Shown, entity: str = "") -> Any:  # noqa: ANN401
    """The workspace, not saved yet.

    Args:
        what: it is for.
        entity: whose it is, if ``what`` does not say.

    Raises:
        UserError: the package is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
        from wandb_workspaces import expr
    except ModuleNotFoundError as error:
        raise UserError('two-tower dashboard needs its package: pip install -e ".[dashboard]"') from error

    def curve(metric: str, by: str | None = TOWER) -> wr.LinePlot:
        spread: dict[str, Any] = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"} if by else {}
        return wr.LinePlot(title=metric, x=STEP, y=[metric], groupby=by and f"config.{by}", **spread)

    best = wr.SummaryMetric(f"val/{what.monitor}")
    columns = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config(key)) for key in SETTINGS]
    sections: list[Any] = [
        ws.Section(name=name, is_open=True, panels=[*map(curve, metrics)])
        for name, metrics in what.curves.items()
        if metrics
    ]
    sections += [
        ws.Section(
            name="Comparison",
            is_open=True,
            panels=[
                wr.BarPlot(title="Best check beside its baselines", metrics=[*what.baselines]),
                wr.BarPlot(title="By tower", metrics=[f"val/{what.monitor}"], groupby=f"config.{TOWER}"),
                wr.ParallelCoordinatesPlot(columns=[*columns, wr.ParallelCoordinatesPlotColumn(metric=best)]),
                wr.RunComparer(diff_only="split"),
            ],
        ),
        ws.Section(name="Sample queries", is_open=True, panels=[wr.WeavePanelSummaryTable(table_name=SAMPLES)]),
        ws.Section(name="Similarities", is_open=True, panels=[curve(name, None) for name in HISTOGRAMS]),
    ]
    only = ws.RunsetSettings(filters=expr.And(expr.Metric("ID").isin([*what.ids]))) if what.ids else ws.RunsetSettings()
    return ws.Workspace(
        entity=what.entity or entity, project=what.project, name=NAME, sections=sections, runset_settings=only
    )


def described(made: Any) -> dict[str, Any]:  # noqa: ANN401
    """A workspace as W&B stores it."""
    found: dict[str, Any] = json.loads(made._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
    return found


def create(what: Shown) -> str | None:
    """Create the workspace in its project; returns its address, None where there is no account or W&B is offline.

    Raises:
        UserError: the package is not installed, or W&B refuses.
    """
    wandb.setup(wandb.Settings(silent=True))
    if os.environ.get("WANDB_MODE") in ("offline", "dryrun", "disabled") or not logged_in():
        return None
    try:
        made = workspace(what, what.entity or wandb.Api().default_entity or "")
        made.save()
    except (wandb.Error, ValueError) as error:
        raise UserError(f"W&B does not take the dashboard: {str(error).splitlines()[0].rstrip('.')}.") from error
    return str(made.url)
