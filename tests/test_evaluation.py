"""A finished run on any collection: its figures against loops, and where the hybrid's weight comes from."""

import json
import shutil
import statistics
from pathlib import Path

import ir_measures
import numpy as np
import oracles
import pytest
from conftest import write_collection
from test_train import fit

from two_tower import evaluation
from two_tower.bm25 import BM25
from two_tower.data.base import Source
from two_tower.data.beir import Beir
from two_tower.encode import Encoder
from two_tower.errors import UserError
from two_tower.evaluation import describe, evaluate_run
from two_tower.metrics import DEFAULT_METRICS, read_per_query
from two_tower.metrics.significance import randomisation_test
from two_tower.run import Run

Scores = dict[str, dict[str, float]]  # of each query: document → score


def write_hard(folder: Path, documents: int) -> Path:
    """A collection of which towers and BM25 each answer half: one knows no plurals, the other knows nothing else."""
    write_collection(folder, documents)
    rows = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    passages = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    for i, row in enumerate(rows):
        plural = " ".join(f"{each}s" for each in row["text"].split())
        if i % 4 < 2:  # some passage has nearly nothing but the plurals
            passages[i - 1]["title"], passages[i - 1]["text"] = plural, plural
        else:
            row["text"] = plural
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in passages))
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hard(tmp_path_factory.mktemp("hard") / "beir", 240)


