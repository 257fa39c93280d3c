"""best.ckpt holds the weights of the best check, the earliest of equals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import STEPS_PER_EPOCH, fit

# Nothing is learnt, so all checks are equal.
STILL = ["optimizer.lr=1e-30", "scheduler=none"]


def best(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)


@pytest.mark.parametrize(("options", "step"), [([], STEPS_PER_EPOCH), (["validation.every_n_steps=3"], 3)])
def test_the_earliest_of_equal_checks_is_kept(
    options: list[str], step: int, collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = fit(collection, tmp_path / "run", *STILL, *options)
    assert best(tmp_path / "run")["global_step"] == results["best_step"] == step
    assert results["best_epoch"] == 1
    assert sum(line.endswith("*") for line in capsys.readouterr().out.splitlines()) == 1
