"""Failures injected into small real runs of the gru tower: the doctor names each, and its advice heals it."""

from __future__ import annotations

import pytest
from doctor.failures import Run, healed, named, names

HEALED = names("gru", only_healed=True)


@pytest.mark.parametrize("name", [name for name in names("gru") if name not in HEALED])
def test_it_is_named_first(run: Run, name: str) -> None:
    named(run, name, "gru")


@pytest.mark.parametrize("name", HEALED)
def test_it_is_named_first_and_the_suggested_override_heals_it(run: Run, name: str) -> None:
    healed(run, name, "gru")
