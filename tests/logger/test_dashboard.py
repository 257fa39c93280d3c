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
from two_tower.logger import _dashboard as dashboard
from two_tower.logger.progress import Progress
from two_tower.logger.wandb import HISTOGRAMS, SAMPLES

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
    what = dashboard.shown([tmp_path / "run"])
    assert what == dashboard.Shown(ids=(run.id,))  # what is drawn of a project is what runs log by default
    drawn = [metric for metrics in what.curves.values() for metric in metrics]
    assert {*drawn, *what.baselines, *(f"{name}/values" for name in HISTOGRAMS)} <= logged
    assert f"{SAMPLES}/path" in logged
    assert {*what.baselines} <= run.summary.keys()
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


def write_run(folder: Path, id_: str, project: str = "mine", metrics: str = "[mrr, recall@3]") -> Path:
    """As much of a run folder as a dashboard looks at."""
    (folder / "wandb").mkdir(parents=True)
    logger = f"logger: {{project: {project}, entity: somebody}}"
    (folder / "config.yaml").write_text(f"{logger}\nvalidation: {{metrics: {metrics}, monitor: mrr}}\n")
    Progress(id_, 9, 9).write(folder / "wandb" / "run.txt")
    return folder


def test_of_runs_it_shows_what_they_log_and_only_them(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    write_run(sweep / "a", "aaaa")
    write_run(sweep / "b", "bbbb", metrics="[mrr, ndcg@10]")
    (sweep / "c").mkdir()
    (sweep / "c" / "config.yaml").write_text("logger: {}\n")  # without W&B
    done = run_command("two-tower", "dashboard", sweep, "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    section = json.loads(done.stdout)["section"]
    (condition,) = section["runSets"][0]["filters"]["filters"]
    assert (condition["key"]["name"], condition["value"]) == ("name", ["aaaa", "bbbb"])
    drawn = [
        panel["config"].get("metrics") for part in section["panelBankConfig"]["sections"] for panel in part["panels"]
    ]
    assert drawn[:3] == [["val/mrr"], ["val/ndcg@10"], ["val/recall@3"]]
    what = dashboard.shown([sweep])
    assert (what.project, what.entity) == ("mine", "somebody")
    assert dashboard.shown([sweep], "other", "else").project == "other"


def test_what_holds_no_such_run_is_told(tmp_path: Path) -> None:
    done = run_command("two-tower", "dashboard", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert "nowhere holds no run with logger=wandb" in done.stderr
    runs = [write_run(tmp_path / name, name, project=name) for name in ("one", "two")]
    with pytest.raises(UserError, match=r"in the W&B project one and .*two in two"):
        dashboard.shown(runs)


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_where_wandb_is_offline_nothing_is_created(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "logged_in", lambda: True)
    monkeypatch.setenv("WANDB_MODE", mode)
    assert dashboard.create(dashboard.Shown()) is None


def test_with_an_account_it_is_created(monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Any] = []

    monkeypatch.setattr(dashboard, "logged_in", lambda: True)
    monkeypatch.setattr(ws.Workspace, "save", lambda self: saved.append(self))
    monkeypatch.setattr(
        ws.Workspace, "url", property(lambda self: f"https://wandb.example/{self.entity}/{self.project}")
    )
    address = dashboard.create(dashboard.Shown("mine", "somebody"))
    (made,) = saved
    assert (made.entity, made.project) == ("somebody", "mine")
    assert address == "https://wandb.example/somebody/mine"

    def refuse(self: Any) -> None:  # noqa: ANN401
        raise wandb.Error("no such project")

    monkeypatch.setattr(ws.Workspace, "save", refuse)
    with pytest.raises(UserError, match="W&B does not take the dashboard: no such project"):
        dashboard.create(dashboard.Shown("mine", "somebody"))


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(UserError, match=r"pip install -e \"\.\[dashboard\]\""):
        dashboard.workspace(dashboard.Shown("mine"))
