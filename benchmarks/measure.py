"""How programs are compared: in turns, over several rounds, medians."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

Call = Callable[[], object]
Rates = dict[str, list[float]]


@dataclass(frozen=True)
class Row:
    """A row of the table, and of ``results.json``."""

    name: str
    ours: float  # our rate, the median of the rounds
    peer: float  # that of the fastest peer
    unit: str  # of both; more is better
    ratio: float  # the median over the rounds of ours / peer
    peer_name: str  # the fastest peer and its setting
    rates: Rates = field(default_factory=dict, compare=False)  # of us and all peers in each round; ours first


def alternate(
    contestants: Mapping[str, Call], work: int, rounds: int, seconds: float = 0.5, quick: bool = False
) -> Rates:
    """Rates of all contestants in each round, after one call of each that does not count.

    A call does all of ``work``, a number of texts for example. A turn repeats it until ``seconds`` have passed, so that
    fast ones are not measured by one lucky moment; with ``quick`` there is one round of one call.
    """
    rounds, seconds = (1, 0.0) if quick else (rounds, seconds)
    for call in contestants.values():
        call()
    rates: Rates = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            start, calls = time.perf_counter(), 0
            while not calls or time.perf_counter() - start < seconds:
                call()
                calls += 1
            rates[name].append(work * calls / (time.perf_counter() - start))
    return rates


def compare(name: str, unit: str, rates: Rates, ours: str, peers: Iterable[str]) -> Row:
    """The row of ``ours`` against the fastest of ``peers``, names in ``rates``."""
    peers = [*peers]
    medians = {contestant: statistics.median(values) for contestant, values in rates.items()}
    peer = max(peers, key=medians.__getitem__)
    ratio = statistics.median(a / b for a, b in zip(rates[ours], rates[peer], strict=True))
    seen = {each: [round(rate, 1) for rate in rates[each]] for each in (ours, *peers)}
    return Row(name, round(medians[ours]), round(medians[peer]), unit, round(ratio, 2), peer, seen)


def require_equal(what: str, ours: np.ndarray, peer: np.ndarray, tolerance: float) -> None:
    """Check that a peer does the same work: a RuntimeError if results differ by more than ``tolerance`` anywhere."""
    ours, peer = np.asarray(ours), np.asarray(peer)
    if ours.shape != peer.shape:
        raise RuntimeError(f"{what}: ours has shape {ours.shape}, the peer's {peer.shape}")
    worst = np.abs(ours - peer).max(initial=0)
    if not worst <= tolerance:
        raise RuntimeError(f"{what}: the results differ by {worst:.2g}, more than {tolerance:g}")


def anonymous_memory(process: int | str = "self") -> int:
    """Bytes that a process has for itself; mapped files do not count, the system can drop those."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return sum(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))


@contextmanager
def watched_memory() -> Iterator[list[int]]:
    """The `anonymous_memory` of this process, every 20 ms."""
    status, seen, stop = Path("/proc/self/status"), [0], threading.Event()

    def watch() -> None:
        while status.exists() and not stop.wait(0.02):
            seen.append(anonymous_memory())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
