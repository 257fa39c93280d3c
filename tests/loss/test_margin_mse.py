"""Learning from a teacher's scores: from the file to the gradient."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from test_train import fit

from two_tower.data.beir import Beir
from two_tower.data.stream.module import TripletData
from two_tower.errors import UserError
from two_tower.loss.margin_mse import MarginMSELoss
from two_tower.negatives.given import GivenNegatives
from two_tower.teacher.lessons import Lesson
from two_tower.tokenizer.word import WordTokenizer

SHORT = ["loss=margin_mse", "negatives=given", "validation.bm25=false", "trainer.log_every_n_steps=1"]


def margin(row: int) -> float:
    """What the made-up teacher says of a triple."""
    return 4 - row % 7


@pytest.fixture
def scored(collection: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "scored"
    shutil.copytree(collection, folder)
    head, *rows = (folder / "triples.tsv").read_text().splitlines()
    lines = [f"{head}\tmargin", *(f"{row}\t{margin(i)}" for i, row in enumerate(rows))]
    (folder / "triples.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize(("texts", "given"), [(5, 1), (3, 4), (1, 1)])
def test_it_equals_the_formula_and_its_gradient(texts: int, given: int) -> None:
    torch.manual_seed(texts)
    scores = torch.randn(texts, texts * (1 + given), dtype=torch.float64, requires_grad=True)
    wanted = torch.randn(texts, given, dtype=torch.float64)
    candidates = torch.ones(scores.shape, dtype=torch.bool)
    candidates[:, :texts].fill_diagonal_(False)
    output = MarginMSELoss(0.1)(scores, candidates, Lesson(None, None, margins=wanted))
    expected, agreed = torch.zeros((), dtype=torch.float64), 0
    for i in range(texts):
        for g in range(given):
            own = (scores[i, i] - scores[i, texts + i * given + g]) / 0.1
            expected = expected + (own - wanted[i, g]) ** 2 / (texts * given)
            agreed += int((own > 0) == (wanted[i, g] > 0))
    torch.testing.assert_close(output.loss, expected)
    assert output.diagnostics["agreement"].item() == pytest.approx(agreed / (texts * given))
    torch.testing.assert_close(*(torch.autograd.grad(value, scores)[0] for value in (output.loss, expected)))


def test_margins_come_with_their_triples(scored: Path, tmp_path: Path) -> None:
    data = TripletData(
        Beir(str(scored)), WordTokenizer(), tmp_path / "t.json", GivenNegatives(), batch_size=16, max_examples=100
    )
    assert data.has_margins
    lines = [line.split("\t") for line in (scored / "triples.tsv").read_text().splitlines()[1:]]
    expected = {tuple(ids): float(value) for *ids, value in lines}
    assert len(set(expected.values())) == 7
    names = data.train.ids.to_pylist(), data.corpus.ids.to_pylist()
    for k in range(3):
        batch = data.batches[0, k]
        assert batch.margins is not None
        queries, documents = batch.query_rows.tolist(), batch.document_rows.tolist()
        for i, query in enumerate(queries):
            key = names[0][query], names[1][documents[i]], names[1][documents[16 + i]]
            assert batch.margins[i].tolist() == [expected[key]]


def test_a_run_learns_the_margins(scored: Path, tmp_path: Path) -> None:
    fit(scored, tmp_path / "run", *SHORT, "trainer.max_epochs=20", "optimizer.lr=0.01")
    with (tmp_path / "run" / "metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert np.mean(losses[-5:]) < 0.3 * losses[0]


def test_it_adds_to_other_losses(scored: Path, tmp_path: Path) -> None:
    sums = ["loss=sum", "~loss@loss.triplet", "~loss.weights.triplet", "+loss@loss.margin_mse=margin_mse"]
    fit(scored, tmp_path / "run", *SHORT[1:], *sums, "trainer.max_steps=2")
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert any(row["train/margin_mse/loss"] for row in rows)


@pytest.mark.parametrize(
    "overrides", [["negatives=in_batch"], ["negatives=random"], ["data.path={plain}"]], ids=" ".join
)
def test_data_without_scores_is_refused(overrides: list[str], scored: Path, collection: Path, tmp_path: Path) -> None:
    options = [override.replace("{plain}", str(collection)) for override in overrides]
    with pytest.raises(UserError, match=r"learns from a teacher's scores of triples, and .* brings none"):
        fit(scored, tmp_path / "run", *SHORT, *options)


def test_a_score_that_is_no_number_is_named(scored: Path, tmp_path: Path) -> None:
    path = scored / "triples.tsv"
    for odd in ("much", "nan"):
        path.write_text(path.read_text().replace(f"\t{margin(3)}\n", f"\t{odd}\n", 1))
        with pytest.raises(UserError, match=r"triples\.tsv, row 5: value that is no number"):
            list(Beir(str(scored)).triplets() or ())
        path.write_text(path.read_text().replace(f"\t{odd}\n", f"\t{margin(3)}\n", 1))


def test_settings_and_lessons_that_cannot_be() -> None:
    with pytest.raises(UserError, match=r"loss\.temperature=0 must be above 0"):
        MarginMSELoss(0)
    with pytest.raises(ValueError, match="margins"):
        MarginMSELoss()(torch.zeros(2, 4), torch.zeros(2, 4, dtype=torch.bool), Lesson(None, None))
