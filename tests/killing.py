"""Runs that are killed at a chosen moment, within this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from two_tower.callbacks.checkpoint import LastCheckpoint


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
