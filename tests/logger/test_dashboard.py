"""The prepared W&B workspace."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb
from rows import write_text
from wandb_files import wandb_runs

from two_tower import cli
from two_tower.errors import UserError
from two_tower.logger import _dashboard
from two_tower.logger._dashboard import SETTINGS, Dashboard
from two_tower.logger.wandb import HISTOGRAMS, SAMPLES, Progress

ws = pytest.importorskip("wandb_workspaces.workspaces", reason="needs pip install -e '.[dashboard]'")


def test_it_draws_only_what_a_run_logs(finished: Path) -> None:
    (run,) = wandb_runs(finished)
    logged = {key for row in run.history for key in row}
    dashboard = Dashboard.from_runs([finished])
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


def test_of_runs_it_shows_what_they_log_and_only_them_and_without_an_account_it_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sweep = tmp_path / "sweep"
    write_run(sweep / "a", "aaaa")
    write_run(sweep / "b", "bbbb", metrics="[mrr, ndcg@10]")
    write_text(sweep / "c" / "config.yaml", "logger: {}\n")  # without W&B
    monkeypatch.setattr(sys, "argv", ["two-tower", "dashboard", str(sweep)])
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main()
    out, err = capfd.readouterr()
    assert "wandb login" in err
    printed = json.loads(out)
    assert (printed["project"], printed["entity"], printed["runs"]) == ("mine", "somebody", ["aaaa", "bbbb"])
    assert printed["sections"]["Quality"] == ["val/mrr", "val/ndcg@10"]
    assert printed["sections"]["Recall"] == ["val/recall@3"]
    other = Dashboard.from_runs([sweep], "other", "else")
    assert (other.project, other.entity) == ("other", "else")
    assert Dashboard.from_runs([], "mine").sections["Recall"] == [f"val/recall@{k}" for k in (1, 5, 10, 100)]
    with pytest.raises(UserError, match="nowhere holds no run with logger=wandb"):
        Dashboard.from_runs([tmp_path / "nowhere"])
    with pytest.raises(UserError, match=r"in the W&B project mine and .*another in yours"):
        Dashboard.from_runs([sweep, write_run(tmp_path / "another", "cccc", project="yours")])


def test_with_an_account_it_is_created(monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Any] = []
    monkeypatch.setattr(_dashboard, "logged_in", lambda: True)
    monkeypatch.setattr(ws.Workspace, "save", lambda self: saved.append(self))
    monkeypatch.setattr(ws.Workspace, "url", property(lambda self: f"https://wandb/{self.entity}/{self.project}"))
    dashboard = Dashboard("mine", "somebody", runs=("aaaa",))
    for mode in ("offline", "disabled"):
        with monkeypatch.context() as patch:
            patch.setenv("WANDB_MODE", mode)
            assert dashboard.create() is None
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
