"""A prepared W&B workspace: curves by tower, recall at every depth, runs compared, sample queries, similarities."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb

from two_tower.config import read
from two_tower.errors import UserError, first_line
from two_tower.logger.wandb import HISTOGRAMS, SAMPLES, STEP, Progress, logged_in
from two_tower.metrics import DEFAULT_METRICS
from two_tower.run import Run

NAME = "Two-tower search"
TRAINING = ("train/loss", "train/accuracy", "train/learning_rate", "train/triplets_per_second")
# What tells runs apart, as keys of their configuration in W&B.
TOWER, SETTINGS = "choice.tower", ("choice.tower", "choice.loss", "choice.negatives", "optimizer.lr", "tower.dim")


@dataclass(frozen=True)
class Dashboard:
    """What a dashboard shows; without runs, all of a project, with the metrics of the default configuration."""

    project: str = "two-tower"
    entity: str | None = None  # user or team; None = the account's default
    runs: tuple[str, ...] = ()  # W&B's ids
    metrics: tuple[str, ...] = DEFAULT_METRICS  # of the validation, without ``val/``
    monitor: str = "mrr@10"  # decides which evaluation is best

    @classmethod
    def from_runs(cls, paths: Sequence[Path], project: str | None = None, entity: str | None = None) -> Dashboard:
        """For the runs with logger=wandb in these folders, or in folders in them, such as a sweep's."""
        if not paths:
            return cls(project or cls.project, entity)
        runs = [run for path in paths for run in _runs(path)]
        configs = {run.path: read(run.config) for run, _ in runs}
        projects = {config["logger"].get("project", cls.project): path for path, config in configs.items()}
        if len(projects) > 1 and not project:
            (a, first), (b, second), *_ = projects.items()
            raise UserError(f"{first} is in the W&B project {a} and {second} in {b}: make a dashboard for each.")
        config = next(iter(configs.values()))
        return cls(
            project or next(iter(projects)),
            entity or config["logger"].get("entity"),
            tuple(id_ for _, id_ in runs),
            tuple(dict.fromkeys(name for each in configs.values() for name in each["validation"]["metrics"])),
            config["validation"]["monitor"],
        )

    @property
    def sections(self) -> dict[str, list[str]]:
        """Section → the figures it shows: curves over the steps, in ``Comparison`` the best evaluation's bars."""
        names = [self.monitor, *(name for name in self.metrics if name != self.monitor)]
        return {
            "Quality": [f"val/{name}" for name in names if not name.startswith("recall@")],
            "Recall": [f"val/{name}" for name in self.metrics if name.startswith("recall@")],
            "Training": [*TRAINING],
            "Comparison": [f"{kind}/{self.monitor}" for kind in ("bm25", "untrained", "val")],
            "Sample queries": [SAMPLES],
            "Similarities": [*HISTOGRAMS],
        }

    def create(self) -> str | None:
        """Create it as a workspace of its project; its address, or None without an account and where W&B is offline."""
        wandb.setup(wandb.Settings(silent=True))
        if os.environ.get("WANDB_MODE") in ("offline", "dryrun", "disabled") or not logged_in():
            return None
        try:
            workspace = self._workspace()
            workspace.save()
        except (wandb.Error, ValueError) as error:
            raise UserError(f"W&B does not take the dashboard: {first_line(error).rstrip('.')}.") from error
        return str(workspace.url)

    def _workspace(self) -> Any:  # noqa: ANN401
        try:
            import wandb_workspaces.reports.v2 as wr
            import wandb_workspaces.workspaces as ws
            from wandb_workspaces import expr
        except ModuleNotFoundError as error:
            raise UserError('two-tower dashboard needs its package: pip install -e ".[dashboard]"') from error

        by_tower: Any = {"groupby": f"config.{TOWER}", "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}

        def curve(metric: str) -> Any:  # noqa: ANN401
            return wr.LinePlot(title=metric, x=STEP, y=[metric], **({} if metric in HISTOGRAMS else by_tower))

        best = wr.SummaryMetric(f"val/{self.monitor}")
        columns = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config(key)) for key in SETTINGS]
        special: dict[str, list[Any]] = {
            "Comparison": [
                wr.BarPlot(title="Best evaluation beside its baselines", metrics=[*self.sections["Comparison"]]),
                wr.BarPlot(title="By tower", metrics=[f"val/{self.monitor}"], groupby=f"config.{TOWER}"),
                wr.ParallelCoordinatesPlot(columns=[*columns, wr.ParallelCoordinatesPlotColumn(metric=best)]),
                wr.RunComparer(diff_only="split"),
            ],
            "Sample queries": [wr.WeavePanelSummaryTable(table_name=SAMPLES)],
        }
        sections = [
            ws.Section(name=name, is_open=True, panels=special.get(name) or [*map(curve, figures)])
            for name, figures in self.sections.items()
            if figures
        ]
        only: dict[str, Any] = {"filters": expr.And(expr.Metric("ID").isin([*self.runs]))} if self.runs else {}
        return ws.Workspace(
            entity=self.entity or wandb.Api().default_entity or "", project=self.project, name=NAME,
            sections=sections, runset_settings=ws.RunsetSettings(**only),
        )  # fmt: skip


def _runs(path: Path) -> list[tuple[Run, str]]:
    """The runs with logger=wandb in a folder, with their ids in W&B."""
    folders = [path] if Run(path).config.exists() else [each.parent for each in sorted(path.glob("*/config.yaml"))]
    progress = {folder: Progress.read(folder / "wandb" / "run.txt") for folder in folders}
    runs = [(Run(folder), its.id) for folder, its in progress.items() if its]
    if not runs:
        raise UserError(f"{path} holds no run with logger=wandb: a dashboard shows what such runs have logged.")
    return runs
