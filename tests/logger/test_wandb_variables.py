"""W&B's own variables: nonsense in one is a sentence before anything is trained, an unwritable folder loses nothing."""

import json
import os
from pathlib import Path
from unittest.mock import Mock

import pytest
from conftest import configure

wandb = pytest.importorskip("wandb", reason="needs pip install -e '.[wandb]'")

from wandb_files import wandb_runs  # noqa: E402

from two_tower.cache import _said  # noqa: E402
from two_tower.errors import UserError  # noqa: E402
from two_tower.logger.wandb import WandbLogger  # noqa: E402
from two_tower.run import Run  # noqa: E402
from two_tower.train import train  # noqa: E402


@pytest.fixture(autouse=True)
def _no_settings_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B reads its variables once in a process."""
    for name in [*os.environ]:
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    wandb.teardown()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WANDB_MODE", "nonsense"), ("WANDB_SILENT", "maybe"), ("WANDB_BASE_URL", "notaurl"),
        ("WANDB_BASE_URL", "ftp://example.org"), ("WANDB_CONSOLE", "loud"), ("WANDB_QUIET", "rather"),
        ("WANDB_PROJECT", "a/b"), ("WANDB_RUN_ID", "a/b:c"), ("WANDB_INIT_TIMEOUT", "soon"),
    ],
)  # fmt: skip
def test_nonsense_is_told_before_training(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError) as raised:
        train(configure(collection, tmp_path / "run", "logger=wandb", "trainer.max_epochs=1"))
    sentence = str(raised.value)
    assert variable in sentence
    assert value in sentence
    assert "\n" not in sentence
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("variable", "value"), [("WANDB_MODE", "disabled"), ("WANDB_DISABLED", "true")])
def test_a_wish_that_is_not_heeded_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    WandbLogger(Run(tmp_path))
    assert any("use logger=csv" in each for each in _said)


def test_where_it_cannot_start_the_run_is_not_lost(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = PermissionError("Unable to write to W&B's folder")
    config = configure(collection, tmp_path / "run", "logger=wandb", "trainer.max_epochs=1", "tower.dim=4")
    with monkeypatch.context() as patch:
        patch.setattr(wandb, "init", Mock(side_effect=error))
        with pytest.raises(UserError, match=r"W&B cannot start a run \(Unable to write"):
            train(config)
    assert train(config)["epochs"] == 1
    (run,) = wandb_runs(tmp_path / "run")
    assert run.exit_code == 0


@pytest.mark.parametrize("variable", ["WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"])
def test_a_folder_that_cannot_be_made_loses_nothing(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(variable, str(tmp_path / "file" / "below"))
    keys = ["logger=wandb", "logger.artifacts=true", "trainer.max_epochs=1", "tower.dim=4"]
    config, lost = configure(collection, tmp_path / "run", *keys), ""
    try:
        train(config)
    except (UserError, OSError) as error:  # what `exit_statuses` makes a sentence of
        lost = str(error) or "None"
    assert "None" not in lost
    if lost:  # what was trained is there
        monkeypatch.delenv(variable)
        wandb.teardown()
        train(config)
    assert json.loads((tmp_path / "run" / "results.json").read_text())["epochs"] == 1
