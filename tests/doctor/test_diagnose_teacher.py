"""The doctor on runs that learn from a teacher."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import configure

from two_tower.doctor.base import Signals, Step, TeachingSignals, WordSignals
from two_tower.doctor.diagnose import diagnose
from two_tower.examine import examine
from two_tower.train import train

FITS = TeachingSignals(texts=30_000, passages=30_000, pieces=1.3, unread=0.001)


def told(signals: Signals) -> dict[str, str]:
    return {finding.id: f"{finding.evidence} {finding.remedy}" for finding in diagnose(signals)}


@pytest.mark.parametrize("more", [{"pieces": 3.4}, {"unread": 0.3}, {"pieces": 3.4, "unread": 0.3}])
def test_a_teacher_of_another_language(more: dict[str, float]) -> None:
    assert told(Signals(teaching=FITS)) == {}
    found = told(Signals(teaching=replace(FITS, **more)))["foreign_teacher"]
    assert f"{replace(FITS, **more).pieces:.1f} pieces" in found
    assert ("does not know 30%" in found) is ("unread" in more)
    assert "teacher.model=" in found


def test_few_texts_of_many() -> None:
    for texts, passages, few in ((800, 800, False), (800, 30_000, True), (5_000, 30_000, False), (0, 10, True)):
        found = told(Signals(teaching=replace(FITS, texts=texts, passages=passages)))
        assert ("few_taught" in found) is few
    assert "800 of 30,000" in told(Signals(teaching=replace(FITS, texts=800)))["few_taught"]


def test_a_pull_that_keeps_the_start() -> None:
    config = {"embedding": {"pull": 1000}}
    words, steps = WordSignals(True, False, 1.0, 0.5, 0.1, 0.01, 0.1), [Step(500, 1.0)]
    for own, held in ((None, False), (0.2, False), (0.001, True)):
        signals = Signals(config=config, words=replace(words, own=own), steps=steps)
        assert ("held_by_pull" in told(signals)) is held
    assert "0.1% of their vectors' length embedding.pull=1" in told(signals)["held_by_pull"].replace(
        "length.", "length"
    )


def test_a_run_measures_its_teacher(collection: Path, tmp_path: Path, teacher_folder: Path) -> None:
    """The teacher of the tests knows letters and hardly any word."""
    taught = ["teacher=sentence_transformer", f"teacher.model={teacher_folder}", "embedding=transformer"]
    taught += ["loss=distillation", "data.examples=passages", "embedding.pull=1", "teacher.sample=40"]
    train(configure(collection, tmp_path / "run", *taught))
    teaching = json.loads((tmp_path / "run" / "signals.json").read_text())["teaching"]
    assert (teaching["texts"], teaching["passages"], teaching["unread"]) == (40, 240, 0)
    assert teaching["pieces"] > 3
    assert 0 < json.loads((tmp_path / "run" / "signals.json").read_text())["words"]["own"] < 1
    assert {"foreign_teacher", "few_taught"} <= {f.id for f in examine(tmp_path / "run").findings}
