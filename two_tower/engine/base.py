"""The interface of all engines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from two_tower.console import Advance

Item = TypeVar("Item")
Result = TypeVar("Result")


class Work(ABC, Generic[Item, Result]):
    """What is done with each item. It can be pickled, and so can items and results: workers have a copy each."""

    @abstractmethod
    def __call__(self, item: Item, progress: Advance | None) -> Callable[[], Result]:
        """Do what takes a processor; what is returned does the rest, writing for example, and gives the result.

        The rest may run in another thread while the next item is begun.
        """

    def to(self, device: str) -> None:
        """Compute on a device from now on; until then it does where it was made."""


class Engine(ABC):
    """Does work, without saying where."""

    @contextmanager
    def ready(self, *modules: str) -> Iterator[None]:
        """Within it workers may start while their work is prepared; they import ``modules`` meanwhile."""
        yield

    @abstractmethod
    def run(
        self, work: Work[Item, Result], items: Callable[[], Iterator[Item]], keep: Callable[[Result], object],
        progress: Advance | None = None,
    ) -> None:  # fmt: skip
        """Do ``work`` with all items, a few of which are in memory at a time, and ``keep`` each result.

        ``items`` can be pickled; it may be called in another process of this machine. Results come in any order, one
        after another, perhaps in another thread.
        """
