"""The distillation loss equals its definition, written as loops in double precision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from two_tower.errors import UserError
from two_tower.loss.distillation import DistillationLoss
from two_tower.loss.in_batch import InBatchLoss
from two_tower.loss.matryoshka import MatryoshkaLoss
from two_tower.loss.sum import SumLoss
from two_tower.teacher.base import Teacher
from two_tower.teacher.lessons import Lesson

ONLY = {"cosine": 0.0, "kl": 0.0, "contrastive": 0.0, "margin": 0.0}


class Wide(Teacher):
    name = "wide"

    def __init__(self, dim: int) -> None:
        self._dim = dim

    @property
    def dim(self) -> int:
        return self._dim

    def fingerprint(self) -> str:
        return "wide"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        raise NotImplementedError


def unit(*shape: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


def batch(b: int, n: int, dim: int, width: int, seed: int) -> tuple[Tensor, Tensor, Lesson]:
    """Scores, candidates and lesson; the student's vectors have gradients."""
    torch.manual_seed(seed)
    q, d = unit(b, dim).requires_grad_(), unit(n, dim).requires_grad_()
    taught_q, taught_d = unit(b, width), unit(n, width)
    taught_d[-1] = taught_d[0]  # an equal text
    candidates = torch.rand(b, n) < 0.7
    candidates[:, :b].fill_diagonal_(False)
    return q @ d.T, candidates, Lesson(q, d, taught_q, taught_d)


def softmax(values: list[float]) -> list[float]:
    largest = max(values)
    powers = [math.exp(v - largest) for v in values]
    return [p / sum(powers) for p in powers]


def dot(a: Tensor, b: Tensor) -> Tensor:
    return sum((x * y for x, y in zip(a, b, strict=True)), torch.zeros((), dtype=torch.float64))


def cosine(scores: Tensor, candidates: Tensor, lesson: Lesson, t: float) -> Tensor:
    total = 0 * scores.sum()
    for own, taught in ((lesson.queries, lesson.taught_queries), (lesson.documents, lesson.taught_documents)):
        assert own is not None
        for x, y in zip(own, taught, strict=True):
            total = total + (1 - dot(x, y) / x.norm()) / len(own)
    return total


def kl(scores: Tensor, candidates: Tensor, lesson: Lesson, t: float) -> Tensor:
    total = 0 * scores.sum()
    for i, row in enumerate(scores):
        p = softmax([float(dot(lesson.taught_queries[i], y)) / t for y in lesson.taught_documents])
        log_sum = torch.logsumexp(row / t, 0)
        total = total + sum(p[j] * (math.log(p[j]) - (row[j] / t - log_sum)) for j in range(len(row))) / len(scores)
    return total


def contrastive(scores: Tensor, candidates: Tensor, lesson: Lesson, t: float) -> Tensor:
    total, taught = 0 * scores.sum(), lesson.taught_documents
    assert lesson.documents is not None
    for i, own in enumerate(lesson.documents):
        rivals = [j for j in range(len(taught)) if j == i or float(dot(taught[i], taught[j])) < 0.9999]
        logits = torch.stack([dot(own / own.norm(), taught[j]) / t for j in rivals])
        total = total + (torch.logsumexp(logits, 0) - logits[rivals.index(i)]) / len(taught)
    return total


def margin(scores: Tensor, candidates: Tensor, lesson: Lesson, t: float) -> Tensor:
    total, taught_q, taught_d = 0 * scores.sum(), lesson.taught_queries, lesson.taught_documents
    for i, j in candidates.nonzero().tolist():
        wanted = dot(taught_q[i], taught_d[i]) - dot(taught_q[i], taught_d[j])
        total = total + (scores[i, i] - scores[i, j] - wanted) ** 2 / max(1, int(candidates.sum()))
    return total


TERMS = {"cosine": cosine, "kl": kl, "contrastive": contrastive, "margin": margin}


def by_loops(name: str, *batch: Any) -> Tensor:  # noqa: ANN401
    return TERMS[name](*batch)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (4, 9)])
@pytest.mark.parametrize("name", ONLY)
def test_each_term_and_its_gradient(name: str, shape: tuple[int, int], seed: int) -> None:
    found, wanted = [], []
    for results, loops in ((found, False), (wanted, True)):
        scores, candidates, lesson = batch(*shape, 5, 5, seed)
        value = (
            2.5 * by_loops(name, scores, candidates, lesson, 0.1) if loops
            else DistillationLoss(Wide(5), 5, **{**ONLY, name: 2.5}, temperature=0.1)(scores, candidates, lesson).loss
        )  # fmt: skip
        leaves = [lesson.queries, lesson.documents]
        results += [value, *torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)]
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a.double(), b.double(), atol=1e-9, rtol=1e-7)


