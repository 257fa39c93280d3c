"""Learning from a teacher's scores: from the file to the gradient."""

from pathlib import Path

import numpy as np
import oracles
import pytest
import torch
from test_train import fit
from training import history, losses, margin, of_scores, triplet_data, with_margins

from two_tower.data.beir import Beir
from two_tower.errors import UserError
from two_tower.loss.base import TeacherBatch
from two_tower.loss.margin_mse import MarginMSELoss
from two_tower.negatives.given import GivenNegatives

SHORT = ["loss=margin_mse", "negatives=given", "validation.bm25=false", "trainer.log_every_n_steps=1"]


@pytest.fixture
def scored(collection: Path, tmp_path: Path) -> Path:
    return with_margins(collection, tmp_path / "scored")


@pytest.mark.parametrize(("texts", "given"), [(5, 1), (3, 4), (1, 1)])
def test_it_equals_the_formula_and_its_gradient(texts: int, given: int) -> None:
    torch.manual_seed(texts)
    scores = torch.randn(texts, texts * (1 + given), dtype=torch.float64, requires_grad=True)
    wanted = torch.randn(texts, given, dtype=torch.float64)
    batch = of_scores(scores)
    batch.teacher = TeacherBatch(margins=wanted)
    output, expected = MarginMSELoss(0.1)(batch), oracles.margin_mse(scores, wanted, 0.1)
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, scores)[0] for value in (output.loss, expected)))
    own = [scores[i, i] - scores[i, texts + i * given + g] for i in range(texts) for g in range(given)]
    agreed = [(a > 0) == (b > 0) for a, b in zip(own, wanted.flatten(), strict=True)]
    assert output.diagnostics["agreement"].item() == pytest.approx(sum(map(bool, agreed)) / len(agreed))
    with pytest.raises(ValueError, match="margins"):
        MarginMSELoss()(of_scores(scores))


def test_margins_come_with_their_triples(scored: Path, tmp_path: Path) -> None:
    data = triplet_data(Beir(str(scored)), tmp_path / "run", GivenNegatives(), batch_size=16, max_examples=100)
    assert data.has_margins
    lines = [line.split("\t") for line in (scored / "triples.tsv").read_text().splitlines()[1:]]
    expected = {tuple(ids): float(value) for *ids, value in lines}
    assert len(set(expected.values())) == 7
    names = data.train.ids.to_pylist(), data.corpus.ids.to_pylist()
    for k in range(3):
        batch = data.batches[0, k]
        queries, documents = batch.query_rows.tolist(), batch.document_rows.tolist()
        for i, query in enumerate(queries):
            key = names[0][query], names[1][documents[i]], names[1][documents[16 + i]]
            assert batch.margins[i].tolist() == [expected[key]]


def test_a_run_learns_the_margins(scored: Path, tmp_path: Path) -> None:
    fit(scored, tmp_path / "run", *SHORT, "trainer.max_epochs=4", "optimizer.lr=0.05", "scheduler=none")
    values = losses(tmp_path / "run")
    assert np.mean(values[-5:]) < 0.3 * values[0]


def test_it_adds_to_other_losses(scored: Path, tmp_path: Path) -> None:
    sums = ["loss=sum", "~loss@loss.triplet", "~loss.weights.triplet", "+loss@loss.margin_mse=margin_mse"]
    fit(scored, tmp_path / "run", *SHORT[1:], *sums, "trainer.max_steps=2")
    assert all("margin_mse/loss" in step for step in history(tmp_path / "run"))


def test_data_without_scores_is_refused(scored: Path, collection: Path, tmp_path: Path) -> None:
    for override in ("negatives=random", f"data.path={collection}"):
        with pytest.raises(UserError, match="brings none: use negatives=given"):
            fit(scored, tmp_path / "run", *SHORT, override)


def test_a_score_that_is_no_number_is_named(scored: Path, tmp_path: Path) -> None:
    path = scored / "triples.tsv"
    text = path.read_text()
    for odd in ("much", "nan"):
        path.write_text(text.replace(f"\t{margin(3)}\n", f"\t{odd}\n", 1))
        with pytest.raises(UserError, match=r"triples\.tsv, row 5: value that is no number"):
            list(Beir(str(scored)).triplets() or ())
