"""Every loss trains with every source of negatives, by the keys that a user would write."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from test_train import configure, fit

from two_tower.assemble import load_model, try_parts
from two_tower.callbacks.checkpoint import LastCheckpoint
from two_tower.config import build
from two_tower.config.compose import explain
from two_tower.config.groups import CONF, choices
from two_tower.errors import UserError
from two_tower.loss.in_batch import InBatchLoss
from two_tower.loss.sum import SumLoss
from two_tower.optimizer._groups import parameter_groups
from two_tower.run import Run

SHORT = ["trainer.max_steps=2", "trainer.log_every_n_steps=1", "scheduler=none", "validation.bm25=false"]

LOSSES = {
    # margin_mse wants scores that this collection has not: see test_margin_mse.py.
    **{choice: [f"loss={choice}"] for choice in choices("loss") if choice != "margin_mse"},
    "distillation": ["loss=distillation", "teacher=sentence_transformer", "teacher.model={teacher}"],
    "learned": ["loss.learn_temperature=true"],
    "hardest": ["loss=triplet", "loss.select=hardest"],
    "semi_hard": ["loss=triplet", "loss.select=semi_hard"],
    "soft": ["loss=triplet", "loss.softness=0.1"],
    "short triplet": ["loss=matryoshka", "loss@loss.loss=triplet", "loss.dims=[4]"],
}

# As the configurations have them, but so that the two steps see what they are named after.
NEGATIVES = {
    **{choice: [f"negatives={choice}"] for choice in choices("negatives")},
    "ann": ["negatives=ann", "negatives.first_epoch=1"],
    "mixed": ["negatives=mixed", "negatives.weights.bm25=1"],
    "all": [
        "negatives=mixed", "+negatives@negatives.given=given", "+negatives@negatives.ann=ann",
        "negatives.weights.bm25=1", "negatives.ann.first_epoch=1", "negatives.count=3",
        "negatives.random.distribution=log_frequency",
    ],
}  # fmt: skip


def history(run: Path) -> list[dict[str, float]]:
    """The logged values of each step."""
    with (run / "metrics.csv").open() as file:
        rows = [{k.removeprefix("train/"): float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return [row for row in rows if "loss" in row]


def vectors(run: Path) -> torch.Tensor:
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint["state_dict"]["query_tower.words.vectors"]


@pytest.fixture(scope="module")
def untrained(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    run = tmp_path_factory.mktemp("untrained") / "run"
    fit(collection, run, *SHORT, "optimizer.lr=1e-30")
    return vectors(run)


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("loss", LOSSES)
def test_two_steps(
    loss: str, negatives: str, collection: Path, tmp_path: Path, untrained: torch.Tensor, transformer_folder: Path
) -> None:
    if loss == "distillation":
        pytest.importorskip("sentence_transformers", reason="needs pip install -e '.[teacher]'")
    chosen = [override.replace("{teacher}", str(transformer_folder)) for override in LOSSES[loss]]
    fit(collection, tmp_path / "run", *SHORT, *chosen, *NEGATIVES[negatives])
    steps = history(tmp_path / "run")
    assert len(steps) == 2
    for step in steps:
        assert all(math.isfinite(value) for value in step.values())
        assert step["loss"] > 0
        assert step["idle_queries"] == 0
        assert {"positive_similarity", "negative_similarity", "accuracy"} <= {*step}
    moved = (vectors(tmp_path / "run") - untrained).abs()
    assert 1e-3 < moved.max() < 0.1
    load_model(Run(tmp_path / "run"))


@pytest.mark.parametrize(
    ("negatives", "share", "candidates"),
    [("in_batch", None, 31), ("given", "null", 63), ("given", "true", 63), ("given", "false", 1),
     ("random", "null", 63), ("random", "true", 63), ("random", "false", 1), ("bm25", "null", 63), ("bm25", "false", 1),
     ("ann", "null", 63), ("ann", "false", 1), ("mixed", "null", 63), ("all", "null", 127), ("all", "false", 3)],
)  # fmt: skip
def test_the_loss_sees_the_candidates_that_are_asked_for(
    negatives: str, share: str | None, candidates: int, collection: Path, tmp_path: Path
) -> None:
    """Each query of the collection has one positive; only a random or given negative may be another's."""
    extra = [f"negatives.in_batch_negatives={share}"] if share else []
    fit(collection, tmp_path / "run", *SHORT, *NEGATIVES[negatives], *extra)
    chance = history(tmp_path / "run")[0]["chance_loss"]
    assert math.log(1 + 0.9 * candidates) < chance <= math.log(1 + candidates) + 1e-6


