"""Processes that rank together, as real processes over gloo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from two_tower.distributed import ProcessShare, share_of
from two_tower.ranking import Ranking, Share, rank


def ranking(share: Share) -> Ranking:
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.integers(0, 50, (20, 300)).astype(np.float32))
    pairs = (rng.integers(0, 20, 60), rng.integers(-1, 300, 60))
    order = rng.permutation(300)
    return rank(lambda q, d: scores[q, d], 20, 300, order=order, pairs=pairs, k=7, document_block=64, share=share)


def _process(number: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    share = share_of(torch.device("cpu"))
    assert isinstance(share, ProcessShare)
    found = ranking(share)
    assert share.beside(np.empty((3, 0), np.int64)).shape == (3, 0)
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


def test_one_process_owns_everything() -> None:
    share = share_of(torch.device("cpu"))
    assert not isinstance(share, ProcessShare)
    assert all(share.owns(block) for block in range(5))
