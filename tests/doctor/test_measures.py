"""Each signal against a plain computation of the same."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from doctor.faulty import AveragesPadding, Detached, OwnTower
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from two_tower.data.stream.batch import Batch
from two_tower.doctor.base import Check, Clock, Probe, Signals, Step
from two_tower.doctor.measure_batch import difference_alone, look
from two_tower.doctor.measure_step import Stopwatch, Weights, gradients, standard_errors_below
from two_tower.doctor.record import similarities
from two_tower.loss.base import Loss, LossInput
from two_tower.loss.in_batch import InBatchLoss
from two_tower.loss.matryoshka import MatryoshkaLoss
from two_tower.loss.triplet import TripletLoss
from two_tower.model import TwoTower
from two_tower.ragged import Ragged
from two_tower.similarity import Similarity
from two_tower.tower.average import AverageTower
from two_tower.tower.base import WordTable


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
    assert sum(probe.positives) == texts
    assert sum(probe.negatives) == len(pairs)
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


def test_equal_vectors_are_seen_as_collapsed_and_orthogonal_ones_as_spread() -> None:
    same = looked(torch.ones(16, 8), torch.ones(16, 8), InBatchLoss(), batch_of(16, 0))
    assert (same.cosine, same.position) == pytest.approx((1, 1))
    assert same.rank == pytest.approx(1, abs=0.05)
    assert same.uniformity == pytest.approx(0, abs=1e-5)
    nearly = torch.ones(16, 8) + 1e-6 * torch.randn(16, 8)  # scores that differ in the last digits only
    assert sum(looked(nearly, nearly, InBatchLoss(), batch_of(16, 0)).positives) == 16
    apart = looked(torch.eye(16), torch.eye(16), InBatchLoss(), batch_of(16, 0))
    assert apart.cosine == pytest.approx(0)
    assert apart.rank == pytest.approx(16, rel=1e-3)


def test_levels_of_a_loss_are_the_margin_and_the_logarithm_of_the_candidates() -> None:
    texts = torch.randn(20, 8)
    batch = batch_of(20, 0)
    assert looked(texts, texts, TripletLoss(0.3), batch).trivial == pytest.approx(0.3)
    assert looked(texts, texts, TripletLoss(0.3), batch).ideal == 0
    chance = looked(texts, texts, InBatchLoss(0.05), batch)
    assert chance.trivial == pytest.approx(math.log(20))
    assert chance.ideal < 1e-6
    assert looked(texts, texts, InBatchLoss(100.0), batch).ideal > 0.99 * math.log(20)


def test_a_loss_of_several_lengths_and_a_large_batch_are_looked_at_in_part() -> None:
    loss = MatryoshkaLoss(InBatchLoss(), 8)
    probe = looked(torch.randn(300, 8), torch.randn(900, 8), loss, batch_of(300, 600))
    assert probe.queries == 64
    assert math.isfinite(probe.loss)


def test_only_the_hardest_candidate_is_noticed() -> None:
    queries, documents = torch.randn(12, 8), torch.randn(12, 8)
    batch = batch_of(12, 0)
    assert looked(queries, documents, TripletLoss(select="hardest"), batch).single
    assert not looked(queries, documents, TripletLoss(margin=2.0), batch).single
    assert not looked(queries, documents, InBatchLoss(), batch).single


def test_numbers_that_are_none_are_noticed() -> None:
    queries, documents = torch.randn(8, 4), torch.randn(8, 4)
    queries[2] = math.nan
    assert looked(queries, documents, InBatchLoss(), batch_of(8, 0)).not_finite


def model_of(tower: Any) -> TwoTower:  # noqa: ANN401
    return TwoTower(tower, tower, Similarity(), InBatchLoss())


def table() -> WordTable:
    torch.manual_seed(0)
    words = WordTable(50, 8)
    words.initialize(torch.randn(50, 8), None)
    return words


@pytest.mark.parametrize(
    ("tower", "least", "most"), [(AverageTower, 0, 1e-5), (OwnTower, 0, 1e-5), (AveragesPadding, 0.2, 9)]
)
def test_a_text_by_itself_and_in_a_batch(tower: Any, least: float, most: float) -> None:  # noqa: ANN401
    tokens = Ragged.from_lists([[1], [2, 3], [4, 5, 6, 7, 8, 9]])
    difference = difference_alone(model_of(tower(table(), 8)), {"queries": tokens, "documents": tokens})
    assert least <= difference <= most


def test_gradients_by_part_and_what_has_none() -> None:
    batch = batch_of(6, 0)
    for tower, cut in ((AverageTower(table(), 8), False), (Detached(table(), 8), True)):
        model = model_of(tower)
        vectors = model.queries(batch.queries), model.documents(batch.documents)
        InBatchLoss()(LossInput(*vectors, batch.negatives, model.similarity)).loss.backward()
        norms, without, frozen = gradients(model).values()
        grad = tower.words.vectors.grad
        expected = 0.0 if grad is None else float(grad.coalesce().values().norm())
        assert norms["towers words"] == pytest.approx(expected, rel=0.5)
        assert without["towers words"] == pytest.approx(1.0 if cut else 0.0)
        assert frozen["towers words"] == 0
        assert ("towers" in norms) == cut
    table_only = table()
    table_only.freeze()
    assert gradients(model_of(AverageTower(table_only, 8)))["frozen"]["towers words"] == pytest.approx(400 / 450)


def test_a_change_is_told_in_relation_to_what_was_changed() -> None:
    batch, tower = batch_of(6, 0), OwnTower(table(), 8)
    weights = Weights(model_of(tower), batch)
    with torch.no_grad():
        tower.words.vectors.mul_(1.25)
        tower.layer.weight.mul_(0.9)
    assert weights.changes() == {"towers words": pytest.approx(0.25), "towers": pytest.approx(0.1)}


def test_standard_errors_are_paired() -> None:
    before, now = np.array([1.0, 0.0, 1.0, 0.5]), np.array([0.5, 0.0, 0.5, 0.5])
    difference = before - now
    assert standard_errors_below(now, before) == pytest.approx(difference.mean() / (difference.std() / 2))
    assert math.isnan(standard_errors_below(now, None))
    assert standard_errors_below(now, now) == 0


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


def test_signals_survive_a_checkpoint_and_a_file() -> None:
    texts = torch.randn(8, 4)
    signals = Signals(config={"seed": 1}, steps=[Step(1, 2.0)], checks=[Check("epoch 1", 9, 1.0, 0.5)])
    signals.probes.append(looked(texts, texts, InBatchLoss(), batch_of(8, 0)))
    again = Signals.from_plain(json.loads(json.dumps(signals.to_plain())), {"seed": 1})
    assert json.dumps(again.to_plain()) == json.dumps(signals.to_plain())
    assert again.probes[0].position == signals.probes[0].position


def test_the_picture_is_svg_with_a_line_for_each_of_twelve_looks(tmp_path: Path) -> None:
    from xml.etree import ElementTree

    texts = torch.randn(8, 4)
    probe = looked(texts, texts, InBatchLoss(), batch_of(8, 0))
    signals = Signals(probes=[Probe(**{**vars(probe), "step": step}) for step in range(1, 31)])
    root = ElementTree.fromstring(similarities(signals))
    labels = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert sum(str(label).startswith("step ") for label in labels) == 12
    assert "step 1" in labels
    assert "step 30" in labels
    ElementTree.fromstring(similarities(Signals()))
