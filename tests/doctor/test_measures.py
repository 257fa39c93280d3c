"""Each signal against a plain computation of the same."""

import math
from dataclasses import replace
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from two_tower.data.stream.batch import Batch
from two_tower.doctor.base import Clock, Probe, Signals
from two_tower.doctor.measure_batch import look
from two_tower.doctor.measure_step import Stopwatch, standard_errors_below
from two_tower.doctor.record import similarities
from two_tower.loss.base import Loss, LossInput
from two_tower.loss.in_batch import InBatchLoss
from two_tower.loss.matryoshka import MatryoshkaLoss
from two_tower.loss.triplet import TripletLoss
from two_tower.ragged import Ragged
from two_tower.similarity import Similarity


def batch_of(texts: int, extras: int, seed: int = 0, negatives: Tensor | None = None) -> Batch:
    rng = np.random.default_rng(seed)
    count = texts + extras

    def tokens(n: int) -> Ragged:
        return Ragged.from_lists([rng.integers(1, 50, rng.integers(1, 9)).tolist() for _ in range(n)])

    mask = ~torch.eye(texts, count, dtype=torch.bool) if negatives is None else negatives
    return Batch(tokens(texts), tokens(count), mask, torch.arange(texts), torch.arange(count))


def looked(queries: Tensor, documents: Tensor, loss: Loss, batch: Batch, similarity: str = "cosine") -> Probe:
    measure = Similarity(similarity)
    seen = LossInput(measure.prepare(queries), measure.prepare(documents), batch.negatives, measure)
    return look(3, True, batch, seen, loss, None)


@given(st.integers(2, 12), st.integers(0, 2), st.integers(0, 10_000), st.sampled_from(["cosine", "dot", "euclidean"]))
@settings(max_examples=30)
def test_a_look_at_a_whole_batch_gives_its_figures(texts: int, each: int, seed: int, similarity: str) -> None:
    torch.manual_seed(seed)
    count = texts * (1 + each)
    queries, documents = torch.randn(texts, 8), torch.randn(count, 8)
    mask = (torch.rand(texts, count) < 0.7) & ~torch.eye(texts, count, dtype=torch.bool)
    batch, loss = batch_of(texts, texts * each, seed, mask), TripletLoss(0.4)
    probe = looked(queries, documents, loss, batch, similarity)
    measure = Similarity(similarity)
    whole = LossInput(measure.prepare(queries), measure.prepare(documents), mask, measure)
    scores = whole.scores
    pairs = [(i, j) for i in range(texts) for j in range(count) if mask[i, j]]
    assert probe.loss == pytest.approx(loss(whole).loss.item(), abs=1e-5)
    assert probe.trivial == pytest.approx(0.4 if pairs else 0.0)
    assert probe.positive == pytest.approx(float(scores.diagonal().mean()), abs=1e-5)
    assert probe.negative == pytest.approx(np.mean([scores[p].item() for p in pairs]) if pairs else 0, abs=1e-5)
    active = [any(scores[i, j] - scores[i, i] + 0.4 > 0 for k, j in pairs if k == i) for i in {i for i, _ in pairs}]
    assert probe.active == pytest.approx(np.mean(active) if active else 0)
    right = [all(scores[i, i] > scores[i, j] for k, j in pairs if k == i) for i in {i for i, _ in pairs}]
    assert probe.accuracy == pytest.approx(np.mean(right) if right else 0)
    assert (sum(probe.positives), sum(probe.negatives)) == (texts, len(pairs))
    assert probe.candidates == pytest.approx(len(pairs) / texts)


@given(st.integers(3, 40), st.integers(2, 12), st.integers(0, 10_000))
@settings(max_examples=25)
def test_the_geometry_is_that_of_loops(texts: int, dim: int, seed: int) -> None:
    torch.manual_seed(seed)
    queries, documents = torch.randn(texts, dim), torch.randn(texts, dim) * 3
    probe = looked(queries, documents, InBatchLoss(), batch_of(texts, 0), "dot")
    q, d = (nn.functional.normalize(v.double(), dim=1).numpy() for v in (queries, documents))
    pairs = [(i, j) for i in range(texts) for j in range(texts) if i != j]
    assert probe.cosine == pytest.approx(np.mean([d[i] @ d[j] for i, j in pairs]), abs=1e-5)
    assert probe.alignment == pytest.approx(np.square(q - d).sum(1).mean(), abs=1e-4)
    kernel = np.mean([math.exp(-2 * np.sum((d[i] - d[j]) ** 2)) for i, j in pairs])
    assert probe.uniformity == pytest.approx(math.log(kernel), abs=1e-4)
    singular = np.linalg.svd(documents.double().numpy(), compute_uv=False)
    shares = singular / singular.sum() + 1e-7  # RankMe, Garrido et al. 2023, arXiv:2210.02885
    assert probe.rank == pytest.approx(math.exp(-np.sum(shares * np.log(shares))), rel=0.02)
    assert probe.norm == pytest.approx(float(documents.norm(dim=1).mean()), rel=1e-5)


def test_vectors_that_are_nearly_equal_are_seen_as_collapsed() -> None:
    nearly = torch.ones(16, 8) + 1e-6 * torch.randn(16, 8)  # scores that differ in the last digits only
    same = looked(nearly, nearly, InBatchLoss(), batch_of(16, 0))
    assert (same.cosine, same.position, sum(same.positives)) == pytest.approx((1, 1, 16))
    assert same.rank == pytest.approx(1, abs=0.05)
    assert same.uniformity == pytest.approx(0, abs=1e-5)


def test_a_loss_of_several_lengths_and_a_large_batch_are_looked_at_in_part() -> None:
    loss = MatryoshkaLoss(InBatchLoss(), 8)
    probe = looked(torch.randn(300, 8), torch.randn(900, 8), loss, batch_of(300, 600))
    assert probe.queries == 64
    assert math.isfinite(probe.loss)


def test_standard_errors_are_paired() -> None:
    before, now = np.tile([1.0, 0.0, 1.0, 0.5], 4), np.tile([0.5, 0.0, 0.5, 0.5], 4)
    difference = before - now
    assert standard_errors_below(now, before) == pytest.approx(difference.mean() / (difference.std() / 4))
    assert math.isnan(standard_errors_below(now, None))
    assert standard_errors_below(now, now) == 0
    assert math.isnan(standard_errors_below(now[:9], before[:9]))  # of so few queries it says nothing


def test_waiting_is_told_from_working(monkeypatch: pytest.MonkeyPatch) -> None:
    now = SimpleNamespace(time=0.0)
    monkeypatch.setattr("two_tower.doctor.measure_step.time.perf_counter", lambda: now.time)
    watch = Stopwatch()
    for _ in range(20):
        for seconds, call in ((3, watch.start), (1, watch.mark), (2, watch.mark), (4, lambda: watch.end(own=1))):
            now.time += seconds
            call()
    clock = Clock()
    watch.read(clock)
    assert (clock.data, clock.forward, clock.backward, clock.optimizer) == (3, 1, 2, 3)
    assert clock.steps == 19  # the first has nothing to have waited since


def test_the_picture_is_svg_with_a_line_for_each_of_twelve_looks() -> None:
    texts = torch.randn(8, 4)
    probe = looked(texts, texts, InBatchLoss(), batch_of(8, 0))
    signals = Signals(probes=[replace(probe, step=step) for step in range(1, 31)])
    root = ElementTree.fromstring(similarities(signals))
    labels = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text") if str(e.text).startswith("step ")]
    assert len(labels) == 12
    assert {"step 1", "step 30"} <= set(labels)
    ElementTree.fromstring(similarities(Signals()))
