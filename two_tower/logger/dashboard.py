"""A prepared W&B workspace: curves by tower, recall at every depth, runs compared, sample queries, similarities."""

from __future__ import annotations

import json
from typing import Any

import wandb

from two_tower.errors import UserError
from two_tower.logger.wandb import HISTOGRAMS, SAMPLES, STEP, logged_in

__all__ = ["METRICS", "create", "described", "workspace"]

# What is drawn over the steps of training, by section; all of it is logged by every run.
METRICS: dict[str, list[str]] = {
    "Quality": ["val/mrr@10", "val/ndcg@10", "val/mrr"],
    "Recall": [f"val/recall@{k}" for k in (1, 5, 10, 100)],
    "Training": ["train/loss", "train/accuracy", "train/learning_rate", "train/triplets_per_second"],
}
BASELINES = ("bm25/mrr@10", "untrained/mrr@10", "val/mrr@10")
# What runs are told apart by, as keys of their configuration in W&B.
TOWER, SETTINGS = "choice.tower", ["choice.tower", "choice.loss", "choice.negatives", "optimizer.lr", "tower.dim"]


def workspace(entity: str, project: str) -> Any:  # noqa: ANN401
    """The workspace, not saved yet.

    Raises:
        UserError: the package is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ModuleNotFoundError as error:
        raise UserError('two-tower dashboard needs its package: pip install -e ".[dashboard]"') from error

    def curve(metric: str, by: str | None = TOWER) -> wr.LinePlot:
        spread: dict[str, Any] = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"} if by else {}
        return wr.LinePlot(title=metric, x=STEP, y=[metric], groupby=by and f"config.{by}", **spread)

    best = wr.SummaryMetric("val/mrr@10")
    columns = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config(key)) for key in SETTINGS]
    sections: list[Any] = [
        ws.Section(name=name, is_open=True, panels=[*map(curve, metrics)]) for name, metrics in METRICS.items()
    ]
    sections += [
        ws.Section(
            name="Comparison",
            is_open=True,
            panels=[
                wr.BarPlot(title="Best check beside its baselines", metrics=[*BASELINES]),
                wr.BarPlot(title="By tower", metrics=["val/mrr@10"], groupby=f"config.{TOWER}"),
                wr.ParallelCoordinatesPlot(columns=[*columns, wr.ParallelCoordinatesPlotColumn(metric=best)]),
                wr.RunComparer(diff_only="split"),
            ],
        ),
        ws.Section(name="Sample queries", is_open=True, panels=[wr.WeavePanelSummaryTable(table_name=SAMPLES)]),
        ws.Section(name="Similarities", is_open=True, panels=[curve(name, None) for name in HISTOGRAMS]),
    ]
    return ws.Workspace(entity=entity, project=project, name="Two-tower search", sections=sections)


def described(made: Any) -> dict[str, Any]:  # noqa: ANN401
    """A workspace as W&B stores it."""
    found: dict[str, Any] = json.loads(made._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
    return found


def create(project: str, entity: str | None) -> str | None:
    """Create the workspace in a project of the account; returns its address, None where there is no account.

    Raises:
        UserError: the package is not installed, or W&B refuses.
    """
    wandb.setup(wandb.Settings(silent=True))
    if not logged_in():
        return None
    try:
        made = workspace(entity or wandb.Api().default_entity or "", project)
        made.save()
    except (wandb.Error, ValueError) as error:
        raise UserError(f"W&B does not take the dashboard: {str(error).splitlines()[0].rstrip('.')}.") from error
    return str(made.url)
