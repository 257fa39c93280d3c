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
from two_tower.scheduler import Cosine, Linear, NoScheduler, Plateau, Scheduler, WarmupDecay

CONF = Path(__file__).parents[1] / "conf" / "scheduler"
CLASSES: dict[str, type[Scheduler]] = {"none": NoScheduler, "plateau": Plateau, "cosine": Cosine, "linear": Linear}


def optimizer_with(*rates: float) -> torch.optim.SGD:
    return torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in rates])


def rates_of(optimizer: torch.optim.Optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


def run(optimizer: torch.optim.Optimizer, scheduler: Any, steps: int) -> list[list[float]]:  # noqa: ANN401
    """The groups' rates at each of the steps."""
    rates = []
    for _ in range(steps):
        rates.append(rates_of(optimizer))
        optimizer.step()
        scheduler.step()
    return rates


def saved(state: Any) -> Any:  # noqa: ANN401
    """A state as it comes back from a checkpoint."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


LINEAR = [0.25, 0.5, 0.75, *((7 - k) / 7 for k in range(7)), 0.0, 0.0]
COSINE = [1 / 3, 2 / 3, *(0.1 + 0.9 * (1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)), 0.1, 0.1]


@pytest.mark.parametrize(("schedule", "factors"), [(Linear(0.3, 0.0), LINEAR), (Cosine(0.2, 0.1), COSINE)])
def test_rates_at_exact_steps_for_each_group(schedule: WarmupDecay, factors: list[float]) -> None:
    optimizer = optimizer_with(0.8, 4.0)
    built = schedule.build(optimizer, 10)
    assert built["interval"] == "step"
    dense, words = zip(*run(optimizer, built["scheduler"], 12), strict=True)
    assert dense == pytest.approx([0.8 * f for f in factors])
    assert words == pytest.approx([4.0 * f for f in factors])


@given(st.sampled_from([Cosine, Linear]), st.integers(1, 300), st.floats(0, 1), st.floats(0, 1))
def test_rises_then_falls_between_floor_and_one(
    decay: type[WarmupDecay], total: int, warmup: float, floor: float
) -> None:
    schedule = decay(warmup, floor)
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
    assert CLASSES[name].needs_length
    with pytest.raises(UserError, match=rf"^scheduler={name} .*trainer\.max_steps or use scheduler=none\|plateau"):
        CLASSES[name]().build(optimizer_with(1.0), total)


@pytest.mark.parametrize("decay", [Cosine, Linear])
def test_state_dict_continues_exactly(decay: type[WarmupDecay]) -> None:
    def build() -> tuple[torch.optim.Optimizer, Any]:
        optimizer = optimizer_with(0.1, 0.5)
        return optimizer, decay(0.2).build(optimizer, 20)["scheduler"]

    whole = run(*build(), 20)
    optimizer, scheduler = build()
    first = run(optimizer, scheduler, 7)
    states = saved((optimizer.state_dict(), scheduler.state_dict()))
    optimizer, scheduler = build()
    optimizer.load_state_dict(states[0])
    scheduler.load_state_dict(states[1])
    assert first + run(optimizer, scheduler, 13) == whole


def test_plateau_lowers_the_rates_down_to_their_floors() -> None:
    optimizer = optimizer_with(1.0, 5.0)
    built = Plateau(factor=0.5, patience=1, floor=0.2).build(optimizer, None)
    assert (built["monitor"], built["interval"]) == ("val/mrr@10", "epoch")
    rates = []
    for metric in (0.5, 0.6, 0.6, 0.55, 0.7, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1):
        built["scheduler"].step(metric)
        rates.append(optimizer.param_groups[0]["lr"])
        assert rates_of(optimizer)[1] == pytest.approx(5 * rates[-1])
    assert rates == pytest.approx([1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2])


def test_plateau_on_a_loss() -> None:
    optimizer = optimizer_with(1.0)
    built = Plateau(patience=0, monitor="val/loss", mode="min").build(optimizer, math.inf)
    assert built["monitor"] == "val/loss"
    for loss, rate in ((3.0, 1.0), (2.0, 1.0), (2.5, 0.5)):
        built["scheduler"].step(loss)
        assert rates_of(optimizer) == [rate]


def test_plateau_continues_exactly() -> None:
    scheduler = Plateau().build(optimizer_with(1.0), None)["scheduler"]
    for metric in (0.5, 0.4):
        scheduler.step(metric)
    optimizer = optimizer_with(1.0)
    continued = Plateau().build(optimizer, None)["scheduler"]
    continued.load_state_dict(saved(scheduler.state_dict()))
    continued.step(0.4)  # the second without a new best
    assert rates_of(optimizer) == [0.5]


@pytest.mark.parametrize(
    ("scheduler", "option", "value"),
    [
        (Cosine, "warmup", 1.5), (Linear, "floor", -0.1), (Linear, "warmup", math.nan), (Plateau, "factor", 1.0),
        (Plateau, "patience", -1), (Plateau, "mode", "maximum"), (Plateau, "floor", 2.0),
    ],
)  # fmt: skip
def test_values_out_of_range_name_the_key(scheduler: type[Scheduler], option: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{option}={value} must be"):
        scheduler(**{option: value})


@pytest.mark.parametrize("name", CLASSES)
def test_config_builds_the_scheduler(name: str) -> None:
    config = OmegaConf.load(CONF / f"{name}.yaml")
    parameters = inspect.signature(CLASSES[name]).parameters
    assert {key: config[key] for key in config if key != "_target_"} == {k: p.default for k, p in parameters.items()}
    scheduler, optimizer = instantiate(config), optimizer_with(0.3)
    assert type(scheduler) is CLASSES[name]
    assert (scheduler.build(optimizer, 100) is None) == (name == "none")
    assert scheduler.needs_length == (name in ("cosine", "linear"))
