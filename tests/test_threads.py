"""Threads with one core each."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from two_tower.threads import each, in_parts


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_come_in_order_from_threads_in_which_alone_torch_uses_one_core() -> None:
    meet = threading.Barrier(2, timeout=20)  # passed only if both run at once

    def work(item: int) -> tuple[int, int]:
        meet.wait()
        return item, torch.get_num_threads()

    assert each(work, iter([3, 1, 2, 0])) == [(3, 1), (1, 1), (2, 1), (0, 1)]
    assert each(work, []) == []
    with pytest.raises(ZeroDivisionError):
        each(lambda item: 1 // item, [1, 0, 2])
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as other:
        assert other.submit(torch.get_num_threads).result() == 2


def test_parts_cover_every_row_once() -> None:
    for rows in (0, 1, 2, 7, 100):
        seen = np.zeros(rows, int)

        def work(start: int, stop: int, seen: np.ndarray = seen) -> None:
            seen[start:stop] += 1

        in_parts(work, rows)
        assert (seen == 1).all()
    with pytest.raises(ZeroDivisionError):
        in_parts(lambda start, stop: 1 // 0, 100)
