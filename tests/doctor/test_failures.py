"""Failures injected into small real runs: the doctor names each, its advice heals it, and healthy runs are healthy."""

from __future__ import annotations

import pytest
from doctor.cases import FAILURES, PRETRAINED, SMALL, TOWERS, without
from doctor.conftest import Run

# Each failure on one kind of tower; confusion.py takes all. What shows in the steps may depend on it.
RECURRENT = {"margin out of reach", "relevant passages not masked", "a millionth as learning rate", "diverged"}
CHOSEN = {name: "gru" if name in RECURRENT else case.towers[0] for name, case in FAILURES.items()}

# What is seen before the first step stays the first finding whatever follows.
SEEN_AT_ONCE = {
    "embedding_mismatch", "unknown_words", "truncated", "misaligned_pairs", "batch_dependent", "leakage",
}  # fmt: skip


@pytest.mark.parametrize(("name", "tower"), CHOSEN.items())
def test_it_is_named_first_in_time_and_the_suggested_override_heals_it(run: Run, name: str, tower: str) -> None:
    case = FAILURES[name]
    at_once = case.id in SEEN_AT_ONCE
    findings = run([*case.all_overrides(tower), *(["trainer.max_steps=3"] if at_once else [])])["findings"]
    assert findings, "the doctor found nothing"
    first = findings[0]
    assert first["id"] == case.id, findings
    assert first["step"] == min(f["step"] for f in findings)
    assert first["step"] <= (0 if at_once else 50)
    assert all(first[key] for key in ("evidence", "cause", "remedy"))
    if not case.heals:
        return
    remedy = first["remedy"].split()
    assert all("=" in override for override in remedy), remedy
    again = run([*without(case.all_overrides(tower), remedy), *remedy])
    assert again["healthy"], again["findings"]
    assert case.id not in {f["id"] for f in again["findings"]}


HEALTHY = {
    "average": TOWERS["average"],
    "average, another seed": [*TOWERS["average"], "seed=1"],
    "average, BM25 negatives": [*TOWERS["average"], "negatives=bm25"],
    "average, triplet in batch": [*TOWERS["average"], "loss=triplet"],
    "average, pre-trained": [*TOWERS["average"], *PRETRAINED, "embedding.path={vectors}"],
    "average, separate towers, dot product": [*TOWERS["average"], "shared_towers=false", "similarity=dot"],
    "GRU": TOWERS["gru"],
    "GRU, triplet in batch": [*TOWERS["gru"], "loss=triplet"],
    "LSTM": ["tower=lstm", "tower.dim=48"],
    "RNN": ["tower=rnn", "tower.dim=48"],
}  # fmt: skip


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_has_no_warning(run: Run, name: str) -> None:
    document = run([*SMALL, *HEALTHY[name]])
    assert document["healthy"], document["findings"]
    assert document["step"] >= 40
    assert document["figures"]["effective_rank"] > 1
