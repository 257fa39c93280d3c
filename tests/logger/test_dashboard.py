"""The prepared W&B workspace."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb
from conftest import run_command
from rows import write_text
from test_train import fit
from wandb_files import wandb_runs

from two_tower.errors import UserError
from two_tower.logger import _dashboard
from two_tower.logger._dashboard import SETTINGS, Dashboard
from two_tower.logger.wandb import HISTOGRAMS, SAMPLES, Progress

ws = pytest.importorskip("wandb_workspaces.workspaces", reason="needs pip install -e '.[dashboard]'")


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


def test_it_draws_only_what_a_run_logs(collection: Path, tmp_path: Path) -> None:
    fit(collection, tmp_path / "run", "logger=wandb", "trainer.log_every_n_steps=2")
    (run,) = wandb_runs(tmp_path / "run")
    logged = {key for row in run.history for key in row}
    dashboard = Dashboard.from_runs([tmp_path / "run"])
    assert dashboard == Dashboard(runs=(run.id,))  # a project is drawn with what runs log by default
    written = {SAMPLES: f"{SAMPLES}/path", **{name: f"{name}/values" for name in HISTOGRAMS}}
    assert {written.get(name, name) for figures in dashboard.sections.values() for name in figures} <= logged
    assert {*dashboard.sections["Comparison"]} <= run.summary.keys()
    for key in SETTINGS:
        value: Any = run.config
        for part in key.split("."):
            value = value[part]
        assert value is not None


def write_run(folder: Path, id_: str, project: str = "mine", metrics: str = "[mrr, recall@3]") -> Path:
    """As much of a run folder as a dashboard looks at."""
    logger = f"logger: {{project: {project}, entity: somebody}}"
    write_text(folder / "config.yaml", f"{logger}\nvalidation: {{metrics: {metrics}, monitor: mrr}}\n")
    (folder / "wandb").mkdir()
    Progress(id_, 9, 9).write(folder / "wandb" / "run.txt")
    return folder


def test_of_runs_it_shows_what_they_log_and_only_them_and_without_an_account_it_is_printed(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    write_run(sweep / "a", "aaaa")
    write_run(sweep / "b", "bbbb", metrics="[mrr, ndcg@10]")
    write_text(sweep / "c" / "config.yaml", "logger: {}\n")  # without W&B
    done = run_command("two-tower", "dashboard", sweep, cwd=tmp_path)
    assert done.returncode == 0
    assert "wandb login" in done.stderr
    printed = json.loads(done.stdout)
    assert (printed["project"], printed["entity"], printed["runs"]) == ("mine", "somebody", ["aaaa", "bbbb"])
    assert printed["sections"]["Quality"] == ["val/mrr", "val/ndcg@10"]
    assert printed["sections"]["Recall"] == ["val/recall@3"]
    other = Dashboard.from_runs([sweep], "other", "else")
    assert (other.project, other.entity) == ("other", "else")
    assert Dashboard.from_runs([], "mine").sections["Recall"] == [f"val/recall@{k}" for k in (1, 5, 10, 100)]


def test_what_holds_no_such_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere holds no run with logger=wandb"):
        Dashboard.from_runs([tmp_path / "nowhere"])
    runs = [write_run(tmp_path / name, name, project=name) for name in ("one", "two")]
    with pytest.raises(UserError, match=r"in the W&B project one and .*two in two"):
        Dashboard.from_runs(runs)


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_where_wandb_is_offline_nothing_is_created(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_dashboard, "logged_in", lambda: True)
    monkeypatch.setenv("WANDB_MODE", mode)
    assert Dashboard().create() is None


def test_with_an_account_it_is_created(monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Any] = []
    monkeypatch.setattr(_dashboard, "logged_in", lambda: True)
    monkeypatch.setattr(ws.Workspace, "save", lambda self: saved.append(self))
    monkeypatch.setattr(ws.Workspace, "url", property(lambda self: f"https://wandb/{self.entity}/{self.project}"))
    dashboard = Dashboard("mine", "somebody", runs=("aaaa",))
    assert dashboard.create() == "https://wandb/somebody/mine"
    (workspace,) = saved
    assert [section.name for section in workspace.sections] == [*dashboard.sections]
    assert {panel.groupby for panel in workspace.sections[1].panels} == {"config.choice.tower"}
    kinds = [type(panel).__name__ for section in workspace.sections[3:] for panel in section.panels]
    assert kinds[:5] == ["BarPlot", "BarPlot", "ParallelCoordinatesPlot", "RunComparer", "WeavePanelSummaryTable"]

    def refuse(self: Any) -> None:  # noqa: ANN401
        raise wandb.Error("no such project")

    monkeypatch.setattr(ws.Workspace, "save", refuse)
    with pytest.raises(UserError, match="W&B does not take the dashboard: no such project"):
        dashboard.create()
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(UserError, match=r"pip install -e \"\.\[dashboard\]\""):
        dashboard.create()
