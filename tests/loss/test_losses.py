"""Losses and their gradients against plain loops in double precision."""

import math

import pytest
import torch
from torch import Tensor

from two_tower.errors import UserError
from two_tower.loss.base import Loss
from two_tower.loss.in_batch import InBatchLoss
from two_tower.loss.triplet import TripletLoss


def in_batch_loop(scores: Tensor, candidates: Tensor, temperature: float, symmetric: bool) -> Tensor:
    count = len(scores)
    rows = scores.new_zeros(())
    for i in range(count):
        terms = [scores[i, i]] + [scores[i, j] for j in range(scores.shape[1]) if candidates[i, j]]
        rows = rows - torch.log_softmax(torch.stack(terms) / temperature, 0)[0]
    if not symmetric:
        return rows / count
    columns = scores.new_zeros(())
    for j in range(count):
        terms = [scores[j, j]] + [scores[i, j] for i in range(count) if candidates[i, j]]
        columns = columns - torch.log_softmax(torch.stack(terms) / temperature, 0)[0]
    return (rows + columns) / (2 * count)


def triplet_loop(scores: Tensor, candidates: Tensor, margin: float) -> Tensor:
    terms = [
        torch.clamp(margin - scores[i, i] + scores[i, j], min=0)
        for i in range(scores.shape[0])
        for j in range(scores.shape[1])
        if candidates[i, j]
    ]
    return torch.stack(terms).mean() if terms else (scores * 0).sum()


def batch(count: int, documents: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(count, documents, generator=generator, dtype=torch.float64) * 2 - 1
    candidates = torch.rand(count, documents, generator=generator) < 0.7
    candidates[:, :count].fill_diagonal_(False)
    return scores, candidates


LOSSES: list[tuple[Loss, object]] = [
    (InBatchLoss(0.05, symmetric=False), lambda s, c: in_batch_loop(s, c, 0.05, False)),
    (InBatchLoss(0.2, symmetric=True), lambda s, c: in_batch_loop(s, c, 0.2, True)),
    (TripletLoss(0.3), lambda s, c: triplet_loop(s, c, 0.3)),
]


@pytest.mark.parametrize(("loss", "oracle"), LOSSES)
@pytest.mark.parametrize(("count", "documents"), [(1, 1), (1, 3), (5, 5), (4, 12), (16, 32)])
@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradient_equal_a_plain_loop(
    loss: Loss, oracle: object, count: int, documents: int, seed: int
) -> None:
    scores, candidates = batch(count, documents, seed)
    ours, theirs = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    value, expected = loss(ours.float(), candidates).loss, oracle(theirs, candidates)
    assert value.item() == pytest.approx(expected.item(), abs=1e-5)
    value.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("loss", "oracle"), LOSSES)
def test_the_mask_matters(loss: Loss, oracle: object) -> None:
    """Negative control: another mask must give another loss."""
    scores, candidates = batch(6, 9, 0)
    other = candidates.clone()
    other[0, 1:4] = ~other[0, 1:4]
    assert loss(scores, candidates).loss.item() != pytest.approx(loss(scores, other).loss.item(), abs=1e-6)


@pytest.mark.parametrize(("loss", "_"), LOSSES)
def test_no_candidates_is_finite_and_has_a_gradient(loss: Loss, _: object) -> None:
    scores = torch.rand(3, 3, requires_grad=True)
    output = loss(scores, torch.zeros(3, 3, dtype=torch.bool))
    assert output.loss.item() == pytest.approx(0, abs=1e-6)
    output.loss.backward()
    assert scores.grad.isfinite().all()


def test_collapsed_vectors_read_as_chance_and_margin() -> None:
    """The failure that this project exists for, in one line each."""
    scores = torch.full((8, 8), 0.7)
    candidates = ~torch.eye(8, dtype=torch.bool)
    softmax, triplet = InBatchLoss()(scores, candidates), TripletLoss(0.3)(scores, candidates)
    assert softmax.loss.item() == pytest.approx(math.log(8))
    assert softmax.diagnostics["chance_loss"].item() == pytest.approx(math.log(8))
    assert softmax.diagnostics["accuracy"].item() == 0
    assert triplet.loss.item() == pytest.approx(0.3)
    assert triplet.diagnostics["active_triplets"].item() == 1
    assert triplet.diagnostics["accuracy"].item() == 0


def test_diagnostics_are_what_their_names_say() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.2], [0.5, 0.4, 0.0]])
    candidates = torch.tensor([[False, True, True], [True, False, False]])
    found = {k: v.item() for k, v in TripletLoss(0.3)(scores, candidates).diagnostics.items()}
    assert found["positive_similarity"] == pytest.approx(0.65)
    assert found["negative_similarity"] == pytest.approx((0.1 + 0.2 + 0.5) / 3)
    assert found["active_triplets"] == pytest.approx(1 / 3)
    assert found["accuracy"] == pytest.approx(2 / 3)
    found = {k: v.item() for k, v in InBatchLoss()(scores, candidates).diagnostics.items()}
    assert found["accuracy"] == pytest.approx(1 / 2)
    assert found["chance_loss"] == pytest.approx((math.log(3) + math.log(2)) / 2)


@pytest.mark.parametrize("make", [lambda: InBatchLoss(0), lambda: TripletLoss(-0.1)])
def test_impossible_values_are_refused(make: object) -> None:
    with pytest.raises(UserError, match="must be above 0"):
        make()
