"""Losses, their gradients, masks and diagnostics against plain loops in double precision, from vectors on."""

import ast
import math
import sys
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import oracles
import pytest
import torch
from conftest import ROOT
from oracles import Mask, Scores
from torch import Tensor
from training import UniformityLoss, of_scores

from two_tower.loss.base import COMMON_DIAGNOSTICS, Loss, LossInput
from two_tower.loss.in_batch import InBatchLoss
from two_tower.loss.matryoshka import MatryoshkaLoss
from two_tower.loss.sum import SumLoss
from two_tower.loss.triplet import TripletLoss
from two_tower.similarity import SIMILARITIES, Similarity

DIM = 6


class World(NamedTuple):
    q_BD: Tensor  # double
    d_ND: Tensor
    mask: Tensor  # (B, N): which documents each query is pushed away from

    def input(self, name: str, *vectors: Tensor) -> LossInput:
        similarity = Similarity(name)
        q_BD, d_ND = map(similarity.prepare, vectors or self[:2])
        return LossInput(q_BD, d_ND, self.mask, similarity)

    def scores(self, name: str) -> Tensor:
        return self.input(name).scores.float()

    def leaves(self, dtype: torch.dtype = torch.float64) -> list[Tensor]:
        return [vectors.to(dtype).requires_grad_() for vectors in self[:2]]


def loop_scores(name: str, q_BD: Tensor, d_ND: Tensor, dim: int = DIM) -> Scores:
    return [[oracles.similarity(q[:dim], d[:dim], name) for d in d_ND] for q in q_BD]


def world(count: int, extras: int, whole_batch: bool, seed: int) -> World:
    generator = torch.Generator().manual_seed(seed)
    documents = count * (1 + extras)
    q_BD, d_ND = (torch.randn(n, DIM, generator=generator, dtype=torch.float64) for n in (count, documents))
    mask = torch.rand(count, documents, generator=generator) < 0.7
    mask[:, :count] &= whole_batch & ~torch.eye(count, dtype=torch.bool)
    if not whole_batch:
        mask[:, count:] &= torch.eye(count, dtype=torch.bool).repeat_interleave(extras, 1)
    return World(q_BD, d_ND, mask)


GRID = [
    (count, extras, whole_batch, seed)
    for seed, (count, extras) in enumerate(((1, 0), (1, 2), (7, 0), (4, 2), (9, 1)))
    for whole_batch in (True, False)
    if whole_batch or extras
]


@cache
def loop(case: tuple[int, int, bool, int], name: str) -> tuple[list[Tensor], Scores, Mask]:
    batch = world(*case)
    leaves = batch.leaves()
    return leaves, loop_scores(name, *leaves), batch.mask.tolist()


