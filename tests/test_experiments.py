"""Every preset runs."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import composed, word, write_collection
from test_train import fit

from two_tower.config.saved import CONF, choices
from two_tower.embedding import pretrained
from two_tower.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A collection with few more training pairs than `debug_overfit` needs, and a package with vectors of its words."""
    path = tmp_path_factory.mktemp("few")
    data = path / "few_vectors" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").touch()
    np.save(data / "glove_6B_50d_emb.npy", np.random.default_rng(0).normal(size=(60, 50)).astype(np.float32))
    pq.write_table(pa.table({"index": [word(i) for i in range(60)]}), data / "glove_6B_index.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path)
        patch.setattr(pretrained, "GLOVE_PACKAGE", "few_vectors")  # reading the real one takes a second each time
        yield write_collection(path / "beir", documents=51)


@pytest.mark.parametrize("choice", choices("experiment"))
def test_a_preset_runs_for_two_steps(choice: str, folder: Path, tmp_path: Path) -> None:
    steps = ["trainer.max_steps=2", "trainer.max_epochs=-1", "data.batch_size=16", "tower.dim=32"]
    try:
        results = fit(folder, tmp_path / "run", f"experiment={choice}", *steps)
    except UserError as error:
        if "pip install" not in str(error):
            raise
        pytest.skip(str(error))
    assert results["best_step"] == 2
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results
    assert (tmp_path / "run" / "fit-profile.txt").exists() == (choice == "debug_profile")


def test_every_preset_is_documented() -> None:
    pages = (CONF.parent / "docs" / "experiments.md").read_text(encoding="utf-8")
    assert [choice for choice in choices("experiment") if f"`{choice}`" not in pages] == []


def test_overfitting_32_pairs_knows_them_by_heart(folder: Path, tmp_path: Path) -> None:
    results = fit(folder, tmp_path / "run", "experiment=debug_overfit", "trainer.max_epochs=25", "tower.dim=64")
    assert composed("data=beir", "data.path=x", "experiment=debug_overfit")["data"]["max_examples"] == 32
    assert results["best_step"] <= 25  # all are in one batch
    assert results["train/loss"] < 0.05
