"""Runs that are killed at a chosen moment, within this process."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from training import state

from two_tower.callbacks.checkpoint import LastCheckpoint

TIMED = {"seconds", "hybrid_seconds", "validation/seconds", "train/triplets_per_second", "doctor/seconds"}


def untimed(values: Mapping[str, Any]) -> dict[str, Any]:
    """What does not depend on the machine."""
    return {name: value for name, value in values.items() if name not in TIMED}


def assert_same_weights(*runs: Path) -> None:
    """In both checkpoints of two runs, to the bit."""
    for name in ("best", "last"):
        one, two = (state(run, name) for run in runs)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one), name


class Killed(BaseException):
    """Not an Exception: nothing may catch it on the way, as with a killed process."""


@contextmanager
def killed_after(hook: str, when: Callable[[Any], bool]) -> Iterator[None]:
    """What is trained inside must die after this hook of `LastCheckpoint`, once ``when(trainer)`` is true."""
    original = getattr(LastCheckpoint, hook)

    def last_act(self: LastCheckpoint, trainer: Any, *args: Any) -> None:  # noqa: ANN401
        original(self, trainer, *args)
        if when(trainer):
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LastCheckpoint, hook, last_act)
        with pytest.raises(Killed):
            yield
