"""Queries for passages that were learned from and for new ones: figures by plain loops, the same after training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killing import killed_after, untimed

from two_tower.evaluation import describe, evaluate_run
from two_tower.metrics import DEFAULT_METRICS, read_per_query
from two_tower.new_words import NewWords
from two_tower.run import Run
from two_tower.validation._groups import GROUPS

Fixture = Callable[..., Any]  # see conftest.py in this folder


@pytest.fixture
def keep_out(graded: Path, tmp_path: Path) -> tuple[set[str], list[str]]:
    """Some passages that are to be new, and the setting that keeps them out."""
    ids = {f"d{i}" for i in range(0, 120, 4)}  # the answers of q0, q12, q24 …; of q0 also d8, of q12 not d119
    (tmp_path / "unseen.txt").write_text("\n".join(ids))
    return ids, [f"data.unseen_ids={tmp_path / 'unseen.txt'}", "trainer.max_epochs=2", "tower.dim=16"]


def test_figures_are_those_of_plain_loops(
    fit: Fixture, by_loops: Fixture, tmp_path: Path, keep_out: tuple[set[str], list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    ids, settings = keep_out
    run = tmp_path / "run"
    results = fit(run, *settings)
    table = capsys.readouterr().out
    queries = [f"q{i}" for i in range(0, 120, 6)]
    unseen = [q for q in queries if int(q[1:]) % 12 == 0 and q != "q12"]
    seen = [q for q in queries if int(q[1:]) % 12]
    kept = read_per_query(run / "per_query.csv")
    for name in DEFAULT_METRICS:
        for group, own in (("seen", seen), ("unseen", unseen)):
            rows = [kept.ids.index(query) for query in own]
            for system, column in (("val", name), ("bm25", f"bm25/{name}")):
                assert results[f"{system}_{group}/{name}"] == pytest.approx(kept.values[column][rows].mean())
    rankings = by_loops(run, ids).rankings
    ranks = {query: rankings[query].index(f"d{query[1:]}") + 1 for query in unseen if query != "q0"}
    ranks["q0"] = min(rankings["q0"].index(right) + 1 for right in ("d0", "d8"))
    assert results["val_new/mrr"] == pytest.approx(np.mean([1 / rank for rank in ranks.values()]))
    assert results["new_documents"] == len(ids)
    assert f"{'  among new':<14}{len(ids):>11}" in table
    assert "| among new | 30 |" in (run / "report.md").read_text()
    kinds = {f"{system}_{group}" for system in ("val", "untrained", "bm25") for group in GROUPS}
    assert {key.partition("/")[0] for key in results} >= kinds
    signals = json.loads((run / "signals.json").read_text())["unseen"]
    names = {"seen": "val_seen", "unseen": "val_unseen", "bm25_seen": "bm25_seen", "bm25_unseen": "bm25_unseen"}
    assert {k: signals[k] for k in names} == pytest.approx({k: results[f"{v}/mrr@10"] for k, v in names.items()})


def test_evaluate_finds_the_groups_again(
    fit: Fixture, graded: Path, tmp_path: Path, keep_out: tuple[set[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(NewWords, "find", lambda *_: None)  # training does not know the words of new passages
    trained = fit(run, *keep_out[1])
    results = evaluate_run(run, None, "dev", hybrid=True)
    for group in GROUPS:
        for name in DEFAULT_METRICS:
            assert results[f"dense_{group}/{name}"] == pytest.approx(trained[f"val_{group}/{name}"], abs=1e-12)
            assert results[f"bm25_{group}/{name}"] == pytest.approx(trained[f"bm25_{group}/{name}"], abs=1e-12)
            assert 0 < results[f"hybrid_{group}/{name}/p_vs_bm25"] <= 1
    assert (results["learned_documents"], results["queries_seen"], results["queries_unseen"]) == (90, 10, 9)
    told = "\n".join(describe(results))
    assert "The run was trained on 90 of the 120 passages." in told
    assert "\namong new " in told

    lines = (graded / "corpus.jsonl").read_text().splitlines(keepends=True)
    other = tmp_path / "other"
    (other / "qrels").mkdir(parents=True)
    for name in ("queries.jsonl", "qrels/dev.tsv"):
        (other / name).write_text((graded / name).read_text())
    (other / "corpus.jsonl").write_text("".join(lines[i] for i in range(0, 120, 4)))
    elsewhere = evaluate_run(run, {"_target_": "two_tower.data.beir.Beir", "path": str(other)}, "dev")
    assert elsewhere["learned_documents"] == 0
    assert "queries_seen" not in elsewhere  # all are new: the figures are those of the whole

    Run(run).learned.unlink()  # a run of an older version
    assert "learned_documents" not in evaluate_run(run, None, "dev")


def test_a_run_that_was_killed_has_the_same_figures(
    graded: Path, whole: Fixture, tmp_path: Path, keep_out: tuple[set[str], list[str]], fit: Fixture
) -> None:
    settings = keep_out[1]
    expected = whole(*settings)[1]
    with killed_after("on_train_epoch_end", lambda trainer: trainer.current_epoch == 0):
        fit(tmp_path / "killed", *settings)
    assert untimed(fit(tmp_path / "killed", *settings)) == untimed(expected)