@pytest.fixture(scope="module")
def trained(hard: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    fit(hard, path, "trainer.max_epochs=6", "tower.dim=8")
    return path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def beir(folder: Path) -> dict[str, str]:
    return {"_target_": "two_tower.data.beir.Beir", "path": str(folder)}


def scores(
    run: Path, folder: Path, split: str, of: Source | None = None
) -> tuple[Scores, Scores, dict[str, dict[str, int]]]:
    """Scores of the towers and of BM25, and the judgements; each text encoded alone, by the words ``of`` a source."""
    source = Beir(str(folder))
    encoder = Encoder.of_collection(Run(run), of or source)
    rows = [row for batch in source.corpus() for row in batch.to_pylist()]
    passages = {row["id"]: f"{row['title']} {row['text']}" for row in rows}
    vectors = {name: encoder.documents([text])[0] for name, text in passages.items()}
    bm25 = BM25(list(passages.values()))
    dense, lexical = Scores(), Scores()
    for row in source.queries(split).to_pylist():
        vector = encoder.queries([row["text"]])[0]
        known = encoder.known([row["text"]])[0]  # without a known word all passages are equally near
        dense[row["id"]] = {name: float(vector @ other) for name, other in vectors.items() if known}
        found = bm25.scorer([row["text"]])(slice(0, 1), slice(0, len(passages)))[0].tolist()
        lexical[row["id"]] = {name: score for name, score in zip(passages, found, strict=True) if score > 0}
    grades: dict[str, dict[str, int]] = {}
    for row in source.qrels(split).to_pylist():
        grades.setdefault(row["query_id"], {})[row["document_id"]] = row["grade"]
    return dense, lexical, grades


def standardised(scores: dict[str, float], floor: float | None, depth: int = 100) -> dict[str, float]:
    best = {d: scores[d] for d in oracles.ranked(scores)[:depth]}
    values = list(best.values()) + ([floor] * (depth - len(best)) if floor is not None else [])
    if not values:
        return {}
    return {d: (score - min(values)) / statistics.pstdev(values) for d, score in best.items()}


def test_every_figure_is_the_definitions(run: Path, hard: Path) -> None:
    results = evaluate_run(run, beir(hard), "test", hybrid=True)
    weight = json.loads((run / "hybrid.json").read_text())["weight"]
    assert 0 < weight == results["fusion/weight"] < 1
    dense, lexical, grades = scores(run, hard, "test")
    values: dict[str, list[float]] = {"dense": [], "bm25": [], "hybrid": []}
    for query in grades:
        towers, words = standardised(dense[query], None), standardised(lexical[query], 0.0)
        sums = {d: weight * towers.get(d, 0) + (1 - weight) * words.get(d, 0) for d in towers | words}
        for system, each in (("dense", dense[query]), ("bm25", lexical[query]), ("hybrid", sums)):
            values[system].append(oracles.reciprocal_rank(oracles.ranked(each), grades[query], 10))
    for system, each in values.items():
        assert results[f"{system}/mrr@10"] == pytest.approx(statistics.mean(each), abs=1e-9), system
    for system, other in (("dense", "bm25"), ("hybrid", "bm25"), ("hybrid", "dense")):
        chance = randomisation_test(np.array(values[system]), np.array(values[other]))
        assert results[f"{system}/mrr@10/p_vs_{other}"] == pytest.approx(chance), system
    # A test of nothing if they were equal, or perfect.
    assert max(results["dense/mrr@10"], results["bm25/mrr@10"]) < results["hybrid/mrr@10"] < 1
    assert (results["documents"], results["queries"]) == (240, 40)

    lines = describe(results)
    assert lines[0].startswith("40 queries of 'test', each against all 240 passages")
    assert lines[2].split() == ["dense", "BM25", "hybrid"]
    assert [(line.split()[0], line.count("[")) for line in lines[3:10]] == [(name, 3) for name in DEFAULT_METRICS]
    assert "for the tower, chosen by mrr@10 on 'dev'" in lines[-1]


def test_files_give_trec_eval_the_same_figures(run: Path, tmp_path: Path) -> None:
    results = evaluate_run(run, None, "test", hybrid=True, output=tmp_path / "out")
    qrels = list(ir_measures.read_trec_qrels(str(tmp_path / "out" / "qrels.trec")))
    per_query = read_per_query(tmp_path / "out" / "per_query.csv")
    for system, prefix in (("dense", ""), ("bm25", "bm25/"), ("hybrid", "hybrid/")):
        ranking = list(ir_measures.read_trec_run(str(tmp_path / "out" / f"{system}.trec")))
        found = ir_measures.calc_aggregate([ir_measures.RR @ 10], qrels, ranking)[ir_measures.RR @ 10]
        assert found == pytest.approx(results[f"{system}/mrr@10"])
        assert per_query.values[f"{prefix}mrr@10"].mean() == pytest.approx(found)


def test_intervals_lie_around_their_means(run: Path) -> None:
    results = evaluate_run(run, None, "dev")
    figures = [f"{system}/{metric}" for system in ("dense", "bm25") for metric in DEFAULT_METRICS]
    wanted = {f"{name}{end}" for name in figures for end in ("", "/low", "/high")}
    wanted |= {f"dense/{metric}/p_vs_bm25" for metric in DEFAULT_METRICS}
    assert set(results) == wanted | {"documents", "queries", "split"}
    for name in figures:
        assert results[f"{name}/low"] <= results[name] <= results[f"{name}/high"]
    assert results["dense/mrr@10/low"] < results["dense/mrr@10"] < results["dense/mrr@10/high"]
    assert json.loads(json.dumps(results)) == results
    assert not (run / "hybrid.json").exists()
    assert "hybrid" not in "".join(describe(results))


def test_own_queries_choose_the_weight(run: Path, hard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = evaluate_run(run, None, "test", hybrid=True)  # the first to ask for it
    stored = (run / "hybrid.json").read_bytes()
    assert (test["fusion/split"], test["fusion/metric"]) == ("dev", "mrr@10")
    monkeypatch.setattr(evaluation, "tune", lambda *_, **__: pytest.fail("chosen again"))
    dev = evaluate_run(run, None, "dev", hybrid=True)
    assert {r["fusion/weight"] for r in (test, dev)} == {json.loads(stored)["weight"]}
    assert [r["fusion/chosen_here"] for r in (test, dev)] == [False, True]
    abroad = evaluate_run(run, beir(write_hard(tmp_path / "other", 120)), "dev", hybrid=True)
    assert (abroad["fusion/weight"], abroad["fusion/split"], abroad["fusion/chosen_here"]) == (0.5, "", False)
    assert "whatever the queries" in describe(abroad)[-1]
    abroad["hybrid/mrr@10"] = abroad["bm25/mrr@10"] - 0.01
    assert "It is below BM25 here (mrr@10" in describe(abroad)[-1]
    assert (run / "hybrid.json").read_bytes() == stored
    monkeypatch.undo()
    (run / "hybrid.json").unlink()
    results = evaluate_run(run, beir(hard), "dev", hybrid=True)
    assert "chosen on these very queries" in describe(results)[-1]
    assert (run / "hybrid.json").read_bytes() == stored


def test_queries_of_new_passages_choose_for_other_collections_too(hard: Path, tmp_path: Path) -> None:
    new = [json.loads(line)["_id"] for line in (hard / "corpus.jsonl").read_text().splitlines()][::2]
    (tmp_path / "ids").write_text("\n".join(new))
    few, many = tmp_path / "few", tmp_path / "many"
    for run, enough in ((few, 50), (many, 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(evaluation, "JUDGED_ENOUGH", enough)
            fit(hard, run, "trainer.max_epochs=2", "tower.dim=8", f"data.unseen_ids={tmp_path / 'ids'}")
            evaluate_run(run, None, "test", hybrid=True)
            results = evaluate_run(run, beir(write_hard(tmp_path / f"other{enough}", 120)), "test", hybrid=True)
        stored = json.loads((run / "hybrid.json").read_text())
        assert stored["unseen"] is (run == many)
        used = (results["fusion/split"], results["fusion/weight"])
        assert used == (("dev", stored["weight"]) if stored["unseen"] else ("", 0.5))


def test_irrelevant_grades_do_not_choose(run: Path, hard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Beir, "relevant_grade", lambda self, split: 2)  # and all grades are 1
    results = evaluate_run(run, beir(hard), "test", hybrid=True)
    for system in ("dense", "bm25", "hybrid"):
        assert results[f"{system}/mrr@10"] == 0 < results[f"{system}/ndcg@10"]
    assert results["fusion/weight"] == 0.5  # every weight is as bad as any other


def test_the_weight_of_other_towers_is_not_used(run: Path, hard: Path) -> None:
    evaluate_run(run, beir(hard), "test", hybrid=True)
    stored = json.loads((run / "hybrid.json").read_text())
    (run / "hybrid.json").write_text(json.dumps({**stored, "weight": 0.123, "checkpoint": "another"}))
    evaluate_run(run, beir(hard), "test", hybrid=True)
    assert json.loads((run / "hybrid.json").read_text()) == stored


def test_without_the_runs_own_data(run: Path, hard: Path, tmp_path: Path) -> None:
    config = run / "config.yaml"
    here = config.read_text()
    gone = here.replace(str(hard), str(tmp_path / "gone"))
    config.write_text(gone)
    with pytest.raises(UserError, match=r"chooses its weight once, on the run's own data, .*gone"):
        evaluate_run(run, beir(hard), "test", hybrid=True)
    config.write_text(here)
    evaluate_run(run, beir(hard), "test", hybrid=True)
    config.write_text(gone)
    assert evaluate_run(run, beir(hard), "test", hybrid=True)["hybrid/mrr@10"] > 0


def test_bm25_is_measured_once(run: Path, hard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = evaluate_run(run, beir(hard), "test")
    monkeypatch.setattr("two_tower.validation._evaluate.BM25", lambda *_: pytest.fail("measured again"))
    assert evaluate_run(run, beir(hard), "test") == before
