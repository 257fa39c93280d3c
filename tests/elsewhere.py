"""What tests of engines share: one that does with copies, in another order, what workers elsewhere would; some work."""

import logging
import os
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from two_tower.engine.base import Engine, Work
from two_tower.errors import UserError

log = logging.getLogger("two_tower.elsewhere")


def copied(thing: Any) -> Any:  # noqa: ANN401
    return pickle.loads(pickle.dumps(thing))


class Elsewhere(Engine):
    def run(
        self, work: Work, items: Callable[[], Iterator[Any]], keep: Callable[[Any], object],
        progress: Callable[[int], None] | None = None,
    ) -> None:  # fmt: skip
        work = copied(work)
        for item in reversed([copied(item) for item in copied(items)()]):
            keep(copied(work(item, None)()))


class Square(Work[int, tuple[int, int]]):
    """Squares numbers, 7 with a warning; notes each in ``noted``; refuses -1, and its process ends at -2."""

    def __call__(self, item: int, progress: Callable[[int], None] | None) -> Callable[[], tuple[int, int]]:
        if item == -1:
            raise UserError("-1 cannot be squared: leave it out.")
        with Path("noted").open("a") as file:  # in the folder of the command
            file.write(f"{item}\n")
        if item == -2:
            os._exit(1)
        if item == 7:
            log.warning("7 is odd.")
        time.sleep(0.05)
        if progress:
            progress(1)
        return lambda: (item, item * item)


def numbers(*given: int, error: str = "") -> Iterator[int]:
    yield from given
    if error:
        raise UserError(error)
