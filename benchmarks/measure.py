"""How programs are compared: in turns, over several rounds, medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Call", "Rates", "Row", "alternate", "compare", "require_equal"]

Call = Callable[[], object]
Rates = dict[str, list[float]]


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: what is done.
        ours: our rate, the median of the rounds.
        peer: that of the fastest peer.
        unit: of both rates; more is better.
        ratio: the median over the rounds of ours / peer.
        peer_name: which peer and setting that is.
    """

    name: str
    ours: float
    peer: float
    unit: str
    ratio: float
    peer_name: str


def alternate(contestants: Mapping[str, Call], work: int, rounds: int, seconds: float = 0.5) -> Rates:
    """Rates of all contestants in each round, after one call of each that does not count.

    Args:
        contestants: name → one call that does all the work.
        work: how much that is, for example the number of texts.
        rounds: how often everybody has a turn.
        seconds: a turn repeats the call until so much time has passed, so that fast ones are not measured
            by one lucky moment.
    """
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
    medians = {contestant: statistics.median(values) for contestant, values in rates.items()}
    peer = max(peers, key=medians.__getitem__)
    ratio = statistics.median(a / b for a, b in zip(rates[ours], rates[peer], strict=True))
    return Row(name, round(medians[ours]), round(medians[peer]), unit, round(ratio, 2), peer)


def require_equal(what: str, ours: np.ndarray, peer: np.ndarray, tolerance: float) -> None:
    """Check that a peer does the same work.

    Raises:
        RuntimeError: the results differ by more than ``tolerance`` anywhere.
    """
    ours, peer = np.asarray(ours), np.asarray(peer)
    if ours.shape != peer.shape:
        raise RuntimeError(f"{what}: ours has shape {ours.shape}, the peer's {peer.shape}")
    worst = np.abs(ours - peer).max(initial=0)
    if not worst <= tolerance:
        raise RuntimeError(f"{what}: the results differ by {worst:.2g}, more than {tolerance:g}")
