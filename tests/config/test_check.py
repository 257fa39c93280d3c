"""What a configuration may hold."""

import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from omegaconf import OmegaConf

from two_tower.config.build import RANGES, check, matches
from two_tower.errors import UserError

FITTING: list[tuple[Any, list[Any]]] = [
    (int, [0, -3]), (float, [0, 1.5, float("inf")]), (bool, [True, False]), (str, ["", "a"]),
    (str | None, ["a", None]), (int | float | None, [1, 1.5, None]), (Path, ["a/b"]), (str | Path, ["a/b"]),
    (list[str], [[], ["a", "b"]]), (Sequence[float], [[], [1, 2.5]]),
    (tuple[float, float], [[1, 2.5]]), (tuple[int, ...], [[], [1, 2, 3]]),
    (Literal["mean", "max", 16], ["max", 16]), (Literal[1] | None, [1, None]),
    (dict[str, int], [{"a": 1}]), (Mapping[str, int] | None, [{"a": 1}, None]),
    (Any, [None, 1, "a", [], {}]), (object, [None, 1, "a", [], {}]),
]  # fmt: skip
WRONG: list[tuple[Any, list[Any]]] = [
    (int, [1.0, True, "1", None, [1], {"a": 1}]), (float, ["1", True, None, float("nan"), [1.0]]),
    (bool, [0, 1, "true", None]), (str, [1, None, True, ["a"]]), (str | None, [1, []]), (Path, [1, None]),
    (list[str], ["ab", [1], None, {"a": "b"}]), (Sequence[float], ["12", ["a"], 1.0]),
    (tuple[float, float], [[1.0], [1, 2, 3], ["a", "b"]]),
    (Literal["mean", "max", 16], ["men", "16", None]), (Literal[1], [True]),
    (dict[str, int], [[1], "a", 1]), (types.SimpleNamespace, ["a", 1, {"a": 1}]),
]  # fmt: skip


@pytest.mark.parametrize(("fit", "cases"), [(True, FITTING), (False, WRONG)])
def test_values_that_fit_a_type(fit: bool, cases: list[tuple[Any, list[Any]]]) -> None:
    for hint, values in cases:
        assert [matches(value, hint) for value in values] == [fit] * len(values), hint


class Part:
    def __init__(self, given: object, dim: int, name: str = "", inner: types.SimpleNamespace | None = None) -> None:
        """``given`` comes from the program."""


class Open:
    def __init__(self, dim: int, **others: int) -> None:
        """Takes any key."""


@pytest.fixture(autouse=True)
def _parts(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("parts")
    module.__dict__.update(Part=Part, Open=Open)
    monkeypatch.setitem(sys.modules, "parts", module)


TOP = {"seed": int, "run_dir": str | None}


def checked(config: dict[str, Any], extra: Mapping[str, Mapping[str, Any]] = {}) -> dict[str, Any]:
    return check(OmegaConf.create(config), extra)


def judge(config: dict[str, Any], message: str | None, extra: Mapping[str, Mapping[str, Any]] = {}) -> None:
    """The configuration is fine if the message is None, else refused with it."""
    if message is None:
        assert checked(config, extra) == config
    else:
        with pytest.raises(UserError, match=message):
            checked(config, extra)


def test_a_good_configuration_becomes_plain() -> None:
    config = {"seed": 3, "run_dir": 2024, "tower": {"_target_": "parts.Part", "dim": "${seed}", "name": 7}}
    plain = checked(config, {"": TOP})
    assert plain == {"seed": 3, "run_dir": "2024", "tower": {"_target_": "parts.Part", "dim": 3, "name": "7"}}
    assert type(plain["tower"]) is dict


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"tower": {"_target_": "parts.Part", "dim": 3, "nam": ""}},
         r"tower\.nam does not exist; did you mean 'name'\? \(valid: dim, inner, name\)"),
        ({"tower": {"_target_": "parts.Part", "dim": "x"}}, r"tower\.dim=x has the wrong type: .* a whole number"),
        ({"tower": {"_target_": "parts.Part", "dim": {"a": 1}}}, r"tower\.dim=.* has the wrong type"),
        ({"tower": {"_target_": "parts.Open", "dim": 1, "x": 1, "y": 0.5}}, None),
        ({"tower": {"_target_": "parts.Part", "dim": 1, "inner": {"_target_": "parts.Part", "dim": "x"}}},
         r"tower\.inner\.dim=x"),
        ({"tower": {"_target_": "parts.Prt", "dim": 1}}, r"tower\._target_=parts\.Prt cannot be imported"),
        ({"tower": {"_target_": "prts.Part", "dim": 1}}, r"tower\._target_=prts\.Part cannot be imported"),
        ({"tower": {"dim": 1}}, "tower names no component: choose one with tower=CHOICE"),
        ({"tower": {"_target_": "parts.Part", "dim": "???"}}, r"tower\.dim is not set and has no default"),
        ({"seed": 1.5}, "seed=1.5 has the wrong type"),
        ({"sed": 1}, r"sed does not exist; did you mean 'seed'\?"),
        ({"foo": {"bar": 1}}, "foo does not exist"),
        ({"loss": {"_target_": "parts.Part", "dim": "${tower.dim}"}, "tower": {"_target_": "parts.Part", "dim": "x"}},
         r"^tower\.dim=x"),
    ],
)  # fmt: skip
def test_mistakes_are_named_where_they_were_made(config: dict[str, Any], message: str | None) -> None:
    judge(config, message, {"": TOP})


def test_extra_keys_have_types_too() -> None:
    config = {"data": {"_target_": "parts.Part", "dim": 1, "batch_size": 2}}
    judge(config, r"data\.batch_size does not exist")
    judge(config, None, {"data": {"batch_size": int}})
    judge(config, r"data\.batch_size=2 has the wrong type: it must be true or false", {"data": {"batch_size": bool}})


@pytest.mark.parametrize("key", RANGES)
def test_both_ends_of_a_range_are_in_it(key: str) -> None:
    group, _, name = key.rpartition(".")
    smallest, largest = RANGES[key]
    for value in (smallest, largest, smallest - 1, largest + 1):
        inside = smallest <= value <= largest
        judge({group: {name: value}} if group else {name: value}, None if inside else f"^{key}={value} must be ")


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        *(({"max_epochs": epochs, "max_steps": steps}, None) for epochs, steps in ((3, -1), (-1, 5), (None, -1))),
        ({}, None),
        ({"max_epochs": 0, "max_steps": -1}, "max_epochs=0 trains nothing"),
        ({"max_epochs": 3, "max_steps": 0}, "max_steps=0 trains nothing"),
        ({"max_epochs": -1, "max_steps": -1}, "max_epochs=-1 never ends"),
    ],
)
def test_training_has_an_end(trainer: dict[str, Any], message: str | None) -> None:
    judge({"trainer": trainer}, message)
