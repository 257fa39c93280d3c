"""The prepared W&B workspace."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb
from conftest import run_command
from test_train import fit
from wandb_files import wandb_runs

from two_tower.errors import UserError
from two_tower.logger import dashboard
from two_tower.logger.wandb import HISTOGRAMS, SAMPLES

ws = pytest.importorskip("wandb_workspaces.workspaces", reason="needs pip install -e '.[dashboard]'")


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


def test_it_draws_only_what_a_run_logs(collection: Path, tmp_path: Path) -> None:
    fit(collection, tmp_path / "run", "logger=wandb", "trainer.log_every_n_steps=2")
    (run,) = wandb_runs(tmp_path / "run")
    logged = {key for row in run.history for key in row}
    drawn = [metric for metrics in dashboard.METRICS.values() for metric in metrics]
    assert {*drawn, *dashboard.BASELINES, *(f"{name}/values" for name in HISTOGRAMS)} <= logged
    assert f"{SAMPLES}/path" in logged
    assert {*dashboard.BASELINES} <= run.summary.keys()
    for key in (dashboard.TOWER, *dashboard.SETTINGS):
        value: Any = run.config
        for part in key.split("."):
            value = value[part]
        assert value is not None


def test_without_an_account_it_is_printed(tmp_path: Path) -> None:
    done = run_command("two-tower", "dashboard", "--project", "mine", cwd=tmp_path)
    assert done.returncode == 0
    sections = json.loads(done.stdout)["section"]["panelBankConfig"]["sections"]
    names = [section["name"] for section in sections]
    assert names == ["Quality", "Recall", "Training", "Comparison", "Sample queries", "Similarities"]
    kinds = {panel["viewType"] for section in sections for panel in section["panels"]}
    assert {"Run History Line Plot", "Bar Chart", "Run Comparer", "Parallel Coordinates Plot", "Weave"} <= kinds
    recall = [panel["config"] for panel in sections[1]["panels"]]
    assert [panel["metrics"] for panel in recall] == [[f"val/recall@{k}"] for k in (1, 5, 10, 100)]
    assert {panel["groupBy"] for panel in recall} == {"choice.value.tower"}
    assert "wandb login" in done.stderr


def test_with_an_account_it_is_created(monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Any] = []

    monkeypatch.setattr(dashboard, "logged_in", lambda: True)
    monkeypatch.setattr(ws.Workspace, "save", lambda self: saved.append(self))
    monkeypatch.setattr(
        ws.Workspace, "url", property(lambda self: f"https://wandb.example/{self.entity}/{self.project}")
    )
    address = dashboard.create("mine", "somebody")
    (made,) = saved
    assert (made.entity, made.project) == ("somebody", "mine")
    assert address == "https://wandb.example/somebody/mine"

    def refuse(self: Any) -> None:  # noqa: ANN401
        raise wandb.Error("no such project")

    monkeypatch.setattr(ws.Workspace, "save", refuse)
    with pytest.raises(UserError, match="W&B does not take the dashboard: no such project"):
        dashboard.create("mine", "somebody")


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(UserError, match=r"pip install -e \"\.\[dashboard\]\""):
        dashboard.workspace("", "mine")
