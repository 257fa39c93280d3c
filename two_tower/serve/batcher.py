"""Requests that come at the same time are answered together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")


class QueueFull(Exception):
    """Too many items wait."""


class _Waiting(NamedTuple, Generic[Key, Item, Result]):
    key: Key
    item: Item
    answer: asyncio.Future[Result]


class Batcher(Generic[Key, Item, Result]):
    """Calls ``work`` on items with the same key that wait together; one call at a time, always in the same thread.

    No request waits for others to come: while one batch is worked on, the next gathers. So a single client sees no
    delay, and many share a call's fixed costs and one matrix product. At most ``queue`` items wait, at most ``batch``
    go into a call, and ``observe`` is told the size of each.
    """

    def __init__(
        self,
        work: Callable[[Key, Sequence[Item]], Sequence[Result]],
        queue: int,
        batch: int,
        observe: Callable[[int], None] | None = None,
    ) -> None:
        self._work, self._batch, self._observe = work, batch, observe
        self._queue: asyncio.Queue[_Waiting[Key, Item, Result] | None] = asyncio.Queue(queue)
        self._thread = ThreadPoolExecutor(1, "search")
        self._loop: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:  # items
        return self._queue.qsize()

    def start(self) -> None:  # within a running event loop
        self._loop = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Finish the current batch, then work no more; items that still wait are cancelled."""
        while not self._queue.empty():
            if waiting := self._queue.get_nowait():
                waiting.answer.cancel()
        if self._loop is not None:
            self._queue.put_nowait(None)
            await self._loop
        await asyncio.to_thread(self._thread.shutdown)

    async def __call__(self, key: Key, item: Item) -> Result:
        """The result for one item, or QueueFull."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait(_Waiting(key, item, answer))
        except asyncio.QueueFull:
            raise QueueFull from None
        return await answer

    async def _run(self) -> None:
        stop = False
        while not stop:
            batch = [await self._queue.get()]
            while len(batch) < self._batch and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            groups: dict[Key, list[_Waiting[Key, Item, Result]]] = {}
            for waiting in batch:
                if waiting is None:
                    stop = True
                elif not waiting.answer.done():  # else its client gave up
                    groups.setdefault(waiting.key, []).append(waiting)
            for group in groups.values():
                await self._answer(group)

    async def _answer(self, group: list[_Waiting[Key, Item, Result]]) -> None:
        if self._observe:
            self._observe(len(group))
        items, loop = [waiting.item for waiting in group], asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._thread, self._work, group[0].key, items)
        except Exception as error:
            if len(group) > 1:  # only the item to blame shall fail
                for waiting in group:
                    await self._answer([waiting])
            elif not group[0].answer.done():
                group[0].answer.set_exception(error)
            return
        for waiting, result in zip(group, results, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(result)
