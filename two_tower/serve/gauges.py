"""What the service counts, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Gauges"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Gauges:
    """Counts and times of one service.

    Args:
        waiting: how many requests wait now.
        passages: how many passages each run searches.
    """

    def __init__(self, waiting: Callable[[], int], passages: dict[str, int]) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "two_tower_requests", "Requests answered, by path and HTTP status.", ["path", "status"], registry=registry
        )
        self._seconds = Histogram(
            "two_tower_search_seconds", "From a search's arrival to its answer.", registry=registry, buckets=_SECONDS
        )
        self._batches = Histogram(
            "two_tower_batch_queries", "Queries searched for together.", registry=registry, buckets=_SIZES
        )
        queue = Gauge("two_tower_waiting_requests", "Requests that wait to be searched for.", registry=registry)
        queue.set_function(waiting)
        size = Gauge("two_tower_passages", "Passages that a run searches.", ["run"], registry=registry)
        for run, number in passages.items():
            size.labels(run).set(number)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Note a request."""
        self._requests.labels(path, str(status)).inc()
        if path == "/search":
            self._seconds.observe(seconds)

    def batch(self, size: int) -> None:
        """Note a batch."""
        self._batches.observe(size)

    def text(self) -> bytes:
        """All, in Prometheus' text format."""
        return generate_latest(self._registry)
