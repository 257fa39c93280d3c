"""What a finished run takes to be used again."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_train import fit


@pytest.fixture(scope="module")
def run(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("loading") / "run"
    fit(collection, path, "trainer.max_steps=1")
    return path


def test_what_trains_is_not_imported(run: Path) -> None:
    """It takes longer than all the rest of a short command."""
    for command in (["embed", f"run={run}"], ["search", str(run), "question"]):
        timed = [sys.executable, "-X", "importtime", "-m", "two_tower", *command]
        done = subprocess.run(timed, capture_output=True, text=True, check=True)
        imported = {*re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE)}
        assert {"torch", "two_tower.loading"} <= imported
        assert not imported & {"lightning", "torchmetrics", "transformers", "two_tower.model"}
