"""Losses, their gradients, masks and diagnostics against plain loops in double precision, from vectors on."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import oracles
import pytest
import torch
import yaml
from conftest import ROOT
from oracles import Mask, Scores
from torch import Tensor
from training import UniformityLoss, of_scores

from two_tower.config.check import CONF, choices
from two_tower.loss.base import COMMON_DIAGNOSTICS, Loss, LossInput
from two_tower.loss.in_batch import InBatchLoss
from two_tower.loss.margin_mse import MarginMSELoss
from two_tower.loss.matryoshka import MatryoshkaLoss
from two_tower.loss.sum import SumLoss
from two_tower.loss.triplet import TripletLoss
from two_tower.negatives.base import KnownPositives, NegativeMask
from two_tower.similarity import SIMILARITIES, Similarity

DIM = 6


@dataclass(frozen=True)
class World:
    """A batch of a small corpus with equal texts and several positives a query."""

    queries: list[int]  # rows
    documents: list[int]
    query_text: list[int]  # of each row; equal numbers are equal texts
    document_text: list[int]
    pairs: list[tuple[int, int]]  # rows that are judged relevant
    whole_batch: bool  # whether queries are pushed away from each other's documents
    q_TD: Tensor  # a vector for each text, double
    d_TD: Tensor

    def relevant(self, query: int, document: int) -> bool:
        texts = [(self.query_text[q], self.document_text[d]) for q, d in self.pairs]
        return (self.query_text[query], self.document_text[document]) in texts

    def mask(self) -> Tensor:
        """The package's."""
        rows = np.array(self.pairs)
        known = KnownPositives(rows[:, 0], rows[:, 1], np.array(self.query_text), np.array(self.document_text))
        queries, documents = np.array(self.queries), np.array(self.documents)
        return torch.from_numpy(NegativeMask(known, self.whole_batch).in_batch(queries, documents))

    def input(self, name: str, q_TD: Tensor, d_TD: Tensor) -> LossInput:
        similarity = Similarity(name)
        q_BD, d_ND = map(similarity.prepare, self.vectors(q_TD, d_TD))
        return LossInput(q_BD, d_ND, self.mask(), similarity)

    def scores(self, name: str) -> Tensor:
        return self.input(name, self.q_TD, self.d_TD).scores.float()

    def leaves(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        return self.q_TD.to(dtype).requires_grad_(), self.d_TD.to(dtype).requires_grad_()

    def loop_mask(self) -> Mask:
        return oracles.negatives(self.queries, self.documents, self.relevant, self.whole_batch)

    def vectors(self, q_TD: Tensor, d_TD: Tensor) -> tuple[Tensor, Tensor]:
        texts = [self.query_text[q] for q in self.queries], [self.document_text[d] for d in self.documents]
        return q_TD[texts[0]], d_TD[texts[1]]

    def loop_scores(self, name: str, q_TD: Tensor, d_TD: Tensor, dim: int = DIM) -> Scores:
        q_BD, d_ND = self.vectors(q_TD, d_TD)
        return [[oracles.similarity(q[:dim], d[:dim], name) for d in d_ND] for q in q_BD]


def world(count: int, extras: int, whole_batch: bool, seed: int) -> World:
    rng = np.random.default_rng(seed)
    rows = 2 * count + 4
    query_text = rng.integers(0, rows - rows // 4, rows).tolist()
    document_text = rng.integers(0, rows - rows // 4, rows).tolist()
    pairs = [(q, int(d)) for q in range(rows) for d in rng.integers(0, rows, rng.integers(1, 4))]
    chosen = [pairs[p] for p in rng.integers(0, len(pairs), count)]
    queries = [q for q, _ in chosen]
    documents = [d for _, d in chosen] + rng.integers(0, rows, count * extras).tolist()
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(2, rows, DIM, generator=generator, dtype=torch.float64)
    return World(queries, documents, query_text, document_text, pairs, whole_batch, vectors[0], vectors[1])


GRID = [
    (count, extras, whole_batch, seed)
    for count, extras in ((1, 0), (1, 2), (2, 1), (7, 0), (4, 2), (9, 1))
    for whole_batch in (True, False)
    for seed in (0, 1)
    if whole_batch or extras
]


@cache
def loop(case: tuple[int, int, bool, int], name: str) -> tuple[tuple[Tensor, Tensor], Scores, Mask]:
    """A batch's vectors, and from plain loops its scores and its mask."""
    batch = world(*case)
    leaves = batch.leaves()
    return leaves, batch.loop_scores(name, *leaves), batch.loop_mask()


def gradient(value: Tensor, leaves: tuple[Tensor, Tensor]) -> list[Tensor]:
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


def ours(loss: Loss, batch: World, name: str, q_TD: Tensor, d_TD: Tensor) -> Tensor:
    return loss(batch.input(name, q_TD, d_TD)).loss


@pytest.mark.parametrize("name", SIMILARITIES)
@each_loss
def test_value_and_gradient_equal_a_plain_loop(make: Callable[[], Loss], oracle: Oracle, name: str) -> None:
    for case in GRID:
        leaves, scores, mask = loop(case, name)
        found, expected = ours(make(), world(*case), name, *leaves), oracle(scores, mask)
        torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-8)  # torch's softplus is linear from 20 on
        torch.testing.assert_close(gradient(found, leaves), gradient(expected, leaves), atol=1e-7, rtol=1e-7)


@each_loss
def test_float32_is_near_enough(make: Callable[[], Loss], oracle: Oracle) -> None:
    for case in GRID:
        leaves, scores, mask = loop(case, "cosine")
        single = world(*case).leaves(torch.float32)
        found, expected = ours(make().float(), world(*case), "cosine", *single), oracle(scores, mask)
        assert found.dtype == torch.float32
        assert found.item() == pytest.approx(expected.item(), abs=1e-5)
        grads = [grad.double() for grad in gradient(found, single)]
        torch.testing.assert_close(grads, gradient(expected, leaves), atol=1e-4, rtol=1e-4)


def test_the_grid_has_what_it_must() -> None:
    """Negative control: without these cases the comparison above would say less."""
    batches = [world(*case) for case in GRID]
    masks = [batch.mask() for batch in batches]
    squares = [mask[:, : len(mask)] for mask in masks]
    assert any(not mask.any(1).all() for mask in masks)  # queries without negatives
    assert any((s != s.T).any() for s in squares)  # masks that are not the same in both directions
    whole = [s for s, b in zip(squares, batches, strict=True) if b.whole_batch]
    assert any((~s).sum() > len(s) for s in whole)  # more than one positive
    assert any(len({*b.documents}) > len({b.document_text[d] for d in b.documents}) for b in batches)  # equal texts
    for batch, mask in zip(batches, masks, strict=True):
        assert mask.tolist() == batch.loop_mask()


@each_loss
def test_the_comparison_can_fail(make: Callable[[], Loss], oracle: Oracle) -> None:
    """Negative controls: each way in which a loss could be wrong is told apart in some batch."""
    told_apart = set()
    for seed in range(4):
        case = (7, 1, True, seed)
        leaves, scores, mask = loop(case, "cosine")
        value = ours(make(), world(*case), "cosine", *leaves).item()
        wrong = {
            "positives as negatives": (scores, [[i != j for j in range(len(row))] for i, row in enumerate(mask)]),
            "other negatives": (scores, replace(world(*case), whole_batch=False).loop_mask()),
            "distances for scores": ([[-s for s in row] for row in scores], mask),
            "another positive": ([[row[i - 1] if i == j else s for j, s in enumerate(row)]
                                  for i, row in enumerate(scores)], mask),
        }  # fmt: skip
        told_apart |= {k for k, inputs in wrong.items() if value != pytest.approx(oracle(*inputs).item(), abs=1e-6)}
    assert told_apart == {*wrong}


@pytest.mark.parametrize("name", SIMILARITIES)
def test_the_gradient_of_a_learned_temperature_equals_a_plain_loop(name: str) -> None:
    loss = InBatchLoss(0.5, learn_temperature=True).double()
    assert loss.log_temperature is not None
    log_temperature = loss.log_temperature.detach().clone().requires_grad_()
    for case in GRID:
        leaves, scores, mask = loop(case, name)
        found = torch.autograd.grad(ours(loss, world(*case), name, *leaves), loss.log_temperature)
        value = oracles.in_batch_loss(scores, mask, log_temperature.exp(), True)
        expected = torch.autograd.grad(value, log_temperature)
        torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-8)


def test_the_symmetric_direction_uses_the_transposed_mask() -> None:
    """One query has two documents of the batch as positives: both directions must leave that pair alone."""
    scores = torch.tensor([[0.3, 0.9], [0.1, 0.2]], dtype=torch.float64, requires_grad=True)
    negatives = torch.tensor([[False, False], [True, False]])  # document 1 is relevant to query 0 as well
    InBatchLoss(0.1)(of_scores(scores, negatives)).loss.backward()
    assert scores.grad is not None
    assert scores.grad[0, 1] == 0
    assert (scores.grad[[0, 1, 1], [0, 0, 1]] != 0).all()


@pytest.mark.parametrize(("dims", "lengths"), [(None, [6, 3, 1]), ([4], [6, 4]), ([1, 6, 3], [6, 3, 1])])
@pytest.mark.parametrize("name", SIMILARITIES)
def test_matryoshka_is_the_mean_over_shortened_vectors(name: str, dims: list[int] | None, lengths: list[int]) -> None:
    loss = MatryoshkaLoss(InBatchLoss(0.2), DIM, dims)
    assert loss.dims == lengths
    batch = world(5, 1, True, 0)
    found, expected = batch.leaves(), batch.leaves()
    value, diagnostics = loss(batch.input(name, *found))
    assert SumLoss({"a": 0.5}, a=loss)(batch.input(name, *found)).loss.item() == pytest.approx(value.item() / 2)
    mask, oracle = batch.loop_mask(), in_batch(0.2, True)
    each = [oracle(batch.loop_scores(name, *expected, dim=length), mask) for length in lengths]
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
    scores = batch.loop_scores("cosine", batch.q_TD, batch.d_TD)
    expected = oracles.loss_diagnostics(scores, batch.loop_mask(), margin=0.6)
    tensor = torch.tensor([[s.item() for s in row] for row in scores])
    own = {"in_batch": "active_triplets", "triplet": "chance_loss"}  # what the other one reports
    for name, loss in (("in_batch", InBatchLoss()), ("triplet", TripletLoss(0.6, select="hardest"))):
        found = {k: v.item() for k, v in loss(of_scores(tensor, batch.mask())).diagnostics.items()}
        assert found == pytest.approx({k: v for k, v in expected.items() if k != own[name]}, abs=1e-6)
    output = loss(of_scores(tensor.requires_grad_(), batch.mask()))
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
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_extreme_scores_stay_finite(make: Callable[[], Loss], scale: float) -> None:
    batch = world(6, 1, True, 0)
    scores = (batch.scores("dot") * scale).requires_grad_()
    loss = make().float()(of_scores(scores, batch.mask())).loss
    loss.backward()
    assert loss.isfinite()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()


@each_make
def test_a_diverged_model_is_not_hidden(make: Callable[[], Loss]) -> None:
    scores = torch.rand(4, 4)
    scores[1] = torch.nan
    assert make().float()(of_scores(scores)).loss.isnan()


@each_make
def test_half_precision_scores_are_reduced_in_float32(make: Callable[[], Loss]) -> None:
    batch = world(7, 1, True, 0)
    half, loss = batch.scores("cosine").bfloat16(), make().float()
    values = [loss(of_scores(scores, batch.mask())).loss.item() for scores in (half, half.float())]
    assert values[0] == values[1]


def test_a_loss_on_vectors_needs_nothing_else() -> None:
    """In a sum it counts with its weight, in a matryoshka at each length."""
    batch = world(5, 1, True, 0)
    given = batch.input("cosine", batch.q_TD, batch.d_TD)
    alone, other = UniformityLoss(), InBatchLoss(0.2)
    both = SumLoss({"uniform": 0.5}, uniform=alone, in_batch=other)(given)
    assert both.loss.item() == pytest.approx((0.5 * alone(given).loss + other(given).loss).item())
    assert both.diagnostics["uniform/uniformity"].item() == pytest.approx(alone(given).diagnostics["uniformity"].item())
    lengths = [alone(given.leading(dim)).loss.item() for dim in (DIM, 2)]
    assert MatryoshkaLoss(alone, DIM, [2])(given).loss.item() == pytest.approx(sum(lengths) / 2)


# The heaviest things that anything else of the package would bring along.
ELSEWHERE = ("lightning", "pyarrow", "tokenizers", "numba")
IMPORT = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
print(json.dumps([name for name in sys.modules if name.partition(".")[0] in ("two_tower", *sys.argv[2:])]))
"""


@pytest.mark.parametrize("choice", choices("loss"))
def test_importing_a_loss_imports_losses_and_the_similarity_alone(choice: str) -> None:
    module = yaml.safe_load((CONF / "loss" / f"{choice}.yaml").read_text())["_target_"].rpartition(".")[0]
    command = [sys.executable, "-c", IMPORT, module, *ELSEWHERE]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    names = json.loads(ended.stdout)
    assert module in names
    allowed = ("two_tower", "two_tower.similarity", "two_tower.loss")
    assert [name for name in names if name not in allowed and not name.startswith("two_tower.loss.")] == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InBatchLoss(0), "temperature=0 must be above 0"),
        (lambda: InBatchLoss(0.005, learn_temperature=True), r"temperature=0\.005 must be at least 0\.01"),
        (lambda: MarginMSELoss(0), "temperature=0 must be above 0"),
        (lambda: TripletLoss(-0.1), r"margin=-0\.1 must be above 0"),
        (lambda: TripletLoss(softness=-1), "softness=-1 must be at least 0"),
        (lambda: MatryoshkaLoss(InBatchLoss(), 16, [8, 32]), r"dims=\[8, 32\] must be from 1 to 16"),
        (lambda: SumLoss(a=3), r"a is neither .* \+loss@loss\.a=CHOICE"),
        (lambda: SumLoss({"triplt": 1}, triplet=TripletLoss()), r"weights\.triplt .* valid: triplet"),
        (lambda: SumLoss({"a": -1.0}, a=TripletLoss()), r"weights\.a=-1\.0 must be a number of at least 0"),
        (lambda: SumLoss({"a": "x"}, a=TripletLoss()), r"weights\.a=x must be a number"),
        (lambda: SumLoss({"a": 0}, a=TripletLoss()), "weights leaves nothing to learn from"),
        (lambda: SumLoss(), "weights leaves nothing to learn from"),
    ],
)
def test_impossible_values_are_refused(make: Callable[[], Loss], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