def test_the_whole_is_the_weighted_sum() -> None:
    weights = {"cosine": 1.0, "kl": 0.2, "contrastive": 0.7, "margin": 3.0}
    scores, candidates, lesson = batch(4, 6, 5, 5, 0)
    output = DistillationLoss(Wide(5), 5, **weights)(scores, candidates, lesson)
    wanted = sum(w * by_loops(name, scores, candidates, lesson, 0.05) for name, w in weights.items())
    torch.testing.assert_close(output.loss, wanted)
    for name in weights:
        assert output.diagnostics[name] == pytest.approx(by_loops(name, scores, candidates, lesson, 0.05).item())
    assert {"positive_similarity", "negative_similarity", "accuracy", "idle_queries"} <= output.diagnostics.keys()


def test_a_student_that_equals_its_teacher_has_nothing_to_learn() -> None:
    _, candidates, lesson = batch(4, 6, 5, 5, 0)
    same = Lesson(lesson.taught_queries, lesson.taught_documents, lesson.taught_queries, lesson.taught_documents)
    scores = lesson.taught_queries @ lesson.taught_documents.T
    weights = {"cosine": 1.0, "kl": 1.0, "contrastive": 0.0, "margin": 1.0}
    assert DistillationLoss(Wide(5), 5, **weights)(scores, candidates, same).loss.abs() < 1e-12


@pytest.mark.parametrize("dim", [3, 8])
def test_other_dimensions_start_at_the_best_map(dim: int) -> None:
    """A teacher whose vectors are a linear map of the student's is met at once."""
    torch.manual_seed(1)
    loss = DistillationLoss(Wide(5), dim, **{**ONLY, "cosine": 1.0}).double()
    students, way = [unit(40, dim) for _ in range(2)], torch.randn(dim, 5, dtype=torch.float64)
    taught = [torch.nn.functional.normalize(v @ way, dim=1) for v in students]
    x, y = torch.cat(students).numpy(), torch.cat(taught).numpy()
    scores = students[0] @ students[1].T
    nobody = torch.zeros_like(scores, dtype=torch.bool)
    value = loss(scores, nobody, Lesson(*students, *taught)).loss
    square = x.T @ x
    ridge = np.linalg.solve(square + 1e-3 * np.diag(square).mean() * np.eye(dim), x.T @ y)
    mapped = x @ ridge
    cosines = (mapped * y).sum(1) / np.linalg.norm(mapped, axis=1)
    assert float(value) == pytest.approx(2 - 2 * cosines.mean(), abs=1e-6)
    assert float(value) < 0.2
    before = loss.projection.weight.clone()
    loss(scores, nobody, Lesson(unit(40, dim), unit(40, dim), *taught))
    assert torch.equal(loss.projection.weight, before)  # only the first batch
    again = DistillationLoss(Wide(5), dim, **{**ONLY, "cosine": 1.0})
    again.load_state_dict(loss.state_dict())
    assert again.fitted


def test_it_adds_to_losses_of_judgements_and_shortens() -> None:
    scores, candidates, lesson = batch(4, 6, 5, 5, 3)
    distillation, in_batch = DistillationLoss(Wide(5), 5), InBatchLoss()
    both = SumLoss({"a": 0.5}, a=distillation, b=in_batch)
    assert both.taught
    wanted = 0.5 * distillation(scores, candidates, lesson).loss + in_batch(scores, candidates).loss
    torch.testing.assert_close(both(scores, candidates, lesson).loss, wanted)
    short = MatryoshkaLoss(distillation, 5, [2])
    assert short.taught
    less = torch.randn_like(scores)
    wanted = (distillation(scores, candidates, lesson).loss + 0.2 * by_loops("kl", less, candidates, lesson, 0.05)) / 2
    torch.testing.assert_close(short([scores, less], candidates, lesson).loss, wanted)
    for loss in (distillation, both, short):  # what the doctor tries out
        assert not loss.of_scores.taught
        given = [scores, less] if loss is short else scores
        assert loss.of_scores(given, candidates).loss.isfinite()
    with pytest.raises(ValueError, match="needs the teacher's vectors"):
        distillation(scores, candidates)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kl": -1.0}, r"loss\.kl=-1\.0 must be at least 0"),
        (ONLY, "Nothing is left to learn from"),
        ({"temperature": 0.0}, r"loss\.temperature=0\.0 must be above 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(settings: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        DistillationLoss(Wide(5), 5, **settings)
