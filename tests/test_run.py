"""The run folder, its page and its verdict."""

from pathlib import Path

import numpy as np
import pytest

from two_tower.errors import UserError
from two_tower.report.results import verdict
from two_tower.run import Run


def test_a_folder_belongs_to_one_configuration(tmp_path: Path) -> None:
    config = {"seed": 0, "tower": {"dim": 8}, "run_dir": "a"}
    assert Run(tmp_path / "run").start(config)
    assert Run(tmp_path / "run").start({**config, "run_dir": "elsewhere"})  # a place is no difference
    with pytest.raises(UserError, match=r"\(tower.dim: 8 → 9\): choose another run_dir"):
        Run(tmp_path / "run").start({**config, "tower": {"dim": 9}})
    with pytest.raises(UserError, match=r"\(seed: 0 → 1 and 1 more\)"):
        Run(tmp_path / "run").start({**config, "seed": 1, "tower": {"dim": 9}})
    (tmp_path / "run" / "results.json").write_text("{}")
    assert not Run(tmp_path / "run").start(config)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        Run(tmp_path / "file" / "run").start({})


def test_what_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not the folder of a run"):
        Run.existing(tmp_path)
    (tmp_path / "config.yaml").write_text("seed: 0")
    with pytest.raises(UserError, match=r"has no checkpoint yet"):
        Run.existing(tmp_path)


def test_the_verdict_is_honest() -> None:
    good = {"val/mrr@10": 0.5, "untrained/mrr@10": 0.4, "bm25/mrr@10": 0.6, "best_epoch": 3}
    assert verdict(good, "mrr@10") == "Best epoch 3: mrr@10 0.500, untrained 0.400, BM25 0.600."
    bad = {**good, "val/mrr@10": 0.39}
    assert "training made search worse" in verdict(bad, "mrr@10")
    assert "no trained model" in verdict({"untrained/mrr@10": 0.4}, "mrr@10").lower()


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY"])
def test_what_was_learned_is_named_where_it_is_damaged(content: bytes, tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.read_learned() is None
    run.keep_learned(np.array([3, 1, 3], np.uint64))
    assert run.read_learned().tolist() == [1, 3]
    run.learned.write_bytes(content)
    with pytest.raises(UserError, match=r"learned\.npy is damaged"):
        run.read_learned()
