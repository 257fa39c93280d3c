"""Where the time of training steps goes."""

from __future__ import annotations

import time
from collections import deque
from statistics import median

from two_tower.doctor.signals import Clock

__all__ = ["Stopwatch"]

KEPT = 100  # newest steps of which the medians are taken
WARM_UP = 2  # first steps, which compile and allocate


class Stopwatch:
    """Times the parts of each step; on a GPU, which works on by itself, what it takes to start them."""

    def __init__(self) -> None:
        self.steps = 0
        self._marks: list[float] = []
        self._end = 0.0
        self._parts: deque[tuple[float, float, float, float]] = deque(maxlen=KEPT)

    def start(self) -> None:
        """The batch is there: what passed since the last `end` was the wait for it."""
        self._marks = [time.perf_counter()]

    def mark(self) -> None:
        """A part has ended: the forward pass, the backward pass."""
        self._marks.append(time.perf_counter())

    def pause(self) -> None:
        """What passes until the next `start` is no wait for a batch."""
        self._end = 0.0

    def end(self, own: float = 0.0) -> None:
        """The step has ended; ``own`` seconds of its last part were the doctor's."""
        now = time.perf_counter()
        if len(self._marks) == 3 and self._end:
            start, forward, backward = self._marks
            self.steps += 1
            if self.steps > WARM_UP:
                rest = max(0.0, now - backward - own)
                self._parts.append((start - self._end, forward - start, backward - forward, rest))
        self.resume()

    def resume(self) -> None:
        """From now on time is spent waiting for a batch."""
        self._end = time.perf_counter()

    def read(self, clock: Clock) -> Clock:
        """The medians, written into ``clock``."""
        if self._parts:
            clock.data, clock.forward, clock.backward, clock.optimizer = map(median, zip(*self._parts, strict=True))
        clock.steps = self.steps
        return clock
