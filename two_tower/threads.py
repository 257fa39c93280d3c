"""Work on several cores at once, each thread with one core: torch's own threads would wait for the busiest core."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cache
from itertools import pairwise
from threading import Barrier
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


@cache
def _pool(count: int) -> ThreadPoolExecutor:
    """``count`` threads in which torch uses one core. They are started here, since a setting outlasts it."""
    started = Barrier(count)

    def start() -> None:
        torch.get_num_threads()  # reads the setting of all threads, which would otherwise happen later and undo ours
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="tower", initializer=start)
    list(pool.map(lambda _: None, range(count)))
    torch.set_num_threads(count)  # threads that others make later begin with the number set last
    return pool


def each(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """``work(item)`` of each item, in order, on as many threads as torch uses here; the first items start first.

    ``work`` must release the GIL to gain anything. Gradients are not recorded in other threads.
    """
    items, threads = list(items), torch.get_num_threads()
    if min(threads, len(items)) <= 1:
        return [work(item) for item in items]
    return list(_pool(threads).map(work, items))


def in_parts(work: Callable[[int, int], object], rows: int) -> None:
    """Call ``work(start, stop)`` on contiguous parts of ``rows`` rows, one for each thread; see `each`."""
    threads = max(1, min(torch.get_num_threads(), rows))
    borders = [rows * i // threads for i in range(threads + 1)]
    each(lambda part: work(*part), pairwise(borders))


def prefetch(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; a thread computes the next one while the caller works on this one."""
    context = copy_context()  # warnings belong to the cache entry that the caller is making

    def following() -> Item | None:
        return context.run(next, items, None)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(following)
        while (item := future.result()) is not None:
            future = pool.submit(following)
            yield item