def test_a_temperature_is_learned_and_continued_but_no_part_of_the_model(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["loss.learn_temperature=true", "optimizer.lr=0.02", "trainer.log_every_n_steps=1"]
    fit(collection, tmp_path / "whole", *options)

    class Stop(BaseException):
        pass

    def stop(self: LastCheckpoint, *args: Any) -> None:  # noqa: ANN401
        original(self, *args)
        raise Stop

    original = LastCheckpoint.on_train_epoch_end
    with monkeypatch.context() as patch:
        patch.setattr(LastCheckpoint, "on_train_epoch_end", stop)
        with pytest.raises(Stop):
            fit(collection, tmp_path / "cut", *options)
    fit(collection, tmp_path / "cut", *options)
    temperatures = [[step["temperature"] for step in history(tmp_path / name)] for name in ("whole", "cut")]
    assert temperatures[0] == temperatures[1]
    assert temperatures[0][0] == pytest.approx(0.05)
    assert len(set(temperatures[0])) == len(temperatures[0])  # it moves at every step
    state = torch.load(tmp_path / "cut" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert state["loss.log_temperature"].exp().item() != pytest.approx(0.05, rel=0.01)
    model, _ = load_model(Run(tmp_path / "cut"))
    assert not any(name.startswith("loss") for name, _ in model.named_parameters())


def test_the_temperature_is_a_dense_parameter() -> None:
    loss = InBatchLoss(learn_temperature=True)
    (group,) = parameter_groups({"loss": loss})
    assert (group["name"], group["word_table"], group["params"]) == ("loss/dense", False, [loss.log_temperature])
    assert not parameter_groups({"loss": InBatchLoss()})


def test_a_learned_temperature_comes_back_from_its_bound() -> None:
    """It is the parameter that is bounded: a bound on what is read from it would leave it no gradient."""
    loss = InBatchLoss(learn_temperature=True)
    with torch.no_grad():
        loss.log_temperature.fill_(-50)
    scores = torch.tensor([[0.5, 0.6], [0.6, 0.5]])  # wrong answers: a higher temperature would lower the loss
    output = loss(scores, ~torch.eye(2, dtype=torch.bool))
    assert output.diagnostics["temperature"].item() == pytest.approx(0.01)
    output.loss.backward()
    assert loss.log_temperature.grad < 0
    assert loss.log_temperature.item() == pytest.approx(math.log(0.01))


@pytest.mark.parametrize(
    "overrides",
    [
        ["loss=sum", "~loss@loss.triplet", "~loss.weights.triplet", "+loss@loss.hard=triplet",
         "loss.hard.select=hardest", "+loss.weights.hard=0.5"],
        ["loss=matryoshka", "loss@loss.loss=sum", "~loss@loss.loss.triplet", "~loss.loss.weights.triplet",
         "+loss@loss.loss.hard=triplet", "loss.loss.hard.select=hardest", "+loss.loss.weights.hard=0.5"],
    ],
)  # fmt: skip
def test_a_sum_of_ones_own_choice(overrides: list[str], tmp_path: Path) -> None:
    loss = build("loss", configure(tmp_path, tmp_path / "run", *overrides)["loss"])
    inner = loss if isinstance(loss, SumLoss) else loss.loss
    assert inner.weights == {"in_batch": 1.0, "hard": 0.5}
    assert inner.losses["hard"].select == "hardest"
    assert loss.in_batch_negatives


MISTAKES: dict[str, tuple[list[str], str]] = {
    "a key": (["loss=sum", "+loss.triplet.margn=1"], r"loss\.triplet\.margn does not exist; did you mean 'margin'"),
    "a type": (["loss=sum", "loss.triplet.margin=wide"], r"loss\.triplet\.margin=wide has the wrong type"),
    "a choice": (["loss=sum", "loss.triplet.select=hard"], r"loss\.triplet\.select=hard .* did you mean 'hardest'"),
    "a deep key": (
        ["loss=matryoshka", "loss@loss.loss=sum", "+loss.loss.triplet.margn=1"], r"loss\.loss\.triplet\.margn does not",
    ),
    "a weight's name": (["loss=sum", "+loss.weights.tripelt=1"], r"loss\.weights\.tripelt .* did you mean 'triplet'"),
    "a weight": (["loss=sum", "loss.weights.triplet=x"], r"loss\.weights\.triplet=x must be a number"),
    "a name": (["loss=sum", "+loss.wieghts=3"], r"loss\.wieghts is neither a loss nor weights"),
    "lengths": (["loss=matryoshka", "loss.dims=[8,32]"], r"loss\.dims=\[8, 32\] must be from 1 to 16"),
    "no list": (["loss=matryoshka", "loss.dims=8"], r"loss\.dims=8 has the wrong type: it must be a list or null"),
    "the wrong way round": (["loss=sum", "loss@loss.triplet=matryoshka"], r"put the sum inside"),
}  # fmt: skip


@pytest.mark.parametrize(("overrides", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_inside_are_named_before_data_is_read(overrides: list[str], message: str, tmp_path: Path) -> None:
    def parts(*overrides: str) -> dict[str, Any]:
        config = configure(tmp_path / "absent", tmp_path / "run", *overrides)
        try_parts(config)
        return config

    assert parts(overrides[0])["loss"]["_target_"]  # negative control: without the mistake it is fine
    with pytest.raises(UserError, match=message):
        parts(*overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loss=sum", "loss.triplet.margn=1"], "loss.triplet.margn does not exist; did you mean 'loss.triplet.margin'"),
        (["loss=matryoshka", "loss@loss.loss=tripelt"], "loss=tripelt does not exist; did you mean 'triplet'"),
    ],
)
def test_what_hydra_refuses_inside_is_explained(overrides: list[str], message: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(Exception) as caught:  # noqa: PT011
        compose("train", overrides)
    assert explain(caught.value, "train", overrides).startswith(message)
