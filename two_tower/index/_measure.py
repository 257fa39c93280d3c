"""Measure an index: recall against exact search, time of a query, size; choose the search parameter for a recall."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from two_tower.index.base import VectorIndex
from two_tower.index.faiss import faiss_threads
from two_tower.ranking import Ranking, nearest
from two_tower.similarity import Similarity
from two_tower.store import VectorStore

K = 10
LATENCY_QUERIES = 300
STANDARD_ERRORS = 2.33  # above the target: then 99 of 100 samples of other queries reach it

# Vectors (B, D) of queries, and a description of them in the plural.
Queries = tuple[np.ndarray, str]


@dataclass(frozen=True)
class Report:
    """The figures of a build, as ``report.json`` has them."""

    vectors: int  # how many
    structure: str
    bytes: int  # on disk
    build_seconds: float
    recall: float  # share of the exact 10 nearest among the 10 found, mean over the queries
    p50_ms: float  # milliseconds of a single query on one thread: the median,
    p99_ms: float  # and the 99th percentile
    queries: str  # how many of which kind
    search_param: str = ""  # index.KEY=VALUE; empty for exact search
    target_reached: bool | None = None  # None without a target

    def __str__(self) -> str:
        param = f" with {self.search_param}" if self.search_param else ""
        size = f"{self.vectors:,} vectors as {self.structure}, {self.bytes / 1e6:.1f} MB"
        return (
            f"{size}, built in {self.build_seconds:.1f} s.\nrecall@{K} {self.recall:.3f}{param}, a query takes "
            f"{self.p50_ms:.2f} ms (p99 {self.p99_ms:.2f} ms) on one thread; measured with {self.queries}."
        )


@dataclass(frozen=True)
class Sample:
    """Queries to measure an index with."""

    vectors: np.ndarray  # (B, D) float32
    kind: str  # what they are, in the plural
    own_rows: np.ndarray | None = None  # (B,) int64: where the queries are documents, the rows to leave out of the hits

    @classmethod
    def draw(cls, store: VectorStore, queries: Queries | None, size: int) -> Sample:
        """At most ``size`` real queries; without any, documents, each of which then looks for others than itself."""
        if queries is not None and len(queries[0]):
            vectors, kind = queries
            return cls(vectors[np.sort(np.random.default_rng(0).permutation(len(vectors))[:size])], kind)
        vectors, rows = store.sample(min(size, store.manifest.rows), seed=0)
        return cls(vectors, "passages as queries (each looks for the others)", rows)

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, part: slice) -> Sample:
        return Sample(self.vectors[part], self.kind, None if self.own_rows is None else self.own_rows[part])

    @property
    def k(self) -> int:
        """How many hits to ask for, to be left with `K`."""
        return K if self.own_rows is None else K + 1

    def without_own(self, rows: np.ndarray) -> np.ndarray:
        """(B, K) of the hits (B, `k`): the query's own row left out, or the last hit where that is not among them."""
        if self.own_rows is None or not rows.shape[1]:
            return rows
        keep = rows != self.own_rows[:, None]
        keep[keep.all(axis=1), -1] = False
        return rows[keep].reshape(len(rows), -1)


def exact_hits(store: VectorStore, similarity: Similarity, sample: Sample) -> np.ndarray:
    """(B, 10) int64 rows of the nearest documents, comparing with all, shard by shard."""
    start, q_BD = 0, torch.from_numpy(sample.vectors)
    scores, rows = np.empty((len(sample), 0), np.float32), np.empty((len(sample), 0), np.int64)
    for vectors in store.vectors():
        found = _nearest(q_BD, vectors, similarity, sample.k)
        scores, rows = np.hstack([scores, found.scores]), np.hstack([rows, found.rows + start])
        best = np.argsort(-scores, axis=1, kind="stable")[:, : sample.k]
        scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
        start += len(vectors)
    return sample.without_own(rows)


def _nearest(q_BD: torch.Tensor, vectors: np.ndarray, similarity: Similarity, k: int) -> Ranking:
    def block(part: slice) -> torch.Tensor:
        return torch.from_numpy(np.array(vectors[part], np.float32))

    count = len(vectors)
    return nearest(q_BD, block, count, similarity, order=np.arange(count), k=min(k, count))


def recalls(rows: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """(B,) share of the exact rows (B, k) among the rows found (B, n), for each query; 1 where there are none."""
    if not exact.size:
        return np.ones(1)
    return np.array([len({*a} & {*b}) / len(b) for a, b in zip(rows.tolist(), exact.tolist(), strict=True)])


def _hits(index: VectorIndex, sample: Sample) -> np.ndarray:
    return sample.without_own(index.search(sample.vectors, sample.k)[1])


def choose_search_value(index: VectorIndex, sample: Sample, exact: np.ndarray, target: float) -> bool:
    """Set the smallest search value whose recall is above the target by `STANDARD_ERRORS`, else the best value.

    Returns:
        Whether the recall on these queries is at least the target.
    """
    means: dict[int, float] = {}
    for value in index.search_values:
        index.set_search_value(value)
        shares = recalls(_hits(index, sample), exact)
        means[value] = float(shares.mean())
        if means[value] - STANDARD_ERRORS * shares.std() / np.sqrt(len(shares)) >= target:
            return True
    best = max(means, key=lambda value: means[value])  # the smallest of equals
    index.set_search_value(best)
    return means[best] >= target


def measure(index: VectorIndex, sample: Sample, exact: np.ndarray) -> tuple[float, float, float]:
    """Recall, and the median and the 99th percentile of a single query's milliseconds on one thread."""
    recall = float(recalls(_hits(index, sample), exact).mean())
    times = []
    with faiss_threads(1):
        for query in sample.vectors[:LATENCY_QUERIES]:
            start = time.perf_counter()
            index.search(query[None], K)
            times.append(1000 * (time.perf_counter() - start))
    return recall, float(np.percentile(times, 50)), float(np.percentile(times, 99))
