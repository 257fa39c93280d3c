"""Items that wait together are worked on together, and one that fails does no harm to others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from two_tower.serve.batcher import Batcher, QueueFull


def test_what_waits_is_worked_on_together_by_key() -> None:
    calls: list[tuple[str, list[int]]] = []
    threads = set()

    def work(key: str, items: Sequence[int]) -> list[str]:
        calls.append((key, list(items)))
        threads.add(threading.current_thread())
        return [f"{key}{item}" for item in items]

    async def main() -> list[str]:
        sizes: list[int] = []
        batcher = Batcher(work, queue=100, batch=6, observe=sizes.append)
        requests = [asyncio.ensure_future(batcher("ab"[i % 2], i)) for i in range(10)]
        await asyncio.sleep(0)
        assert batcher.waiting == 10
        batcher.start()
        answers = await asyncio.gather(*requests)
        await batcher.stop()
        assert sizes == [len(items) for _, items in calls]
        return answers

    assert asyncio.run(main()) == [f"{'ab'[i % 2]}{i}" for i in range(10)]
    assert calls == [("a", [0, 2, 4]), ("b", [1, 3, 5]), ("a", [6, 8]), ("b", [7, 9])]
    assert len(threads) == 1
    assert threading.main_thread() not in threads


def test_only_the_item_to_blame_fails() -> None:
    def work(_: str, items: Sequence[int]) -> list[int]:
        return [12 // item for item in items]

    async def main() -> list[object]:
        batcher = Batcher(work, queue=10, batch=10)
        requests = [asyncio.ensure_future(batcher("", i)) for i in (1, 0, 3)]
        await asyncio.sleep(0)
        batcher.start()
        answers = await asyncio.gather(*requests, return_exceptions=True)
        answers.append(await batcher("", 4))
        await batcher.stop()
        return answers

    one, error, three, later = asyncio.run(main())
    assert (one, three, later) == (12, 4, 3)
    assert isinstance(error, ZeroDivisionError)


def test_no_more_wait_than_may_and_who_gives_up_is_left_out() -> None:
    worked: list[int] = []

    def work(_: str, items: Sequence[int]) -> Sequence[int]:
        worked.extend(items)
        return items

    async def main() -> None:
        batcher = Batcher(work, queue=2, batch=10)
        first, second = (asyncio.ensure_future(batcher("", i)) for i in (1, 2))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await batcher("", 3)
        first.cancel()
        await asyncio.sleep(0)
        batcher.start()
        assert await second == 2
        await batcher.stop()

    asyncio.run(main())
    assert worked == [2]


def test_stop_finishes_the_batch_at_hand_and_tells_the_others() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work(_: str, items: Sequence[int]) -> Sequence[int]:
        begun.set()
        go_on.wait(10)
        return items

    async def main() -> tuple[object, object]:
        batcher = Batcher(work, queue=10, batch=1)
        batcher.start()
        one, two = (asyncio.ensure_future(batcher("", i)) for i in (1, 2))
        await asyncio.to_thread(begun.wait, 10)
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        await batcher.stop()
        return tuple(await asyncio.gather(one, two, return_exceptions=True))

    one, two = asyncio.run(main())
    assert one == 1
    assert isinstance(two, asyncio.CancelledError)
