"""best.ckpt holds the weights of the best check, the earliest of equals."""

from pathlib import Path

import pytest
from test_train import fit
from training import checkpoint


def test_the_first_of_equals_is_kept(collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is learnt, so all checks are equal, also to the untrained model, which is none of them."""
    options = ["optimizer.lr=1e-30", "scheduler=none", "validation.every_n_steps=3"]
    results = fit(collection, tmp_path / "run", *options)
    assert checkpoint(tmp_path / "run", "best")["global_step"] == results["best_step"] == 3
    assert results["best_epoch"] == 1
    assert sum(line.endswith("*") for line in capsys.readouterr().out.splitlines()) == 1
