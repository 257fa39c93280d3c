"""The engine of one process, which needs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from two_tower.console import Advance
from two_tower.engine.base import Engine, Item, Result, Work
from two_tower.threads import prefetch


class LocalEngine(Engine):
    """Works in this process: the next item is read and the last one finished while one is worked on."""

    def run(
        self, work: Work[Item, Result], items: Callable[[], Iterator[Item]], keep: Callable[[Result], object],
        progress: Advance | None = None,
    ) -> None:  # fmt: skip
        with ThreadPoolExecutor(1) as pool:
            last: Future[object] = pool.submit(lambda: None)
            for item in prefetch(items()):
                rest = work(item, progress)
                last.result()
                last = pool.submit(lambda rest: keep(rest()), rest)
            last.result()


LOCAL = LocalEngine()
