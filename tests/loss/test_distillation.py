"""The distillation loss equals its definition, written as loops in double precision."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles import DISTILLATION
from torch import Tensor

from two_tower.loss.base import COMMON_DIAGNOSTICS, LossInput, TeacherBatch
from two_tower.loss.distillation import DistillationLoss
from two_tower.loss.in_batch import InBatchLoss
from two_tower.loss.matryoshka import MatryoshkaLoss
from two_tower.loss.sum import SumLoss
from two_tower.similarity import Similarity
from two_tower.teacher._vectors import TeacherVectors

WEIGHTS = {"cosine": 1.0, "kl": 0.2, "contrastive": 0.7, "margin": 3.0}


def make(dim: int = 5, temperature: float = 0.05, **weights: float) -> DistillationLoss:
    return DistillationLoss(TeacherVectors([], 5), dim, weights, temperature).double()


def unit(*shape: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


def input_of(b: int, n: int, seed: int, dim: int = 5) -> LossInput:
    """A batch whose student vectors have gradients, with two equal texts as the teacher sees them."""
    torch.manual_seed(seed)
    q, d, taught_q, taught_d = unit(b, dim).requires_grad_(), unit(n, dim).requires_grad_(), unit(b, 5), unit(n, 5)
    taught_d[-1] = taught_d[0]
    negatives = torch.rand(b, n) < 0.7
    negatives[:, :b].fill_diagonal_(False)
    return LossInput(q, d, negatives, Similarity("cosine"), TeacherBatch(taught_q, taught_d))


def by_loops(name: str, batch: LossInput, t: float = 0.05) -> Tensor:
    student, teacher = (batch.queries, batch.documents), (batch.teacher.queries, batch.teacher.documents)
    return DISTILLATION[name](batch.queries @ batch.documents.T, batch.negatives, student, teacher, t)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (4, 9)])
@pytest.mark.parametrize("name", DISTILLATION)
def test_each_term_and_its_gradient(name: str, shape: tuple[int, int], seed: int) -> None:
    batch = input_of(*shape, seed)
    values = make(temperature=0.1, **{name: 2.5})(batch).loss, 2.5 * by_loops(name, batch, 0.1)
    leaves = [batch.queries, batch.documents]
    torch.testing.assert_close(*values, atol=1e-9, rtol=1e-7)
    sums = (value + 0 * batch.queries.sum() for value in values)
    grads = (torch.autograd.grad(value, leaves, materialize_grads=True) for value in sums)
    torch.testing.assert_close(*grads, atol=1e-9, rtol=1e-7)


def test_the_whole_is_the_weighted_sum() -> None:
    batch = input_of(4, 6, 0)
    output = make(**WEIGHTS)(batch)
    torch.testing.assert_close(output.loss, sum(w * by_loops(name, batch) for name, w in WEIGHTS.items()))
    for name in WEIGHTS:
        assert output.diagnostics[name].item() == pytest.approx(by_loops(name, batch).item())
    assert {*COMMON_DIAGNOSTICS} <= output.diagnostics.keys()


@pytest.mark.parametrize("dim", [3, 8])
def test_other_dimensions_start_at_the_best_map(dim: int) -> None:
    """A teacher whose vectors are a linear map of the student's is met at once."""
    torch.manual_seed(1)
    loss = make(dim, cosine=1)
    students, way = [unit(40, dim) for _ in range(2)], torch.randn(dim, 5, dtype=torch.float64)
    taught = TeacherBatch(*(torch.nn.functional.normalize(v @ way, dim=1) for v in students))
    nobody = torch.zeros(40, 40, dtype=torch.bool)
    value = loss(LossInput(*students, nobody, Similarity("cosine"), taught)).loss.item()
    x, y = torch.cat(students).numpy(), torch.cat(taught[:2]).numpy()
    square = x.T @ x
    mapped = x @ np.linalg.solve(square + 1e-3 * np.diag(square).mean() * np.eye(dim), x.T @ y)
    cosines = (mapped * y).sum(1) / np.linalg.norm(mapped, axis=1)
    assert value == pytest.approx(2 - 2 * cosines.mean(), abs=1e-6)
    assert value < 0.2
    before = loss.projection.weight.clone()
    loss(LossInput(unit(40, dim), unit(40, dim), nobody, Similarity("cosine"), taught))
    assert torch.equal(loss.projection.weight, before)  # only the first batch
    again = make(dim, cosine=1)
    again.load_state_dict(loss.state_dict())
    assert again.fitted


def test_no_teacher_has_a_say_in_a_lexical_half() -> None:
    batch = input_of(4, 6, 0)
    halves = [torch.cat([v, 0.5 * unit(len(v), 3)], 1) / 1.25**0.5 for v in (batch.queries, batch.documents)]
    with_half = replace(batch, queries=halves[0], documents=halves[1])
    torch.testing.assert_close(make(**WEIGHTS)(with_half).loss, make(**WEIGHTS)(batch).loss)


def test_it_adds_to_losses_of_judgements_and_shortens() -> None:
    batch = input_of(4, 6, 3)
    distillation, in_batch = make(**WEIGHTS), InBatchLoss()
    both = SumLoss({"a": 0.5}, a=distillation, b=in_batch)
    torch.testing.assert_close(both(batch).loss, 0.5 * distillation(batch).loss + in_batch(batch).loss)
    short = MatryoshkaLoss(distillation, 5, [2])
    less = batch.leading(2)
    shorter = 0.2 * by_loops("kl", less) + 3 * by_loops("margin", less)  # vectors of other lengths do not compare
    torch.testing.assert_close(short(batch).loss, (distillation(batch).loss + shorter) / 2)
    assert both.needs == short.needs == {"vectors"}
    batch.teacher = None
    with pytest.raises(ValueError, match="needs the teacher's vectors"):
        distillation(batch)


@pytest.mark.parametrize(
    ("weights", "temperature", "said"),
    [
        ({"kl": -1.0}, 0.05, r"^weights\.kl=-1\.0 must be a number of at least 0"),
        ({"k": 1.0}, 0.05, r"^weights\.k .* valid: cosine, kl"),
        ({"kl": 1.0}, 0.0, r"^temperature=0\.0 must be above 0"),
    ],
)
def test_what_cannot_be_is_refused(weights: dict[str, float], temperature: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make(temperature=temperature, **weights)
