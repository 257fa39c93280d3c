"""Frozen word vectors do not change by one bit, and train exactly from the epoch that was asked for."""

from __future__ import annotations

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

from two_tower.callbacks.unfreeze import Unfreeze
from two_tower.config.check import choices
from two_tower.tower.base import WordTable

BASE = ["scheduler=none", "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "callbacks.last.every_seconds=0"]


def last(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


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


@pytest.mark.parametrize(("freeze", "first_step"), [("false", 0), ("1", 0), ("3", 10), ("true", 15)])
def test_vectors_train_from_their_epoch_on(
    freeze: str, first_step: int, collection: Path, tmp_path: Path, tables: list[list[Tensor]]
) -> None:
    fit(collection, tmp_path / "run", *BASE, f"embedding.freeze={freeze}", "trainer.max_epochs=3")
    assert changed(tables) == [False] * first_step + [True] * (3 * STEPS_PER_EPOCH - first_step)


@pytest.mark.parametrize("optimizer", choices("optimizer"))
@pytest.mark.parametrize("freeze", ["2", "true"])
def test_every_optimizer_trains_with_clipping_and_leaves_frozen_vectors_alone(
    optimizer: str, freeze: str, collection: Path, tmp_path: Path, tables: list[list[Tensor]]
) -> None:
    options = [f"optimizer={optimizer}", f"embedding.freeze={freeze}", "trainer.gradient_clip_val=1"]
    results = fit(collection, tmp_path / "run", *BASE, *options, "optimizer.embedding_weight_decay=0.1")
    assert results["epochs"] == 2
    assert changed(tables) == [False] * STEPS_PER_EPOCH + [freeze == "2"] * STEPS_PER_EPOCH


@pytest.mark.parametrize("tower", ["average", "gru"])
@pytest.mark.parametrize("shared", ["true", "false"])
def test_every_table_of_every_tower_is_frozen(
    tower: str, shared: str, collection: Path, tmp_path: Path, tables: list[list[Tensor]]
) -> None:
    options = [f"tower={tower}", f"shared_towers={shared}", "embedding.freeze=2"]
    fit(collection, tmp_path / "run", *BASE, *options)
    assert len(tables[0]) == (1 if shared == "true" else 2)
    assert changed(tables) == [False] * STEPS_PER_EPOCH + [True] * STEPS_PER_EPOCH


# Before, just at, and after the unfreezing.
@pytest.mark.parametrize(
    ("optimizer", "hook", "step"),
    [("adam", "on_train_batch_end", 3), ("adagrad", "on_train_epoch_end", 5), ("adam", "on_train_batch_end", 6)],
)
def test_an_interrupted_run_continues_with_its_groups_and_ends_the_same(
    optimizer: str, hook: str, step: int, collection: Path, tmp_path: Path
) -> None:
    options = [*BASE, f"optimizer={optimizer}", "embedding.freeze=2", "scheduler=linear", "shared_towers=false"]
    fit(collection, tmp_path / "whole", *options)
    with killed_after(hook, lambda trainer: trainer.global_step == step):
        fit(collection, tmp_path / "cut", *options)
    saved = last(tmp_path / "cut")
    assert saved["global_step"] == step
    fit(collection, tmp_path / "cut", *options)
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")
    whole, cut = last(tmp_path / "whole"), last(tmp_path / "cut")
    groups = [checkpoint["optimizer_states"][0]["param_groups"] for checkpoint in (whole, saved, cut)]
    names = [[(g["name"], g["params"], g["weight_decay"]) for g in some] for some in groups]
    assert names[0] == names[1] == names[2]
    assert groups[0] == groups[2]
    states = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (whole, cut)]
    assert states[0].keys() == states[1].keys()
    for row, state in states[0].items():
        assert all(torch.equal(torch.as_tensor(state[k]), torch.as_tensor(states[1][row][k])) for k in state)


def test_a_frozen_table_has_no_gradient_and_no_state(collection: Path, tmp_path: Path) -> None:
    fit(collection, tmp_path / "run", *BASE, "embedding.freeze=true", "tower=gru", "trainer.max_epochs=1")
    (optimizer,) = last(tmp_path / "run")["optimizer_states"]
    groups = {group["name"]: {*group["params"]} for group in optimizer["param_groups"]}
    assert not groups["shared/words"] & optimizer["state"].keys()
    assert groups["shared/dense"] <= optimizer["state"].keys()


def test_the_log_shows_every_group_and_when_it_is_unfrozen(
    collection: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = [
        "embedding.freeze=2", "optimizer.lr=0.01", "optimizer.embedding_lr_scale=3", "optimizer.weight_decay=0.02",
        "optimizer.embedding_weight_decay=0.5", "tower=gru", "embedding.dim=12", "scheduler=linear",
    ]  # fmt: skip
    with caplog.at_level(logging.INFO, "two_tower"):
        fit(collection, tmp_path / "run", *BASE, *options)
    shown = [m for m in caplog.messages if m.startswith("Parameter group")]
    assert len(shown) == 2
    words = next(m for m in shown if "shared/words" in m)
    found = re.fullmatch(
        r"Parameter group shared/words: ([\d,]+) parameters, learning rate 0\.03, weight decay 0\.5, "
        r"([\d,]+) of them frozen until epoch 2, ([\d,]+) of them frozen\.",
        words,
    )
    assert found is not None, words
    total, vectors, weights = (int(number.replace(",", "")) for number in found.groups())
    assert vectors == 12 * weights  # a recurrent tower never trains its token weights
    assert total == vectors + weights
    dense = next(m for m in shown if "shared/dense" in m)
    assert re.search(r"parameters, learning rate 0\.01, weight decay 0\.02\.$", dense)
    assert caplog.messages.count("Epoch 2: the word vectors are trained from here on.") == 1


def test_an_epoch_that_never_comes_is_told(
    collection: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, tables: list[list[Tensor]]
) -> None:
    fit(collection, tmp_path / "run", *BASE, "embedding.freeze=3")
    assert "embedding.freeze=3 is after the last epoch (trainer.max_epochs=2)" in caplog.text
    assert not any(changed(tables))
