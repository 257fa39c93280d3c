"""Failures injected into small real runs: the doctor names each, its advice heals it, and healthy runs are healthy."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from doctor.cases import FAILURES, PRETRAINED, SMALL, TOWERS, configured, doctor_of, make_data, without

Run = Callable[[list[str]], dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """``run(overrides)``: ``doctor.json`` of a training. Many remedies bring the same healthy run: it is made once."""
    paths, runs = make_data(tmp_path_factory.mktemp("cases")), dict[str, dict[str, Any]]()

    def examined(overrides: list[str]) -> dict[str, Any]:
        key = json.dumps(configured(overrides, paths), sort_keys=True)
        if key not in runs:
            runs[key] = doctor_of(overrides, paths, tmp_path_factory.mktemp("runs") / "run")
        return runs[key]

    return examined


# Two more fail as others do, on another tower: only the table of docs/doctor.md has them.
TWINS = {"random negatives, small margin", "100 pairs by heart, GRU"}


@pytest.mark.parametrize("name", [name for name in FAILURES if name not in TWINS])
def test_it_is_named_first_in_time_and_the_suggested_override_heals_it(run: Run, name: str) -> None:
    case = FAILURES[name]
    overrides = case.all_overrides(case.towers[0])
    findings = run([*overrides, f"trainer.max_steps={max(3, case.step + 1)}"])["findings"]
    (first, *_) = findings
    assert first["id"] == case.id, findings
    assert first["step"] == min(f["step"] for f in findings)
    assert first["step"] <= case.step
    assert all(first[key] for key in ("evidence", "cause", "remedy"))
    if not case.heals:
        return
    remedy = first["remedy"].split()
    assert all("=" in override for override in remedy), remedy
    # What shows at once is gone at once: half of the steps will do.
    shorter = ["trainer.max_steps=21"] if case.step <= 2 else []
    again = run([*without(overrides, remedy), *remedy, *shorter])
    assert again["healthy"], again["findings"]
    assert case.id not in {f["id"] for f in again["findings"]}


HEALTHY = {
    "average": TOWERS["average"],
    "average, BM25 negatives": [*TOWERS["average"], "negatives=bm25"],
    "average, triplet in batch, another seed": [*TOWERS["average"], "loss=triplet", "seed=1"],
    "average, pre-trained": [*TOWERS["average"], *PRETRAINED, "embedding.path={vectors}"],
    "average, separate towers, dot product": [*TOWERS["average"], "shared_towers=false", "similarity=dot"],
    "GRU": TOWERS["gru"],
    "GRU, triplet in batch": [*TOWERS["gru"], "loss=triplet"],
    "LSTM": [*TOWERS["gru"], "tower=lstm"],
    "RNN": [*TOWERS["gru"], "tower=rnn"],
}  # fmt: skip


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_has_no_warning(run: Run, name: str) -> None:
    document = run([*SMALL, *HEALTHY[name]])
    assert document["healthy"], document["findings"]
    assert document["step"] >= 40
    assert document["figures"]["effective_rank"] > 1
