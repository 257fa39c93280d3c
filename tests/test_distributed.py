"""Processes that rank and measure together, as real processes over gloo."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from two_tower.distributed import ProcessShare, share_of
from two_tower.metrics import DEFAULT_METRICS, Qrels, from_ranks, mean
from two_tower.ranking import Blocks, Ranking, Share, rank


def ranking(share: Share) -> Ranking:
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.integers(0, 50, (20, 300)).astype(np.float32))
    pairs = (rng.integers(0, 20, 60), rng.integers(-1, 300, 60))
    order = rng.permutation(300)
    blocks = Blocks(documents=64)
    return rank(lambda q, d: scores[q, d], 20, 300, order=order, pairs=pairs, k=7, blocks=blocks, share=share)


def _meet(number: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)


def _process(number: int, folder: str) -> None:
    _meet(number, folder)
    share = share_of(torch.device("cpu"))
    assert isinstance(share, ProcessShare)
    found = ranking(share)
    assert share.all_gather(np.empty((3, 0), np.int64)).shape == (3, 0)
    np.savez(f"{folder}/{number}.npz", rows=found.rows, scores=found.scores, ranks=found.ranks)
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="needs torch with gloo")
def test_two_processes_give_the_ranking_of_one(tmp_path: Path) -> None:
    whole = ranking(Share())
    mp.spawn(_process, (str(tmp_path),), nprocs=2)
    for number in range(2):
        with np.load(tmp_path / f"{number}.npz") as part:
            for name in ("rows", "scores", "ranks"):
                np.testing.assert_array_equal(part[name], getattr(whole, name))


def judged(queries: range) -> tuple[np.ndarray, Qrels]:
    """Ranks and judgements of some of 30 queries, numbered from 0: three of each."""
    rng = np.random.default_rng(0)
    ranks, grades = (rng.integers(0, high, (30, 3))[queries.start : queries.stop].ravel() for high in (12, 3))
    return ranks, Qrels(np.repeat(np.arange(len(queries)), 3), np.arange(len(ranks)), grades, len(queries))


# Which queries each of two processes sees, batch by batch.
SHARES: list[list[list[range]]] = [
    [[range(15)], [range(15, 30)]],
    [[range(20, 30)], [range(8), range(8, 9), range(9, 20)]],
    [[range(4), range(4, 30)], []],  # torchmetrics sends something of its own for such a process
    [[], []],
]
NAMES = [*DEFAULT_METRICS, "map"]


def _measured(number: int, folder: str) -> None:
    from two_tower.metrics.rank_metrics import RankMetrics

    _meet(number, folder)
    metrics, found = RankMetrics(NAMES), []
    for shares in SHARES:
        for queries in shares[number]:
            metrics.update(*judged(queries))
        found.append({name: value.item() for name, value in metrics.compute().items()})
        metrics.reset()
    Path(f"{folder}/{number}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="needs torch with gloo")
def test_two_processes_give_the_metrics_of_one(tmp_path: Path) -> None:
    mp.spawn(_measured, (str(tmp_path),), nprocs=2)
    whole = mean(from_ranks(*judged(range(30)), NAMES))
    assert whole != mean(from_ranks(*judged(range(29)), NAMES))  # one query fewer would be seen
    for number in range(2):
        found = json.loads((tmp_path / f"{number}.json").read_text())
        assert found == [whole, whole, whole, dict.fromkeys(NAMES, 0.0)]  # bit for bit


def test_one_process_owns_everything() -> None:
    share = share_of(torch.device("cpu"))
    assert not isinstance(share, ProcessShare)
    assert all(share.owns(block) for block in range(5))
