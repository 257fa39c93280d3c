"""Frozen word vectors do not change by one bit, and train exactly from the epoch that was asked for."""

import logging
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from killing import assert_same_weights, killed_after
from lightning.pytorch.callbacks import Callback
from test_train import STEPS_PER_EPOCH, fit
from torch import Tensor
from training import checkpoint

from two_tower.callbacks.unfreeze import Unfreeze
from two_tower.tower.base import WordTable

BASE = ["scheduler=none", "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "callbacks.last.every_seconds=0"]


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> list[list[Tensor]]:
    """The vectors of all word tables, at the start and after every step of the runs in the test."""
    seen: list[list[Tensor]] = []

    def note(self: Callback, trainer: Any, module: Any, *args: Any) -> None:  # noqa: ANN401
        tables = [m for m in module.modules() if isinstance(m, WordTable)]
        seen.append([table.vectors.detach().clone() for table in tables])

    def start(self: Unfreeze, trainer: Any, module: Any) -> None:  # noqa: ANN401
        note(self, trainer, module)
        original(self, trainer, module)

    original = Unfreeze.on_train_start
    monkeypatch.setattr(Unfreeze, "on_train_start", start)
    monkeypatch.setattr(Unfreeze, "on_train_batch_end", note)
    return seen


def changed(tables: list[list[Tensor]]) -> list[bool]:
    """For every step, whether it changed the vectors (of all tables; of some only is an error)."""
    steps = []
    for before, after in pairwise(tables):
        same = {torch.equal(one, two) for one, two in zip(before, after, strict=True)}
        assert len(same) == 1
        steps.append(same == {False})
    return steps


@pytest.mark.parametrize(
    ("optimizer", "tower", "shared", "freeze", "frozen"),
    [
        ("adagrad", "gru", True, "true", 2 * STEPS_PER_EPOCH),
        ("adagrad", "average", False, "2", STEPS_PER_EPOCH),
        ("adam", "gru", False, "2", STEPS_PER_EPOCH),
        ("adam", "average", True, "false", 0),
    ],
)
def test_vectors_train_with_clipping_from_their_epoch_on_and_before_it_not_by_one_bit(
    optimizer: str, tower: str, shared: bool, freeze: str, frozen: int, collection: Path, tmp_path: Path,
    tables: list[list[Tensor]],
) -> None:  # fmt: skip
    options = [f"optimizer={optimizer}", f"tower={tower}", f"shared_towers={shared}", f"embedding.freeze={freeze}"]
    more = ["optimizer.embedding_weight_decay=0.1", "trainer.gradient_clip_val=1"]
    assert fit(collection, tmp_path / "run", *BASE, *options, *more)["epochs"] == 2
    assert len(tables[0]) == (1 if shared else 2)
    assert changed(tables) == [False] * frozen + [True] * (2 * STEPS_PER_EPOCH - frozen)
    (found,) = checkpoint(tmp_path / "run")["optimizer_states"]
    with_state = {g["name"]: bool(found["state"].keys() & {*g["params"]}) for g in found["param_groups"]}
    assert with_state == {name: name.endswith("dense") or freeze != "true" for name in with_state}


# Before and after the unfreezing.
@pytest.mark.parametrize(
    ("optimizer", "hook", "step"), [("adagrad", "on_train_epoch_end", 5), ("adam", "on_train_batch_end", 6)]
)
def test_a_continued_run_ends_the_same(optimizer: str, hook: str, step: int, collection: Path, tmp_path: Path) -> None:
    options = [*BASE, f"optimizer={optimizer}", "embedding.freeze=2", "scheduler=linear", "shared_towers=false"]
    fit(collection, tmp_path / "whole", *options)
    with killed_after(hook, lambda trainer: trainer.global_step == step):
        fit(collection, tmp_path / "cut", *options)
    (kept,) = checkpoint(tmp_path / "cut")["optimizer_states"]
    fit(collection, tmp_path / "cut", *options)
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")
    whole, cut = (checkpoint(tmp_path / name)["optimizer_states"][0] for name in ("whole", "cut"))
    assert whole["param_groups"] == cut["param_groups"]
    torch.testing.assert_close(whole["state"], cut["state"], rtol=0, atol=0)
    names = [[(g["name"], g["params"], g["weight_decay"]) for g in each["param_groups"]] for each in (whole, kept)]
    assert names[0] == names[1]


def test_the_log_tells_of_every_group(collection: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = [
        "embedding.freeze=2", "optimizer.lr=0.01", "optimizer.embedding_lr_scale=3", "optimizer.weight_decay=0.02",
        "optimizer.embedding_weight_decay=0.5", "tower=gru", "embedding.dim=12", "scheduler=linear",
    ]  # fmt: skip
    with caplog.at_level(logging.INFO, "two_tower"):
        fit(collection, tmp_path / "run", *BASE, *options)
    words, dense = (m for m in caplog.messages if m.startswith("Parameter group"))
    said = r"learning rate 0\.03, weight decay 0\.5, [\d,]+ of them frozen until epoch 2, [\d,]+ of them frozen\.$"
    assert re.search(said, words)
    assert dense.endswith(" parameters, learning rate 0.01, weight decay 0.02.")
    assert caplog.messages.count("Epoch 2: the word vectors are trained from here on.") == 1


def test_an_epoch_that_never_comes_is_told(collection: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit(collection, tmp_path / "run", *BASE, "embedding.freeze=3")
    assert "embedding.freeze=3 is after the last epoch (trainer.max_epochs=2)" in caplog.text
