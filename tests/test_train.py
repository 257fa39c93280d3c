"""Training in process: every combination steps, a continued run equals an uninterrupted one."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
import torch
from conftest import configure
from killing import assert_same_weights, killed_after, untimed
from training import history, losses, state

from train import train
from two_tower.callbacks.speed import Speed
from two_tower.errors import UserError
from two_tower.loading import load_model
from two_tower.run import Run
from two_tower.tower.base import Tower, WordTable


def fit(folder: Path, run: Path, *overrides: str) -> dict[str, Any]:
    return train(configure(folder, run, *overrides))


STEPS_PER_EPOCH = 5
# Every pair of values of two columns occurs.
COMBINATIONS = [
    ("average", "in_batch", "cosine", "true"),
    ("average", "triplet", "dot", "false"),
    ("average", "in_batch", "euclidean", "false"),
    ("gru", "triplet", "cosine", "false"),
    ("gru", "in_batch", "dot", "true"),
    ("gru", "triplet", "euclidean", "true"),
]


@pytest.mark.parametrize(("tower", "loss", "similarity", "shared"), COMBINATIONS)
def test_every_combination_trains_with_clipping_on(
    tower: str, loss: str, similarity: str, shared: str, collection: Path, tmp_path: Path
) -> None:
    fit(
        collection, tmp_path / "run",
        f"tower={tower}", f"loss={loss}", f"similarity={similarity}", f"shared_towers={shared}",
        "trainer.gradient_clip_val=0.5", "trainer.max_epochs=2", "scheduler=none", "trainer.log_every_n_steps=1",
    )  # fmt: skip
    logged = losses(tmp_path / "run")
    assert len(logged) == 2 * STEPS_PER_EPOCH
    assert logged[-1] < logged[0]
    model, _ = load_model(Run(tmp_path / "run"))
    assert model.shared == (shared == "true")
    if not model.shared:
        query, document = model.query_tower.words.vectors, model.document_tower.words.vectors
        assert not torch.equal(query, document)  # they started equal and each learnt its own side


def test_the_run_folder_holds_what_it_must(collection: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    results = fit(collection, run)
    for name in ("config.yaml", "environment.json", "results.json", "metrics.csv", "tokenizer.json", "run.trec"):
        assert (run / name).stat().st_size > 0, name
    assert (run / "checkpoints" / "best.ckpt").exists()
    assert (run / "checkpoints" / "last.ckpt").exists()
    assert "BM25" in (run / "report.md").read_text()
    stored = json.loads((run / "results.json").read_text())
    assert stored == results
    names = ["mrr", "mrr@10", "recall@1", "recall@5", "recall@10", "recall@100", "ndcg@10"]
    for prefix in ("val", "untrained", "bm25"):
        assert all(0 <= stored[f"{prefix}/{name}"] <= 1 for name in names)
    for key in ("train/loss", "train/triplets_per_second", "seconds", "epochs", "best_epoch"):
        assert stored[key] > 0
    torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    lines = (run / "run.trec").read_text().splitlines()
    assert len({line.split()[0] for line in lines}) == stored["queries"] == 40


def test_a_cpu_run_repeats_bit_for_bit(collection: Path, tmp_path: Path) -> None:
    def weights(run: Path, *overrides: str) -> dict[str, torch.Tensor]:
        fit(collection, run, *overrides)
        return state(run)

    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(one[k], two[k]) for k in one)
    other = weights(tmp_path / "three", "seed=1")
    assert not all(torch.equal(one[k], other[k]) for k in one)


def test_a_row_has_the_figures_of_its_own_step(collection: Path, tmp_path: Path) -> None:
    def rows(name: str, *overrides: str) -> dict[float, dict[str, float]]:
        fit(collection, tmp_path / name, "trainer.max_epochs=3", *overrides)
        return {row["step"]: row for row in history(tmp_path / name)}

    every, (stop, hook) = rows("every", "trainer.log_every_n_steps=1"), (11, "on_train_batch_end")

    def ended(self: Speed, trainer: Any, *_: object) -> None:  # noqa: ANN401
        trainer.should_stop = trainer.global_step == stop

    with patch.object(Speed, hook, ended):
        some = rows("some", "trainer.log_every_n_steps=4")
    assert list(some) == [3, 7, 10]
    assert all(every[step].items() <= some[step].items() for step in some)


@pytest.mark.parametrize(
    ("tower", "scheduler", "stop_after"),
    [
        ("average", "plateau", 3),
        ("average", "linear", 5),  # after an epoch's last step, before its validation
        ("gru", "cosine", 12),
        ("average", "plateau", "epoch 1"),  # just after the checkpoint at an epoch's end
    ],
)
def test_a_continued_run_equals_an_uninterrupted_one(
    tower: str, scheduler: str, stop_after: int | str, collection: Path, tmp_path: Path
) -> None:
    options = [
        f"tower={tower}", f"scheduler={scheduler}", "trainer.max_epochs=3", "negatives=random",
        "callbacks.last.every_seconds=0", *(["tower.layers=2", "tower.dropout=0.2"] if tower == "gru" else []),
        *(["scheduler.patience=0"] if scheduler == "plateau" else []),
    ]  # fmt: skip
    whole = fit(collection, tmp_path / "whole", *options)

    if isinstance(stop_after, str):
        with killed_after("on_train_epoch_end", lambda trainer: stop_after == f"epoch {trainer.current_epoch + 1}"):
            fit(collection, tmp_path / "cut", *options)
    else:
        with killed_after("on_train_batch_end", lambda trainer: trainer.global_step == stop_after):
            fit(collection, tmp_path / "cut", *options)
    assert not (tmp_path / "cut" / "results.json").exists()
    continued = fit(collection, tmp_path / "cut", *options)
    assert untimed(continued) == untimed(whole)
    runs = tmp_path / "whole", tmp_path / "cut"
    assert_same_weights(*runs)
    first, second = ([row.split(",")[:2] for row in (run / "metrics.csv").read_text().splitlines()] for run in runs)
    assert first == second


def test_a_complete_run_is_left_alone_and_another_configuration_refused(collection: Path, tmp_path: Path) -> None:
    first = fit(collection, tmp_path / "run")
    stamp = (tmp_path / "run" / "checkpoints" / "best.ckpt").stat().st_mtime_ns
    assert fit(collection, tmp_path / "run") == first
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").stat().st_mtime_ns == stamp
    with pytest.raises(UserError, match=r"another configuration \(seed: 0 → 5\)"):
        fit(collection, tmp_path / "run", "seed=5")


def test_separate_towers_start_equal(collection: Path, tmp_path: Path) -> None:
    one = fit(collection, tmp_path / "one", "trainer.max_steps=1")
    two = fit(collection, tmp_path / "two", "trainer.max_steps=1", "shared_towers=false")
    assert one["untrained/mrr"] == two["untrained/mrr"]


def test_a_tower_may_call_its_table_anything(collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its width is kept with the checkpoint."""

    class Mine(Tower):
        def __init__(self, words: WordTable, dim: int) -> None:
            super().__init__(dim)
            self.table = words

        def forward(self, tokens: Any) -> torch.Tensor:  # noqa: ANN401
            return self.table.pool(tokens)

    module = ModuleType("two_tower.tower.mine")
    module.__dict__["Mine"] = Mine
    Mine.__module__ = module.__name__
    monkeypatch.setitem(sys.modules, module.__name__, module)
    config = configure(collection, tmp_path / "run", "trainer.max_steps=2")
    train({**config, "tower": {"_target_": "two_tower.tower.mine.Mine", "dim": 16}})
    model, _ = load_model(Run(tmp_path / "run"))
    assert model.query_tower.table.vectors.shape[1] == 16


def test_triplet_with_random_negatives_leaves_the_margin(collection: Path, tmp_path: Path) -> None:
    results = fit(collection, tmp_path / "run", "loss=triplet", "negatives=random", "tower=gru", "trainer.max_epochs=4")
    assert results["train/loss"] < 0.2
