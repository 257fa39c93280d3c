"""Validation against all passages: its figures are those of plain loops, and the best epoch is the best."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from killing import killed_after, untimed

from two_tower.bm25 import BM25
from two_tower.data.stream.module import TripletData
from two_tower.metrics import DEFAULT_METRICS, from_ranks, mean, read_per_query
from two_tower.model import TwoTower
from two_tower.run import Run
from two_tower.similarity import Similarity
from two_tower.tower.average import AverageTower
from two_tower.tower.base import WordTable
from two_tower.validation.full import FullValidation

Fixture = Callable[..., Any]  # see conftest.py in this folder

# Such steps make the second epoch the best of four.
WILD = ["trainer.max_epochs=4", "tower.dim=32", "optimizer.lr=0.3", "scheduler=none"]
ROW = re.compile(r"(BM25|untrained|epoch \d) +([\d,]+) +(.*)")  # a line of the table


def make_trainer(data: TripletData, rank: int = 0) -> Any:  # noqa: ANN401
    state = {"loggers": [], "current_epoch": 0, "global_step": 5, "callback_metrics": {}}
    return SimpleNamespace(datamodule=data, is_global_zero=rank == 0, **state)


def test_lines_have_the_number_of_documents(fit: Fixture, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = fit(tmp_path / "run", *WILD)
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("Validation: 20 queries of 'dev', each against all 120 passages")
    assert lines[start + 1].split() == ["documents", *DEFAULT_METRICS, "loss", "seconds"]
    table = [found for line in lines[start + 2 :] if (found := ROW.match(line))]
    names = ("BM25", "untrained", "epoch 1", "epoch 2", "epoch 3", "epoch 4")
    assert [found.groups()[:2] for found in table] == [(name, "120") for name in names]
    for found, prefix in ((table[0], "bm25"), (table[1], "untrained"), (table[1 + results["best_epoch"]], "val")):
        assert found[3].split()[:7] == [f"{results[f'{prefix}/{name}']:.3f}" for name in DEFAULT_METRICS]
    starred = [int(found[1][-1]) for found in table if found[3].endswith("*")]
    assert starred[-1] == results["best_epoch"]
    assert f"{results['train/loss']:.4f}" in table[-1][3]


MEASURED = ["mrr", "recall@100", "ndcg", "map"]
OWN_METRICS = ["validation.metrics=[mrr, recall@100, ndcg]", "validation.monitor=map"]  # which is not listed


def test_bm25_in_training_is_bm25(data: TripletData, whole: Fixture) -> None:
    """Training computes in a mode of its own, without denormal numbers; the baseline must not notice."""
    _, found = whole(*OWN_METRICS)
    bm25 = BM25(data.corpus.texts())
    split = data.validation
    ranking = bm25.rank(split.texts.to_pylist(), order=data.corpus.order, pairs=split.qrels.pairs, k=100)
    expected = mean(from_ranks(ranking.ranks, split.qrels, MEASURED))
    assert expected["recall@100"] < 1  # some have no word of the question
    for name, value in expected.items():
        assert found[f"bm25/{name}"] == value, name


def test_depth_shortens_the_run_file_and_nothing_else(fit: Fixture, run_file: Fixture, tmp_path: Path) -> None:
    options = [*WILD, "validation.hybrid=true", "trainer.max_epochs=1"]
    deep, shallow = fit(tmp_path / "deep", *options), fit(tmp_path / "shallow", *options, "validation.depth=3")
    assert untimed(deep) == untimed(shallow)
    ranked = run_file(tmp_path / "deep")
    assert run_file(tmp_path / "shallow") == {query: documents[:3] for query, documents in ranked.items()}


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_all_measure_and_the_first_tells(data: TripletData, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, words = [], WordTable(len(data.tokenizer), 64)
    words.initialize(torch.randn(len(data.tokenizer), 64, generator=torch.Generator().manual_seed(0)), None)
    tower = AverageTower(words, 64)
    for rank in (1, 0):
        validation, model = FullValidation(Run(tmp_path)), TwoTower(tower, tower, Similarity("cosine"))
        validation.on_train_start(make_trainer(data, rank), model)
        validation.on_train_epoch_end(make_trainer(data, rank), model)
        told = capsys.readouterr().out
        assert ("Validation:" in told, "epoch 1" in told, (tmp_path / "run.trec").exists()) == (rank == 0,) * 3
        row = untimed(validation.history[0])
        found.append((validation.bm25, validation.untrained, row, validation.documents, validation.queries))
    assert found[0] == found[1]
    assert found[0][2] == {"epoch": 1, "step": 5, **found[0][1]}  # nothing was trained in between


@pytest.mark.parametrize(
    ("options", "epoch", "passages"), [((), 2, 120), (("validation=subset", "validation.sample=30"), 1, 25 + 30)]
)
def test_a_continued_run_measures_nothing_twice(
    options: tuple[str, ...], epoch: int, passages: int, fit: Fixture, whole: Fixture, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """After the last epoch, too: then there is nothing left to train, but the results are to be written."""
    uncut, expected = whole(*options)
    with killed_after("on_train_epoch_end", lambda trainer: trainer.current_epoch + 1 == epoch):
        fit(tmp_path / "cut", *options)

    monkeypatch.setattr("two_tower.validation._evaluate.BM25", lambda *_: pytest.fail("BM25 was measured again"))
    continued = fit(tmp_path / "cut", *options)
    kept = ("val/", "untrained/", "bm25/", "train/loss", "best_epoch", "documents", "queries")
    names = [name for name in expected if name.startswith(kept)]
    assert {n: continued[n] for n in names} == {n: expected[n] for n in names}
    assert continued["documents"] == passages
    ranking = (tmp_path / "cut" / "run.trec").read_text()
    assert ranking.replace(" cut", " whole") == (uncut / "run.trec").read_text()


def test_what_each_query_scores_is_kept_for_the_best_epoch(data: TripletData, whole: Fixture) -> None:
    run, results = whole(*OWN_METRICS)
    kept = read_per_query(run / "per_query.csv")
    assert kept.ids == data.validation.ids.to_pylist()
    assert kept.texts == data.validation.texts.to_pylist()
    means = {name if "/" in name else f"val/{name}": float(values.mean()) for name, values in kept.values.items()}
    assert means.keys() == {f"{kind}/{name}" for kind in ("val", "bm25") for name in MEASURED}
    assert means == pytest.approx({key: results[key] for key in means}, abs=1e-12)
