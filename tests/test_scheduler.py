"""Learning rates at exact steps, resume, and the sentences for wrong settings."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from training import reloaded

from two_tower.errors import UserError
from two_tower.scheduler import Cosine, Linear, Plateau, Scheduler, WarmupDecay


def optimizer_with(*rates: float) -> torch.optim.SGD:
    return torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in rates])


def rates_of(optimizer: torch.optim.Optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


def run(optimizer: torch.optim.Optimizer, scheduler: Any, steps: int, *metric: float) -> list[list[float]]:  # noqa: ANN401
    """The groups' rates at each of the steps."""
    rates = []
    for _ in range(steps):
        rates.append(rates_of(optimizer))
        optimizer.step()
        scheduler.step(*metric)
    return rates


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
def test_rises_then_falls_from_1_to_floor(decay: type[WarmupDecay], total: int, warmup: float, floor: float) -> None:
    schedule = decay(warmup, floor)
    factors = [schedule.factor(step, total) for step in range(total + 1)]
    rise = round(warmup * total)
    assert all(0 < f <= 1 for f in factors[:-1])
    assert factors[: rise + 1] == sorted(factors[: rise + 1])
    assert factors[rise:] == sorted(factors[rise:], reverse=True)
    if rise < total:
        assert factors[rise] == 1
        assert factors[total] == pytest.approx(floor, abs=1e-12)


@pytest.mark.parametrize(("decay", "total"), [(Cosine, None), (Linear, math.inf), (Linear, -1)])
def test_an_unknown_length_is_refused_with_the_remedy(decay: type[WarmupDecay], total: float | None) -> None:
    name = decay.__name__.lower()
    with pytest.raises(UserError, match=rf"^scheduler={name} .*trainer\.max_steps or use scheduler=none\|plateau"):
        decay().build(optimizer_with(1.0), total)


@pytest.mark.parametrize(("schedule", "metric"), [(Cosine(0.2), []), (Linear(0.2), []), (Plateau(), [0.5])])
def test_state_dict_continues_exactly(schedule: Scheduler, metric: list[float]) -> None:
    def build() -> tuple[torch.optim.Optimizer, Any]:
        optimizer = optimizer_with(0.1, 0.5)
        return optimizer, schedule.build(optimizer, 20)["scheduler"]

    whole = run(*build(), 20, *metric)
    assert len({*map(tuple, whole)}) > 5
    optimizer, scheduler = build()
    first = run(optimizer, scheduler, 8, *metric)
    states = reloaded((optimizer.state_dict(), scheduler.state_dict()))
    optimizer, scheduler = build()
    optimizer.load_state_dict(states[0])
    scheduler.load_state_dict(states[1])
    assert first + run(optimizer, scheduler, 12, *metric) == whole


@pytest.mark.parametrize("mode", ["max", "min"])
def test_plateau_lowers_the_rates_down_to_their_floors(mode: str) -> None:
    optimizer = optimizer_with(1.0, 5.0)
    built = Plateau(factor=0.5, patience=1, floor=0.2, monitor="val/x", mode=mode).build(optimizer, None)
    assert (built["monitor"], built["interval"]) == ("val/x", "epoch")
    rates = []
    for metric in (0.5, 0.6, 0.6, 0.55, 0.7, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1):
        built["scheduler"].step(metric if mode == "max" else 1 - metric)
        rates.append(optimizer.param_groups[0]["lr"])
        assert rates_of(optimizer)[1] == pytest.approx(5 * rates[-1])
    assert rates == pytest.approx([1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2])


@pytest.mark.parametrize(
    ("scheduler", "option", "value"),
    [
        (Linear, "floor", -0.1), (Linear, "warmup", math.nan), (Plateau, "factor", 1.0), (Plateau, "patience", -1),
        (Plateau, "mode", "maximum"),
    ],
)  # fmt: skip
def test_values_out_of_range_name_the_key(scheduler: type[Scheduler], option: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{option}={value} must be"):
        scheduler(**{option: value})
