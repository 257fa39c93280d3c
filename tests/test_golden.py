"""A seeded run whose losses are kept: a change that should change no number must leave them as they are.

If a change is meant to change them, write them anew and say so in the commit:

    WRITE_GOLDEN=1 python -m pytest tests/test_golden.py
"""

import json
import os
from pathlib import Path

import pytest
from conftest import ROOT, write_collection
from test_train import fit
from training import losses

GOLDEN = ROOT / "tests" / "golden" / "in_batch.json"

# Another instruction set (ATEN_CPU_CAPABILITY=default instead of AVX) moves the curve by 8e-7.
RELATIVE = 1e-5


def losses_of(folder: Path, run: Path, *overrides: str) -> list[float]:
    """The loss of every step of the default run on generated text."""
    fit(folder, run, "trainer.log_every_n_steps=1", "validation.bm25=false", *overrides)
    return losses(run)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_collection(tmp_path_factory.mktemp("golden") / "beir", documents=1200)


def test_fifty_steps_give_the_losses_that_are_kept(folder: Path, tmp_path: Path) -> None:
    found = losses_of(folder, tmp_path / "run", "trainer.max_steps=50")
    if os.environ.get("WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=0) + "\n", encoding="utf-8")
    kept = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert len(kept) == 50
    assert found == pytest.approx(kept, rel=RELATIVE)


def test_a_slightly_different_loss_is_noticed(folder: Path, tmp_path: Path) -> None:
    """Negative control; nothing but the loss acts on the first step."""
    found = losses_of(folder, tmp_path / "run", "trainer.max_steps=2", "loss.temperature=0.0501")
    assert found[0] != pytest.approx(json.loads(GOLDEN.read_text(encoding="utf-8"))[0], rel=10 * RELATIVE)
