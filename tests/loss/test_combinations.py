"""Every loss trains with every source of negatives, by the keys that a user would write."""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from conftest import configure
from killing import killed_after
from test_train import fit
from training import UniformityLoss, checkpoint, history, losses, of_scores, state

from train import train
from two_tower.assemble import make_data
from two_tower.config.saved import choices
from two_tower.loading import load_model
from two_tower.loss.in_batch import InBatchLoss
from two_tower.run import Run

SHORT = ["trainer.max_steps=2", "trainer.log_every_n_steps=1", "scheduler=none", "validation.bm25=false"]
ALL = [
    "negatives=mixed", "+negatives@negatives.given=given", "+negatives@negatives.ann=ann", "negatives.weights.bm25=1",
    "negatives.ann.first_epoch=1", "negatives.count=3", "negatives.random.distribution=log_frequency",
]  # fmt: skip
# margin_mse needs scores that this collection has not: see test_margin_mse.py. The others are parts of "all".
ELSEWHERE = {"margin_mse", "ann", "bm25", "mixed", "random"}


def others(group: str, listed: dict[str, list[str]]) -> dict[str, list[str]]:
    """What is listed, and every further choice of a group with its defaults: a new one is trained too."""
    return listed | {c: [f"{group}={c}"] for c in choices(group) if c not in ELSEWHERE | {*listed}}


FACTORS: dict[str, dict[str, list[str]]] = {
    "loss": others("loss", {
        "in_batch": ["loss.learn_temperature=true"],
        "triplet": ["loss=triplet", "loss.select=hardest"],
        "sum": ["loss=sum", "loss.triplet.softness=0.1"],
        "matryoshka": ["loss=matryoshka", "loss@loss.loss=triplet", "loss.loss.select=semi_hard", "loss.dims=[4]"],
        "distillation": ["loss=distillation", "teacher=sentence_transformer", "teacher.model={teacher}"],
    }),
    "negatives": others("negatives", {"in_batch": [], "given": ["negatives=given"], "all": ALL}),
    "tower": {"average": [], "gru": ["tower=gru"]},
    "similarity": {name: [f"similarity={name}"] for name in ("cosine", "dot", "euclidean")},
    "memory": {"without": [], "with": ["cross_batch_memory=50", "cross_batch_start=0"]},
}  # fmt: skip


def pairs(row: tuple[str, ...]) -> set[tuple[int, str, int, str]]:
    return {(i, row[i], j, row[j]) for i, j in itertools.combinations(range(len(row)), 2)}


def covering_array() -> list[tuple[str, ...]]:
    """Rows with a value for each factor, so that any two values of different factors meet in one of them."""
    rows = list(itertools.product(*FACTORS.values()))
    missing, chosen = set().union(*map(pairs, rows)), list[tuple[str, ...]]()
    while missing:
        chosen.append(max(rows, key=lambda row: len(pairs(row) & missing)))
        missing -= pairs(chosen[-1])
    return chosen


ROWS = covering_array()


def test_the_array_covers_every_pair_in_few_rows() -> None:
    assert set().union(*map(pairs, ROWS)) == set().union(*map(pairs, itertools.product(*FACTORS.values())))
    assert len(ROWS) <= 20


@pytest.mark.parametrize("row", ROWS, ids="-".join)
def test_two_steps(row: tuple[str, ...], collection: Path, tmp_path: Path, transformer_folder: Path) -> None:
    if "distillation" in row:
        pytest.importorskip("sentence_transformers", reason="needs pip install -e '.[teacher]'")
    overrides = [o for values, value in zip(FACTORS.values(), row, strict=True) for o in values[value]]
    overrides = [override.replace("{teacher}", str(transformer_folder)) for override in overrides]
    fit(collection, tmp_path / "run", *SHORT, *overrides)
    steps = history(tmp_path / "run")
    assert len(steps) == 2
    for step in steps:
        assert all(math.isfinite(value) for value in step.values())
        assert step["loss"] > 0
        assert step["idle_queries"] == 0
        assert {"positive_similarity", "negative_similarity", "accuracy"} <= {*step}
    (optimizer,) = checkpoint(tmp_path / "run")["optimizer_states"]
    assert all(each["step"] == 2 and each["exp_avg"].any() for each in optimizer["state"].values())
    load_model(Run(tmp_path / "run"))


