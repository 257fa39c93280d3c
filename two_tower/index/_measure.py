"""What an index is worth: recall against exact search, time of a query, size; and how much effort a recall takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from two_tower.index._sample import Sample
from two_tower.index.base import VectorIndex
from two_tower.ranking import Ranking, nearest
from two_tower.similarity import Similarity
from two_tower.store import VectorStore

__all__ = ["Report", "choose_effort", "exact", "measure", "recall"]

K = 10
LATENCY_QUERIES = 300
SURE = 2.33  # standard errors: 99 of 100 samples of other queries are above


@dataclass(frozen=True)
class Report:
    """The figures of a build.

    Attributes:
        vectors: in the index.
        structure: what was built, see `two_tower.index.base.VectorIndex`.
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
    structure: str
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
        size = f"{self.vectors:,} vectors as {self.structure}, {self.bytes / 1e6:.1f} MB"
        return (
            f"{size}, built in {self.build_seconds:.1f} s.\nrecall@{K} {self.recall:.3f}{effort}, a query takes "
            f"{self.p50_ms:.2f} ms (p99 {self.p99_ms:.2f} ms) on one thread; measured with {self.queries}."
        )


def exact(store: VectorStore, similarity: Similarity, asked: Sample) -> np.ndarray:
    """(B, 10) int64 rows of the nearest documents by comparing all, shard by shard."""
    depth, start, q_BD = asked.depth(K), 0, torch.from_numpy(asked.vectors)
    scores, rows = np.empty((len(asked), 0), np.float32), np.empty((len(asked), 0), np.int64)
    for vectors in store.vectors():
        found = _nearest(q_BD, vectors, similarity, depth)
        scores, rows = np.hstack([scores, found.scores]), np.hstack([rows, found.rows + start])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
        scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
        start += len(vectors)
    return asked.others(rows)


def _nearest(q_BD: torch.Tensor, vectors: np.ndarray, similarity: Similarity, k: int) -> Ranking:
    def block(part: slice) -> torch.Tensor:
        return torch.from_numpy(np.array(vectors[part], np.float32))

    count = len(vectors)
    return nearest(q_BD, block, count, similarity, order=np.arange(count), k=min(k, count))


def recall(found: np.ndarray, wanted: np.ndarray) -> float:
    """Share of the wanted rows (B, k) that were found (B, n), mean over the queries; 1 where nothing is wanted."""
    return float(_shares(found, wanted).mean()) if wanted.size else 1.0


def _shares(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return np.array([len({*a} & {*b}) / len(b) for a, b in zip(found.tolist(), wanted.tolist(), strict=True)])


def _found(index: VectorIndex, asked: Sample) -> np.ndarray:
    return asked.others(index.search(asked.vectors, asked.depth(K))[1])


def choose_effort(index: VectorIndex, asked: Sample, wanted: np.ndarray, target: float) -> int | None:
    """The least effort that reaches a recall on other queries too: more than two standard errors above it on these.

    If none is that sure, the effort with the best recall is set, and returned if it reaches the target on these
    queries at least; else None.
    """
    recalls: dict[int, float] = {}
    for value in index.grid:
        index.set_effort(value)
        shares = _shares(_found(index, asked), wanted) if wanted.size else np.ones(1)
        recalls[value] = float(shares.mean())
        if recalls[value] - SURE * shares.std() / np.sqrt(len(shares)) >= target:
            return value
    best = max(recalls, key=lambda value: recalls[value])  # the least of equals
    index.set_effort(best)
    return best if recalls[best] >= target else None


def measure(index: VectorIndex, asked: Sample, wanted: np.ndarray) -> tuple[float, float, float]:
    """Recall, and the median and the 99th percentile of a single query's milliseconds on one thread."""
    share = recall(_found(index, asked), wanted)
    times = []
    with _one_thread():
        for query in asked.vectors[:LATENCY_QUERIES]:
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
