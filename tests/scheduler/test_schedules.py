"""Learning rates at exact steps, resume, and the sentences for wrong settings."""

from __future__ import annotations

import inspect
import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import nn

from two_tower.errors import UserError
from two_tower.optimizer.adam import Adam
from two_tower.scheduler import Scheduler, WarmupDecay
from two_tower.scheduler import Cosine
from two_tower.scheduler import Linear
from two_tower.scheduler import NoScheduler
from two_tower.scheduler import Plateau

CONF = Path(__file__).parents[2] / "conf" / "scheduler"
CLASSES: dict[str, type[Scheduler]] = {
    "none": NoScheduler,
    "plateau": Plateau,
    "cosine": Cosine,
    "linear": Linear,
}


def optimizer_with(*rates: float) -> torch.optim.SGD:
    return torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in rates])


def rates_of(optimizer: torch.optim.Optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


def run(optimizer: torch.optim.Optimizer, scheduler: Any, steps: int) -> list[list[float]]:  # noqa: ANN401
    """The groups' rates at each of the steps."""
    found = []
    for _ in range(steps):
        found.append(rates_of(optimizer))
        optimizer.step()
        scheduler.step()
    return found


def test_linear_at_exact_steps() -> None:
    optimizer = optimizer_with(0.8)
    built = Linear(warmup=0.3, floor=0.0).build(optimizer, 10)
    assert built["interval"] == "step"
    found = [rates[0] for rates in run(optimizer, built["scheduler"], 12)]
    rise, fall = [0.2, 0.4, 0.6], [0.8 * (7 - k) / 7 for k in range(7)]
    assert found == pytest.approx([*rise, *fall, 0.0, 0.0])


def test_cosine_at_exact_steps() -> None:
    optimizer = optimizer_with(1.0)
    built = Cosine(warmup=0.2, floor=0.1).build(optimizer, 10)
    assert built["interval"] == "step"
    found = [rates[0] for rates in run(optimizer, built["scheduler"], 12)]
    fall = [0.1 + 0.9 * (1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)]
    assert found == pytest.approx([1 / 3, 2 / 3, *fall, 0.1, 0.1])
    assert found[6] == pytest.approx(0.55)  # half way


@pytest.mark.parametrize("scheduler_class", [Cosine, Linear])
def test_each_group_keeps_its_own_rate(scheduler_class: type[WarmupDecay]) -> None:
    optimizer = Adam(
        [{"params": [nn.Parameter(torch.zeros(2, 2))], "word_table": w} for w in (True, False)],
        lr=0.01,
        embedding_lr_scale=5,
    )
    scheduler = scheduler_class().build(optimizer, 40)["scheduler"]
    for words, dense in run(optimizer, scheduler, 39):
        assert 0 < dense <= 0.01
        assert words == pytest.approx(5 * dense)


@given(
    scheduler_class=st.sampled_from([Cosine, Linear]),
    total=st.integers(1, 300),
    warmup=st.floats(0, 1),
    floor=st.floats(0, 1),
)
def test_rises_then_falls_between_floor_and_one(
    scheduler_class: type[WarmupDecay], total: int, warmup: float, floor: float
) -> None:
    schedule = scheduler_class(warmup, floor)
    factors = [schedule.factor(step, total) for step in range(total + 1)]
    rise = round(warmup * total)
    assert all(0 < f <= 1 for f in factors[:-1])
    assert factors[: rise + 1] == sorted(factors[: rise + 1])
    assert factors[rise:] == sorted(factors[rise:], reverse=True)
    if rise < total:
        assert factors[rise] == 1
        assert factors[total] == pytest.approx(floor, abs=1e-12)


@pytest.mark.parametrize("name", ["cosine", "linear"])
@pytest.mark.parametrize("total", [None, math.inf, -1])
def test_an_unknown_length_is_refused_with_the_remedy(name: str, total: float | None) -> None:
    message = f"scheduler={name} needs a known length: set trainer.max_steps or use scheduler=none|plateau"
    assert CLASSES[name].needs_length
    with pytest.raises(UserError) as caught:
        CLASSES[name]().build(optimizer_with(1.0), total)
    assert str(caught.value) == message


@pytest.mark.parametrize("scheduler_class", [Cosine, Linear])
def test_state_dict_continues_exactly(scheduler_class: type[WarmupDecay]) -> None:
    def build() -> tuple[torch.optim.Optimizer, Any]:
        optimizer = optimizer_with(0.1, 0.5)
        return optimizer, scheduler_class(0.2).build(optimizer, 20)["scheduler"]

    whole = run(*build(), 20)
    optimizer, scheduler = build()
    first = run(optimizer, scheduler, 7)
    file = io.BytesIO()
    torch.save((optimizer.state_dict(), scheduler.state_dict()), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    optimizer, scheduler = build()
    optimizer.load_state_dict(saved[0])
    scheduler.load_state_dict(saved[1])
    assert first + run(optimizer, scheduler, 13) == whole


def test_plateau_lowers_the_rates_down_to_their_floors() -> None:
    optimizer = optimizer_with(1.0, 5.0)
    built = Plateau(factor=0.5, patience=1, floor=0.2).build(optimizer, None)
    assert (built["monitor"], built["interval"]) == ("val/mrr@10", "epoch")
    found = []
    for metric in (0.5, 0.6, 0.6, 0.55, 0.7, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1):
        built["scheduler"].step(metric)
        found.append(optimizer.param_groups[0]["lr"])
        assert rates_of(optimizer)[1] == pytest.approx(5 * found[-1])
    assert found == pytest.approx([1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2])


def test_plateau_on_a_loss() -> None:
    optimizer = optimizer_with(1.0)
    built = Plateau(patience=0, monitor="val/loss", mode="min").build(optimizer, math.inf)
    assert built["monitor"] == "val/loss"
    for loss, rate in ((3.0, 1.0), (2.0, 1.0), (2.5, 0.5)):
        built["scheduler"].step(loss)
        assert rates_of(optimizer) == [rate]


def test_plateau_continues_exactly() -> None:
    optimizer = optimizer_with(1.0)
    scheduler = Plateau().build(optimizer, None)["scheduler"]
    for metric in (0.5, 0.4):
        scheduler.step(metric)
    file = io.BytesIO()
    torch.save(scheduler.state_dict(), file)
    file.seek(0)
    optimizer = optimizer_with(1.0)
    scheduler = Plateau().build(optimizer, None)["scheduler"]
    scheduler.load_state_dict(torch.load(file, weights_only=True))
    scheduler.step(0.4)  # the second without a new best
    assert rates_of(optimizer) == [0.5]


def test_none_leaves_the_optimizer_alone() -> None:
    optimizer = optimizer_with(0.3)
    scheduler: Scheduler = NoScheduler()
    assert scheduler.build(optimizer, None) is None
    assert rates_of(optimizer) == [0.3]
    assert not NoScheduler.needs_length
    assert not Plateau.needs_length


@pytest.mark.parametrize(
    ("scheduler_class", "option", "value"),
    [
        (Cosine, "warmup", 1.5),
        (Linear, "floor", -0.1),
        (Linear, "warmup", math.nan),
        (Plateau, "factor", 1.0),
        (Plateau, "patience", -1),
        (Plateau, "mode", "maximum"),
        (Plateau, "floor", 2.0),
    ],
)
def test_values_out_of_range_name_the_key(scheduler_class: type[Scheduler], option: str, value: object) -> None:
    with pytest.raises(UserError, match=f"scheduler.{option} is {value!r}: set it to"):
        scheduler_class(**{option: value})


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_config_builds_the_scheduler(name: str) -> None:
    text = (CONF / f"{name}.yaml").read_text()
    assert all("  # " in line for line in text.splitlines())
    config = OmegaConf.create(text)
    assert set(config) - {"_target_"} == set(inspect.signature(CLASSES[name]).parameters)
    scheduler = instantiate(config)
    assert type(scheduler) is CLASSES[name]
    scheduler.build(optimizer_with(0.1), 100)