def gradient(value: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Zeros for a value that nothing adds to."""
    if not value.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    return list(torch.autograd.grad(value, leaves, retain_graph=True, materialize_grads=True))


Oracle = Callable[[Scores, Mask], Tensor]


def in_batch(temperature: float, symmetric: bool) -> Oracle:
    return lambda s, m: oracles.in_batch_loss(s, m, temperature, symmetric)


def triplet(margin: float, softness: float = 0.0, select: str = "all") -> Oracle:
    return lambda s, m: oracles.triplet_loss(s, m, margin, softness, select)


LOSSES: dict[str, tuple[Callable[[], Loss], Oracle]] = {
    "in_batch": (lambda: InBatchLoss(0.2), in_batch(0.2, True)),
    "one way": (lambda: InBatchLoss(0.05, symmetric=False), in_batch(0.05, False)),
    # Not 0.3: the parameter is a logarithm in float32.
    "learned": (lambda: InBatchLoss(1.0, learn_temperature=True).double(), in_batch(1.0, True)),
    "triplet": (lambda: TripletLoss(0.3), triplet(0.3)),
    "soft": (lambda: TripletLoss(0.5, softness=0.2), triplet(0.5, 0.2)),
    "hardest": (lambda: TripletLoss(1.0, select="hardest"), triplet(1.0, select="hardest")),
    "semi_hard": (lambda: TripletLoss(0.4, select="semi_hard"), triplet(0.4, select="semi_hard")),
    "soft semi_hard": (lambda: TripletLoss(2.0, softness=1.0, select="semi_hard"), triplet(2.0, 1.0, "semi_hard")),
    "sum": (
        lambda: SumLoss({"near": 0.5}, near=TripletLoss(1.0, select="hardest"), all=InBatchLoss(0.2)),
        lambda s, m: 0.5 * triplet(1.0, select="hardest")(s, m) + in_batch(0.2, True)(s, m),
    ),
}  # fmt: skip


each_loss = pytest.mark.parametrize(("make", "oracle"), LOSSES.values(), ids=LOSSES)
each_make = pytest.mark.parametrize("make", [make for make, _ in LOSSES.values()], ids=LOSSES)


def ours(loss: Loss, batch: World, name: str, leaves: list[Tensor]) -> Tensor:
    return loss(batch.input(name, *leaves)).loss


@pytest.mark.parametrize(
    ("name", "dtype", "near"),
    [*((name, torch.float64, 1e-8) for name in SIMILARITIES), ("cosine", torch.float32, 1e-5)],
)
@each_loss
def test_value_and_gradient_equal_a_plain_loop(
    make: Callable[[], Loss], oracle: Oracle, name: str, dtype: torch.dtype, near: float
) -> None:
    for case in GRID:
        leaves, scores, mask = loop(case, name)
        own = world(*case).leaves(dtype)
        found, expected = ours(make().to(dtype), world(*case), name, own), oracle(scores, mask)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, atol=near, rtol=near)
        grads = [grad.double() for grad in gradient(found, own)]
        torch.testing.assert_close(grads, gradient(expected, leaves), atol=10 * near, rtol=10 * near)


def test_the_grid_has_what_it_must() -> None:
    """Negative control: without these cases the comparison above would say less."""
    masks = [world(*case).mask for case in GRID]
    squares = [mask[:, : len(mask)] for mask in masks]
    assert any(not mask.any(1).all() for mask in masks)  # queries without negatives
    assert any((s != s.T).any() for s in squares)  # masks that are not the same in both directions
    assert any(s.any() and (~s).sum() > len(s) for s in squares)  # more than one positive


@each_loss
def test_the_comparison_can_fail(make: Callable[[], Loss], oracle: Oracle) -> None:
    """Negative controls: each way in which a loss could be wrong is told apart in some batch."""
    told_apart = set()
    for seed in range(4):
        case = (7, 1, True, seed)
        leaves, scores, mask = loop(case, "cosine")
        value = ours(make(), world(*case), "cosine", leaves).item()
        wrong = {
            "positives as negatives": (scores, [[i != j for j in range(len(row))] for i, row in enumerate(mask)]),
            "other negatives": (scores, world(7, 1, False, seed).mask.tolist()),
            "distances for scores": ([[-s for s in row] for row in scores], mask),
            "another positive": ([[row[i - 1] if i == j else s for j, s in enumerate(row)]
                                  for i, row in enumerate(scores)], mask),
        }  # fmt: skip
        told_apart |= {k for k, inputs in wrong.items() if value != pytest.approx(oracle(*inputs).item(), abs=1e-6)}
    assert told_apart == {*wrong}


@pytest.mark.parametrize("name", SIMILARITIES)
def test_the_gradient_of_a_learned_temperature_equals_a_plain_loop(name: str) -> None:
    loss = InBatchLoss(0.5, learn_temperature=True).double()
    log_temperature = loss.log_temperature.detach().clone().requires_grad_()
    for case in GRID:
        leaves, scores, mask = loop(case, name)
        found = torch.autograd.grad(ours(loss, world(*case), name, leaves), loss.log_temperature)
        value = oracles.in_batch_loss(scores, mask, log_temperature.exp(), True)
        expected = torch.autograd.grad(value, log_temperature)
        torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize(("dims", "lengths"), [(None, [6, 3, 1]), ([4], [6, 4]), ([1, 6, 3], [6, 3, 1])])
@pytest.mark.parametrize("name", SIMILARITIES)
def test_matryoshka_is_the_mean_over_shortened_vectors(name: str, dims: list[int] | None, lengths: list[int]) -> None:
    loss = MatryoshkaLoss(InBatchLoss(0.2), DIM, dims)
    assert loss.dims == lengths
    batch = world(5, 1, True, 0)
    found, expected = batch.leaves(), batch.leaves()
    value, diagnostics = loss(batch.input(name, *found))
    assert SumLoss({"a": 0.5}, a=loss)(batch.input(name, *found)).loss.item() == pytest.approx(value.item() / 2)
    mask, oracle = batch.mask.tolist(), in_batch(0.2, True)
    each = [oracle(loop_scores(name, *expected, dim=length), mask) for length in lengths]
    target = oracles.mean_of(each)
    torch.testing.assert_close(value, target)
    value.backward()
    target.backward()
    for leaf, other in zip(found, expected, strict=True):
        torch.testing.assert_close(leaf.grad, other.grad)
    for length, one in zip(lengths, each, strict=True):
        assert diagnostics[f"dim_{length}/loss"].item() == pytest.approx(one.item())
    assert not torch.isclose(value, each[0]).item()  # negative control: the lengths do not agree


@pytest.mark.parametrize("case", GRID)
def test_diagnostics_are_what_their_names_say(case: tuple[int, int, bool, int]) -> None:
    batch = world(*case)
    scores = loop_scores("cosine", batch.q_BD, batch.d_ND)
    expected = oracles.loss_diagnostics(scores, batch.mask.tolist(), margin=0.6)
    tensor = torch.tensor([[s.item() for s in row] for row in scores])
    own = {"in_batch": "active_triplets", "triplet": "chance_loss"}  # what the other one reports
    for name, loss in (("in_batch", InBatchLoss()), ("triplet", TripletLoss(0.6, select="hardest"))):
        found = {k: v.item() for k, v in loss(of_scores(tensor, batch.mask)).diagnostics.items()}
        assert found == pytest.approx({k: v for k, v in expected.items() if k != own[name]}, abs=1e-6)
    output = loss(of_scores(tensor.requires_grad_(), batch.mask))
    assert all(not v.requires_grad for v in output.diagnostics.values())


def test_a_sum_names_what_is_not_common() -> None:
    loss = SumLoss({"b": 0.0}, a=InBatchLoss(), b=TripletLoss(0.3), c=TripletLoss(0.5))
    value, found = loss(of_scores(torch.rand(4, 4)))
    assert {k for k in found if "/" not in k} == {*COMMON_DIAGNOSTICS}
    assert {"a/chance_loss", "b/active_triplets", "c/active_triplets"} <= {*found}
    assert value.item() == pytest.approx((found["a/loss"] + found["c/loss"]).item())  # b is only logged


def test_collapsed_vectors_read_as_chance_and_margin() -> None:
    """The failure that this project exists for, in one line each."""
    batch = of_scores(torch.full((8, 8), 0.7))
    softmax, triplet = InBatchLoss()(batch), TripletLoss(0.3)(batch)
    assert softmax.loss.item() == pytest.approx(math.log(8))
    assert softmax.diagnostics["chance_loss"].item() == pytest.approx(math.log(8))
    assert softmax.diagnostics["accuracy"].item() == 0
    assert triplet.loss.item() == pytest.approx(0.3)
    assert triplet.diagnostics["active_triplets"].item() == 1
    assert triplet.diagnostics["accuracy"].item() == 0
    assert TripletLoss(0.3, select="semi_hard")(batch).loss.item() == 0  # none is below its positive


@each_make
def test_extreme_scores_stay_finite_and_a_diverged_model_is_not_hidden(make: Callable[[], Loss]) -> None:
    batch = world(6, 1, True, 0)
    scores = (batch.scores("dot") * 1e3).requires_grad_()
    loss = make().float()(of_scores(scores, batch.mask)).loss
    loss.backward()
    assert loss.isfinite()
    assert scores.grad.isfinite().all()
    assert make().float()(of_scores(torch.full((4, 4), torch.nan))).loss.isnan()


@each_make
def test_half_precision_scores_are_reduced_in_float32(make: Callable[[], Loss]) -> None:
    batch = world(7, 1, True, 0)
    half, loss = batch.scores("cosine").bfloat16(), make().float()
    values = [loss(of_scores(scores, batch.mask)).loss.item() for scores in (half, half.float())]
    assert values[0] == values[1]


def test_a_loss_on_vectors_needs_nothing_else() -> None:
    """In a sum it counts with its weight, in a matryoshka at each length."""
    batch = world(5, 1, True, 0)
    given = batch.input("cosine")
    alone, other = UniformityLoss(), InBatchLoss(0.2)
    both = SumLoss({"uniform": 0.5}, uniform=alone, in_batch=other)(given)
    assert both.loss.item() == pytest.approx((0.5 * alone(given).loss + other(given).loss).item())
    assert both.diagnostics["uniform/uniformity"].item() == pytest.approx(alone(given).diagnostics["uniformity"].item())
    lengths = [alone(given.leading(dim)).loss.item() for dim in (DIM, 2)]
    assert MatryoshkaLoss(alone, DIM, [2])(given).loss.item() == pytest.approx(sum(lengths) / 2)


def test_losses_import_the_similarity_alone() -> None:
    """Neither Lightning nor anything else of the package."""
    found = set[str]()
    package = ROOT / "two_tower"
    for path in (package / "__init__.py", package / "similarity.py", *(package / "loss").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                found.add(node.module or "")
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
    assert {name.partition(".")[0] for name in found} - sys.stdlib_module_names == {"torch", "two_tower"}
    own = {name.removeprefix("two_tower.") for name in found if name.startswith("two_tower")}
    assert own == {"loss.base", "similarity", "places"}  # where libraries may write, which imports nothing


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InBatchLoss(0), "temperature=0 must be above 0"),
        (lambda: InBatchLoss(0.005, learn_temperature=True), r"temperature=0\.005 must be at least 0\.01"),
        (lambda: TripletLoss(-0.1), r"margin=-0\.1 must be above 0"),
        (lambda: TripletLoss(softness=-1), "softness=-1 must be at least 0"),
        (lambda: MatryoshkaLoss(InBatchLoss(), 16, [8, 32]), r"dims=\[8, 32\] must be from 1 to 16"),
        (lambda: SumLoss(a=3), r"a is neither .* \+loss@loss\.a=CHOICE"),
        (lambda: SumLoss({"triplt": 1}, triplet=TripletLoss()), r"weights\.triplt .* valid: triplet"),
        (lambda: SumLoss({"a": -1.0}, a=TripletLoss()), r"weights\.a=-1\.0 must be a number of at least 0"),
        (lambda: SumLoss(), "weights leaves nothing to learn from"),
    ],
)
def test_impossible_values_are_refused(make: Callable[[], Loss], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
