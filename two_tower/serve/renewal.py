"""While the service answers, it takes up indexes that have changed."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from two_tower.console import say
from two_tower.errors import UserError
from two_tower.serve import Runs

log = logging.getLogger(__name__)

EVERY = 2.0  # seconds between two looks at the folders


@asynccontextmanager
async def renewed(runs: Runs, watch: bool, done: Callable[[], None]) -> AsyncIterator[None]:
    """Within it, SIGHUP makes the service load its indexes anew, and with ``watch`` a change of their folders does.

    Until they are loaded and warm, and if they cannot be, those before are searched. ``done`` is called each time.
    """
    asked = asyncio.Event()
    with suppress(NotImplementedError, RuntimeError, ValueError, AttributeError):  # Windows, or not the main thread
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    following = asyncio.create_task(_follow(runs, asked, watch, done))
    try:
        yield
    finally:
        following.cancel()


async def _follow(runs: Runs, asked: asyncio.Event, watch: bool, done: Callable[[], None]) -> None:
    known = runs.states()
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(asked.wait(), EVERY if watch else None)
        if not asked.is_set() and runs.states() == known:
            continue
        asked.clear()
        known = runs.states()
        try:
            await asyncio.to_thread(runs.renew)
        except UserError as error:
            log.warning("%s Until then the index as it was is searched.", error)
            continue
        for name, searcher in runs:
            say(f"{name}: {searcher.passages:,} passages now")
        done()
