"""The mode that the page opens with is the best that the run's folder knows of, and its examples are real queries."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from two_tower.data.beir import Beir
from two_tower.fusion import EVEN
from two_tower.metrics import read_per_query
from two_tower.search import MODES, Searcher
from two_tower.serve import Runs
from two_tower.serve.opening import best_mode, examples


@pytest.fixture
def folder(run_folders: list[Path], tmp_path: Path) -> Path:
    return shutil.copytree(run_folders[0], tmp_path / "run")


def opened(folder: Path, **figures: float | None) -> str:
    """The best mode with other figures in results.json: None takes one away."""
    path = folder / "results.json"
    results = json.loads(path.read_text()) | {f"{name}/mrr@10": value for name, value in figures.items()}
    path.write_text(json.dumps({key: value for key, value in results.items() if value is not None}))
    return best_mode(Searcher.load(folder), MODES)


def test_the_figures_of_training_decide(folder: Path) -> None:
    assert opened(folder, val=0.5, bm25=0.6) == "bm25"
    assert opened(folder, val=0.7) == "dense"
    assert opened(folder, hybrid=0.8) == "hybrid"
    assert opened(folder, hybrid=0.6) == "dense"
    assert opened(folder, hybrid=0.7) == "hybrid"
    assert opened(folder, hybrid=None, bm25=None) == "hybrid"  # nothing to compare
    (folder / "results.json").unlink()
    assert best_mode(Searcher.load(folder), MODES) == "hybrid"
    assert best_mode(Searcher.load(folder), ("dense",)) == "dense"


def test_how_the_run_is_fused_decides_before_them(folder: Path) -> None:
    opened(folder, val=0.9, bm25=0.1)
    searcher = Searcher.load(folder)
    for weight, method, mode in ((0.0, "weighted_sum", "bm25"), (0.4, "weighted_sum", "hybrid"),
                                 (1.0, "weighted_sum", "dense"), (None, "reciprocal_rank", "hybrid")):  # fmt: skip
        chosen = replace(EVEN, method=method, weight=weight, split="dev", checkpoint=searcher.encoder.fingerprint)
        chosen.write(folder / "hybrid.json")
        assert best_mode(Searcher.load(folder), MODES) == mode
    replace(chosen, checkpoint="another").write(folder / "hybrid.json")
    assert best_mode(Searcher.load(folder), MODES) == "dense"  # of other towers


def test_examples_are_validation_queries_from_all_over(folder: Path, collection: Path) -> None:
    queries = read_per_query(folder / "per_query.csv").texts
    assert set(queries) == set(Beir(collection).queries("dev")["text"].to_pylist())
    offered = examples(Searcher.load(folder))
    places = [queries.index(query) for query in offered]
    assert places == sorted(places)
    assert [place * 3 // len(queries) for place in places] == [0, 1, 2]
    (run,) = Runs([Searcher.load(folder)], bm25=False).describe()
    assert (run["examples"], run["best"]) == (offered, "dense")
    for lines, expected in (([], []), (["a,b"], ["b"]), ([f"a,{'x' * 81}", 'b," "', "c,y", "d,y", "e,z"], ["y", "z"])):
        (folder / "per_query.csv").write_text("\n".join(["query,text", *lines]) + "\n")
        assert examples(Searcher.load(folder)) == expected
    (folder / "per_query.csv").unlink()
    assert examples(Searcher.load(folder)) == []


def test_of_another_collection_nothing_is_known(folder: Path) -> None:
    assert opened(folder, val=0.9, bm25=0.1) == "dense"
    data = json.loads((folder / "data.json").read_text())
    (folder / "data.json").write_text(json.dumps({**data, "fingerprint": "another"}))
    searcher = Searcher.load(folder)
    assert (best_mode(searcher, MODES), examples(searcher)) == ("hybrid", [])
