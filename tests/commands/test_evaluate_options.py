"""``two-tower evaluate RUN --data FOLDER`` takes the keys that a message about that data advises."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import oracles
import pytest
from conftest import write_collection
from test_evaluation import scores
from test_train import fit

from two_tower.data.beir import Beir

Call = Callable[..., Any]  # see conftest.py in this folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("options")
    fit(write_collection(folder / "beir", 60, triples=False), folder / "run", "trainer.max_epochs=1", "tower.dim=8")
    return folder / "run"


def with_bad_rows(folder: Path) -> Path:
    """Two passages without a text, both judged."""
    path = write_collection(folder, 60, seed=1, triples=False) / "corpus.jsonl"
    lines = path.read_text().splitlines()
    for row in (0, 6):  # of dev
        lines[row] = json.dumps({**json.loads(lines[row]), "title": "", "text": ""})
    path.write_text("\n".join(lines))
    return folder


def test_the_limit_can_be_raised_as_advised(run: Path, tmp_path: Path, call: Call) -> None:
    folder = with_bad_rows(tmp_path / "mine [1], neu")
    ended = call("two-tower", "evaluate", run, "--data", folder)
    assert ended.status == 2
    assert "data.max_bad_rows" in ended.err
    ended = call("two-tower", "evaluate", run, "--data", folder, "data.max_bad_rows=0.1", "--json")
    assert ended.status == 0, ended.err
    results = json.loads(ended.out.splitlines()[-1])  # the log of this process stands before it
    assert (results["documents"], results["queries"]) == (58, 10)
    whole = write_collection(tmp_path / "whole", 60, seed=1, triples=False)
    dense, lexical, grades = (
        {q: {d: v for d, v in its.items() if d not in ("d0", "d6")} for q, its in each.items()}
        for each in scores(run, whole, "dev", of=Beir(str(folder), max_bad_rows=0.1))
    )
    assert not grades["q0"]
    assert not grades["q6"]
    for system, found in (("dense", dense), ("bm25", lexical)):
        values = [oracles.reciprocal_rank(oracles.ranked(found[q]), grades[q], 10) for q in grades]
        if system == "dense":  # BM25's lengths are those of the 58
            assert results[f"{system}/mrr@10"] == pytest.approx(statistics.mean(values), abs=1e-6)
        assert results[f"{system}/recall@100"] <= 0.8  # the two count as missed


@pytest.mark.parametrize("key", ["data.name=other", "data.exclude_same_id=true"])
def test_other_keys_of_the_data_are_taken(run: Path, tmp_path: Path, call: Call, key: str) -> None:
    folder = write_collection(tmp_path / "beir", 60, seed=1, triples=False)
    assert call("two-tower", "evaluate", run, "--data", folder, key).status == 0


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("key", ["data.path=G", "data=beir", "data=pairs"])
def test_two_places_are_refused(run: Path, tmp_path: Path, call: Call, key: str, order: int) -> None:
    options = [["--data", str(tmp_path)], [key]][::order]
    ended = call("two-tower", "evaluate", run, *options[0], *options[1])
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.count("\n") == 1
    assert f"and {key} both say which data" in ended.err


@pytest.mark.parametrize("key", ["+data.path=G", "data.pth=G", "tower=gur"])
def test_other_mistakes_are_told(run: Path, tmp_path: Path, call: Call, key: str) -> None:
    folder = write_collection(tmp_path / "beir", 60, seed=1, triples=False)
    ended = call("two-tower", "evaluate", run, "--data", folder, key)
    assert ended.err.count("\n") == 1
    assert ended.status == 2
