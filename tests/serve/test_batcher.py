"""Items that wait together are worked on together, and one that fails does no harm to others."""

import asyncio
from collections.abc import Callable, Sequence
from threading import Event, Thread, current_thread, main_thread

import pytest

from two_tower.serve.batcher import Batcher, QueueFull

Work = Callable[[str, Sequence[int]], Sequence[object]]


async def answers(work: Work, items: Sequence[tuple[str, int]], batch: int = 10, **keys: object) -> list[object]:
    """What becomes of items that all wait when the batcher starts."""
    batcher = Batcher(work, queue=100, batch=batch, **keys)
    requests = [asyncio.ensure_future(batcher(key, item)) for key, item in items]
    await asyncio.sleep(0)
    assert batcher.waiting == len(items)
    batcher.start()
    results = await asyncio.gather(*requests, return_exceptions=True)
    await batcher.stop()
    return results


def test_what_waits_is_worked_on_together_by_key() -> None:
    calls, threads, sizes = list[tuple[str, list[int]]](), set[Thread](), list[int]()

    def work(key: str, items: Sequence[int]) -> list[str]:
        calls.append((key, list(items)))
        threads.add(current_thread())
        return [f"{key}{item}" for item in items]

    items = [("ab"[i % 2], i) for i in range(10)]
    assert asyncio.run(answers(work, items, batch=6, observe=sizes.append)) == [f"{key}{i}" for key, i in items]
    assert calls == [("a", [0, 2, 4]), ("b", [1, 3, 5]), ("a", [6, 8]), ("b", [7, 9])]
    assert sizes == [len(items) for _, items in calls]
    assert (len(threads), main_thread() in threads) == (1, False)


def test_only_the_item_to_blame_fails() -> None:
    one, error, three = asyncio.run(answers(lambda _, items: [12 // i for i in items], [("", 1), ("", 0), ("", 3)]))
    assert (one, three) == (12, 4)
    assert isinstance(error, ZeroDivisionError)


def test_no_more_wait_than_may_and_who_gives_up_is_left_out() -> None:
    worked: list[int] = []

    async def main() -> None:
        batcher = Batcher(lambda _, items: worked.extend(items) or items, queue=2, batch=10)
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


def test_stop_finishes_the_current_batch_and_cancels_the_others() -> None:
    begun, go_on = Event(), Event()

    def work(_: str, items: Sequence[int]) -> Sequence[int]:
        begun.set()
        go_on.wait(10)
        return items

    async def main() -> list[object]:
        batcher = Batcher(work, queue=10, batch=1)
        batcher.start()
        requests = [asyncio.ensure_future(batcher("", i)) for i in (1, 2)]
        await asyncio.to_thread(begun.wait, 10)
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        await batcher.stop()
        return await asyncio.gather(*requests, return_exceptions=True)

    one, two = asyncio.run(main())
    assert one == 1
    assert isinstance(two, asyncio.CancelledError)
