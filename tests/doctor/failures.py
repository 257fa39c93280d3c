"""What is asserted of each failure; the two files that import it run side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from doctor.cases import FAILURES, SMALL, TOWERS, Case

Run = Callable[..., dict[str, Any]]


def names(tower: str, only_healed: bool = False) -> list[str]:
    """The failures that apply to a kind of tower."""
    return [name for name, case in FAILURES.items() if tower in case.towers and (case.heals or not only_healed)]


def overrides(case: Case, tower: str) -> list[str]:
    """All overrides of the run."""
    return [*([] if case.own_tower else TOWERS[tower]), *case.overrides]


def named(run: Run, name: str, tower: str) -> dict[str, Any]:
    """Inject a failure; the doctor must have named it first, in its list and in time, within 50 steps."""
    case = FAILURES[name]
    for number in range(_tries(case)):
        findings = run([*SMALL, *overrides(case, tower)], f"run-{number}")["findings"]
        if findings and findings[0]["id"] == case.id:
            break
    assert findings, "the doctor found nothing"
    first = findings[0]
    assert first["id"] == case.id, findings
    assert first["step"] == min(f["step"] for f in findings)
    assert first["step"] <= 50
    assert all(first[key] for key in ("evidence", "cause", "remedy"))
    return first


def healed(run: Run, name: str, tower: str) -> None:
    """Inject a failure, then run again with what the doctor suggested: nothing may be wrong any more."""
    case = FAILURES[name]
    remedy = named(run, name, tower)["remedy"].split()
    assert all("=" in override for override in remedy), remedy
    for number in range(_tries(case)):
        again = run([*SMALL, *_without(overrides(case, tower), remedy), *remedy], f"healed-{number}")
        if again["healthy"]:
            break
    assert again["healthy"], again["findings"]
    assert case.id not in {f["id"] for f in again["findings"]}


def _tries(case: Case) -> int:
    """Where other work takes the cores, steps and batches are late whatever is done: only waits get another try."""
    return 3 if case.id == "data_bound" else 1


def _without(given: list[str], remedy: list[str]) -> list[str]:
    """The overrides that a new choice for their group leaves: the keys of the old one are not the new one's."""
    chosen = {override.partition("=")[0] for override in remedy if "." not in override.partition("=")[0]}
    return [o for o in given if o.partition("=")[0].partition(".")[0] not in chosen]
