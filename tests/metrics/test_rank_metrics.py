"""The torchmetrics class against the pure functions: batches, resets, Lightning. Processes: test_distributed.py."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import lightning as L
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from two_tower.errors import UserError
from two_tower.metrics import DEFAULT_METRICS, Qrels, from_ranks, mean
from two_tower.metrics.rank_metrics import RankMetrics

NAMES = (*DEFAULT_METRICS, "map", "success@3")
QUERIES = 37


def judged(seed: int = 0) -> tuple[np.ndarray, Qrels]:
    """Ranks and judgements of 37 queries, none to six of each; the last query has none."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.integers(0, QUERIES - 1, 110))
    ranks, grades = rng.integers(0, 14, 110), rng.integers(-1, 4, 110)
    return ranks, Qrels(rows, np.arange(110), grades.astype(np.int32), QUERIES)


def batch(ranks: np.ndarray, qrels: Qrels, queries: Sequence[int]) -> tuple[np.ndarray, Qrels]:
    """Some of the queries, as a batch of their own."""
    parts = [np.flatnonzero(qrels.query_rows == query) for query in queries]
    found = np.concatenate([*parts, np.zeros(0, np.int64)]).astype(np.int64)
    rows = np.repeat(np.arange(len(queries)), [len(part) for part in parts])
    return ranks[found], Qrels(rows, qrels.document_rows[found], qrels.grades[found], len(queries))


def numbers(values: dict[str, Tensor]) -> dict[str, float]:
    assert all(value.shape == () and value.dtype == torch.float64 for value in values.values())
    return {name: value.item() for name, value in values.items()}


@settings(deadline=None, max_examples=60)
@given(st.permutations(range(QUERIES)), st.sets(st.integers(0, QUERIES)), st.integers(1, 3), st.booleans())
def test_batches_give_the_means_of_all_queries(
    order: list[int], cuts: set[int], threshold: int, as_tensors: bool
) -> None:
    ranks, qrels = judged()
    metrics = RankMetrics(NAMES, threshold)
    borders = [0, *sorted(cuts), QUERIES]
    for start, end in pairwise(borders):
        part, part_qrels = batch(ranks, qrels, order[start:end])
        metrics.update(torch.from_numpy(part) if as_tensors else part, part_qrels)
    expected = mean(from_ranks(ranks, qrels, NAMES, threshold))
    assert numbers(metrics.compute()) == expected  # bit for bit
    assert len({*expected.values()}) > 3
    assert min(expected.values()) > 0


def test_forward_gives_the_batch_and_keeps_all() -> None:
    ranks, qrels = judged()
    metrics = RankMetrics(NAMES)
    for queries in (range(5), range(5, QUERIES)):
        part = batch(ranks, qrels, queries)
        assert numbers(metrics(*part)) == mean(from_ranks(*part, NAMES))
    assert numbers(metrics.compute()) == mean(from_ranks(ranks, qrels, NAMES))


def test_queries_twice_would_count_twice() -> None:
    """Negative control: the comparison notices a query that is missing or repeated."""
    ranks, qrels = judged()
    expected = mean(from_ranks(ranks, qrels, NAMES))
    for queries in (range(QUERIES - 1), [*range(QUERIES), 0]):
        metrics = RankMetrics(NAMES)
        metrics.update(*batch(ranks, qrels, queries))
        assert numbers(metrics.compute()) != expected


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_queries_and_reset() -> None:
    metrics, nothing = RankMetrics(), dict.fromkeys(DEFAULT_METRICS, 0.0)
    assert numbers(metrics.compute()) == nothing
    ranks, qrels = judged()
    metrics.update(ranks, qrels)
    assert numbers(metrics.compute())["mrr"] > 0
    metrics.reset()
    assert numbers(metrics.compute()) == nothing
    metrics.reset()
    metrics.update(*batch(ranks, qrels, []))
    assert numbers(metrics.compute()) == nothing
    metrics.update(*batch(ranks, qrels, [3]))
    assert numbers(metrics.compute()) == mean(from_ranks(*batch(ranks, qrels, [3]), DEFAULT_METRICS))


def test_a_module_of_half_precision_keeps_the_figures() -> None:
    ranks, qrels = judged()
    metrics = pickle.loads(pickle.dumps(torch.nn.ModuleList([RankMetrics(NAMES)]).half()))[0]
    metrics.update(ranks, qrels)
    assert numbers(metrics.compute()) == mean(from_ranks(ranks, qrels, NAMES))


def test_unknown_metric() -> None:
    with pytest.raises(UserError, match="did you mean 'mrr'"):
        RankMetrics(["mmr@10"])


class Evaluated(L.LightningModule):
    """A module that evaluates itself, as the docstring says."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics = RankMetrics(NAMES)

    def validation_step(self, part: range, _: int) -> None:
        self.metrics.update(*batch(*judged(), part))

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.metrics.compute())
        self.metrics.reset()


@pytest.mark.filterwarnings("ignore:.*num_workers")
def test_lightning_logs_it() -> None:
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    parts = [range(start, min(start + 8, QUERIES)) for start in range(0, QUERIES, 8)]
    loader = DataLoader(cast(Dataset[range], parts), batch_size=None)
    module = Evaluated()
    for _ in range(2):  # the second time on a metric that was reset
        (logged,) = trainer.validate(module, loader, verbose=False)
        assert logged == mean(from_ranks(*judged(), NAMES))


def test_the_functions_do_without_torchmetrics() -> None:
    """It takes two seconds, which ``two-tower --help`` shall not."""
    heavy = "{'torchmetrics', 'torch'} & sys.modules.keys()"
    code = f"import sys, two_tower.cli, two_tower.metrics; sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