@pytest.mark.parametrize(
    ("negatives", "in_batch", "count"),
    [("in_batch", None, 31), ("given", "true", 63), ("bm25", "false", 1), ("ann", "null", 63), ("all", "null", 127),
     ("all", "false", 3)],
)  # fmt: skip
def test_how_many_negatives(negatives: str, in_batch: str | None, count: int, collection: Path, tmp_path: Path) -> None:
    """Each query of the collection has one positive; only a random or given negative may be another's."""
    extra = [f"negatives.in_batch_negatives={in_batch}"] if in_batch else []
    overrides = [o for o in ALL if "first_epoch" not in o] if negatives == "all" else [f"negatives={negatives}"]
    batch = make_data(configure(collection, tmp_path, *overrides, *extra), tmp_path / "t.json").batches[0, 0]
    assert 0.9 * count < batch.negatives.sum(1).float().mean() <= count


def test_a_temperature_is_learned_and_continued_but_no_part_of_the_model(collection: Path, tmp_path: Path) -> None:
    options = [
        "loss.learn_temperature=true", "optimizer.lr=0.02", "trainer.log_every_n_steps=1", "trainer.max_epochs=1",
        "callbacks.last.every_seconds=0", "validation.bm25=false",
    ]  # fmt: skip
    fit(collection, tmp_path / "whole", *options)
    with killed_after("on_train_batch_end", lambda trainer: trainer.global_step == 3):
        fit(collection, tmp_path / "cut", *options)
    fit(collection, tmp_path / "cut", *options)
    temperatures = [[step["temperature"] for step in history(tmp_path / name)] for name in ("whole", "cut")]
    assert temperatures[0] == temperatures[1]
    assert temperatures[0][0] == pytest.approx(0.05)
    assert len(set(temperatures[0])) == len(temperatures[0])  # it moves at every step
    assert state(tmp_path / "cut")["loss.log_temperature"].exp().item() != pytest.approx(0.05, rel=0.01)
    model, _ = load_model(Run(tmp_path / "cut"))
    assert not any(name.startswith("loss") for name, _ in model.named_parameters())


def test_a_learned_temperature_comes_back_from_its_bound() -> None:
    """The parameter is clamped: a clamp of its value would leave it no gradient."""
    loss = InBatchLoss(learn_temperature=True)
    with torch.no_grad():
        loss.log_temperature.fill_(-50)
    output = loss(of_scores(torch.tensor([[0.5, 0.6], [0.6, 0.5]])))  # wrong: a higher temperature lowers the loss
    assert output.diagnostics["temperature"].item() == pytest.approx(0.01)
    output.loss.backward()
    assert loss.log_temperature.grad < 0
    assert loss.log_temperature.item() == pytest.approx(math.log(0.01))


def test_a_loss_on_vectors_trains_and_is_not_called_idle(collection: Path, tmp_path: Path) -> None:
    options = ["cross_batch_memory=50", "cross_batch_start=5", "trainer.max_epochs=4", "trainer.log_every_n_steps=1"]
    config = configure(collection, tmp_path / "run", *options, "optimizer.lr=0.01", "scheduler=none")
    train(config | {"loss": {"_target_": f"{UniformityLoss.__module__}.{UniformityLoss.__name__}"}})
    values = losses(tmp_path / "run")
    assert sum(values[-3:]) < sum(values[:3])
    signals = json.loads((tmp_path / "run" / "signals.json").read_text())
    assert signals["probes"]
    assert all(probe["active"] == 1 for probe in signals["probes"])
    found = json.loads((tmp_path / "run" / "doctor.json").read_text())["findings"]
    assert not {"easy_negatives", "no_gradient", "stuck_at_margin", "stuck_at_chance"} & {f["id"] for f in found}
