"""What an index is worth: recall against exact search, time of a query, size; and how much effort a recall takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from two_tower.index.base import VectorIndex
from two_tower.ranking import nearest
from two_tower.similarity import Similarity
from two_tower.store import VectorStore

__all__ = ["Report", "choose_effort", "exact", "measure", "recall"]

K = 10
LATENCY_QUERIES = 300


@dataclass(frozen=True)
class Report:
    """The figures of a build.

    Attributes:
        vectors: in the index.
        bytes: on disk.
        build_seconds: training and adding.
        recall: share of the exact 10 nearest that are among the 10 found, mean over the queries.
        p50_ms: median time of a single query on one thread, in milliseconds.
        p99_ms: 99th percentile.
        queries: what was searched for: how many, and which.
        effort: the search parameter, ``name=value``; empty where there is none.
        target_reached: whether a target recall was; None without one.
    """

    vectors: int
    bytes: int
    build_seconds: float
    recall: float
    p50_ms: float
    p99_ms: float
    queries: str
    effort: str = ""
    target_reached: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """As ``report.json`` shows it."""
        return asdict(self)

    def __str__(self) -> str:
        effort = f" with {self.effort}" if self.effort else ""
        return (
            f"{self.vectors:,} vectors, {self.bytes / 1e6:.1f} MB, built in {self.build_seconds:.1f} s; recall@{K} "
            f"{self.recall:.3f}{effort}, a query takes {self.p50_ms:.2f} ms (p99 {self.p99_ms:.2f} ms) on one thread; "
            f"measured with {self.queries}."
        )


def exact(store: VectorStore, similarity: Similarity, q_BD: np.ndarray) -> np.ndarray:
    """(B, 10) int64 rows of the nearest documents by comparing all."""
    shards = list(store.vectors())
    starts = np.cumsum([0, *map(len, shards)])

    def block(part: slice) -> torch.Tensor:
        found = [
            shard[max(0, part.start - a) : max(0, part.stop - a)]
            for shard, a in zip(shards, starts.tolist(), strict=False)
        ]
        return torch.from_numpy(np.concatenate([np.asarray(f, np.float32) for f in found]))

    count = int(starts[-1])
    return nearest(torch.from_numpy(q_BD), block, count, similarity, order=np.arange(count), k=min(K, count)).rows


def recall(found: np.ndarray, wanted: np.ndarray) -> float:
    """Share of the wanted rows (B, k) that were found (B, n), mean over the queries."""
    shares = [len({*a} & {*b}) / len(b) for a, b in zip(found.tolist(), wanted.tolist(), strict=True)]
    return float(np.mean(shares)) if shares else 1.0


def choose_effort(index: VectorIndex, q_BD: np.ndarray, wanted: np.ndarray, target: float) -> int | None:
    """The least effort that reaches a recall; the largest there is, and None returned, where none does."""
    for value in index.grid:
        index.set_effort(value)
        if recall(index.search(q_BD, K)[1], wanted) >= target:
            return value
    return None


def measure(index: VectorIndex, q_BD: np.ndarray, wanted: np.ndarray) -> tuple[float, float, float]:
    """Recall, and the median and the 99th percentile of a single query's milliseconds on one thread."""
    share = recall(index.search(q_BD, K)[1], wanted)
    times = []
    with _one_thread():
        for query in q_BD[:LATENCY_QUERIES]:
            start = time.perf_counter()
            index.search(query[None], K)
            times.append(1000 * (time.perf_counter() - start))
    return share, float(np.percentile(times, 50)), float(np.percentile(times, 99))


@contextmanager
def _one_thread() -> Iterator[None]:
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
