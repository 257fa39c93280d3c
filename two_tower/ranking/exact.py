"""`rank`: all documents for every query, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from two_tower.ranking.kernels import NONE, in_threads, key_scores, scan, torch_keys

__all__ = ["Ranking", "Score", "rank"]

Score = Callable[[slice, slice], Tensor]
"""``score(queries, documents)``: (q, n) float32 scores of two slices of rows, on any device."""

_PAIRS = 1024  # pairs that a GPU counts together


@dataclass(frozen=True, eq=False)
class Ranking:
    """What `rank` found.

    Attributes:
        rows: (Q, k) int64, document rows, best first; -1 where fewer documents were retrieved.
        scores: (Q, k) float32, their scores; -inf where fewer were retrieved.
        ranks: (P,) int64, 1-based rank of each pair's document among all documents; 0 = not retrieved.
    """

    rows: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray


@torch.no_grad()
def rank(
    score: Score,
    queries: int,
    documents: int,
    *,
    order: np.ndarray | Tensor,
    pairs: tuple[np.ndarray, np.ndarray] | None = None,
    k: int = 0,
    floor: float | None = None,
    query_block: int = 1024,
    document_block: int = 8192,
    budget_bytes: int = 512 << 20,
) -> Ranking:
    """Rank all documents for every query, exactly.

    Blocks start at multiples of the block size, so any number of threads, and of processes that share
    the queries out at such borders, gives the same ranks. A pair is compared with scores of the very
    matrix product that gave its own score, which is among them bit for bit.

    Args:
        score: gives the scores of a block; may be called twice for a block and must then answer the
            same. NaN counts as minus infinity.
        queries: Q, rows of queries.
        documents: N, rows of documents.
        order: (N,) distinct integers; of two equal scores, the document with the larger one comes first
            (see `id_order`).
        pairs: (P,) query rows and (P,) document rows whose ranks are asked for, in any order. A document
            row of -1 stands for a document outside the corpus: never retrieved.
        k: how many of the best documents to return for each query.
        floor: documents that score no more than this (compared in float32) are not retrieved.
        query_block: query rows of a block.
        document_block: document rows of a block.
        budget_bytes: with pairs, the scores of a query block are kept between the pass that reads the
            pairs' own scores and the pass that counts, if they fit; otherwise they are computed twice.
            The result is the same.

    Returns:
        The best documents, and the ranks of the pairs in the order given.

    Raises:
        ValueError: ``order`` has not N entries, a pair lies outside the queries and documents, or
            ``score`` returns another shape than asked for.
    """
    places = _Places(order, documents)
    asked = _Pairs.sorted(pairs, queries, documents)
    keys = np.full((queries, min(k, documents)), NONE, np.int64)
    ranks = np.zeros(len(asked.documents), np.int64)
    lowest = -np.inf if floor is None else float(np.nextafter(np.float32(floor), np.float32(np.inf)))
    keep = min(query_block, queries) * documents * 4 <= budget_bytes
    for block in _slices(queries, query_block):
        state = _Block.start(block, asked, places, keys.shape[1], lowest)
        kept: dict[int, Tensor] = {}
        if len(state.rows):
            for part in _slices(documents, document_block):
                scores = _scores(score, block, part)
                state.read_own(scores, part)
                if keep:
                    kept[part.start] = scores
        for part in _slices(documents, document_block):
            state.scan(kept.pop(part.start) if kept else _scores(score, block, part), part)
        keys[block] = state.best.cpu().numpy()
        ranks[asked.of(block)] = state.ranks()
    rows, best_scores = places.decode(keys, k)
    return Ranking(rows, best_scores, ranks[asked.back])


@dataclass
class _Block:
    """The best documents and the pairs of a block of queries, while its blocks of scores go by.

    Attributes:
        places: of all documents.
        lowest: the least score that is retrieved, exact in float32.
        best: (q, k) int64 keys; on the CPU a min-heap for each query.
        rows: (p,) int64, the query of each pair within the block, ascending.
        documents: (p,) int64, its document row.
        own: (p,) float32, its score.
        above: (p,) int64, documents counted before it.
    """

    places: _Places
    lowest: float
    best: Tensor
    rows: np.ndarray
    documents: np.ndarray
    own: np.ndarray
    above: Tensor

    @classmethod
    def start(cls, block: slice, pairs: _Pairs, places: _Places, k: int, lowest: float) -> _Block:
        mine = pairs.of(block)
        return cls(
            places=places,
            lowest=lowest,
            best=torch.full((block.stop - block.start, k), NONE, dtype=torch.int64),
            rows=pairs.queries[mine] - block.start,
            documents=pairs.documents[mine],
            own=np.full(mine.stop - mine.start, -np.inf, np.float32),
            above=torch.zeros(mine.stop - mine.start, dtype=torch.int64),
        )

    def read_own(self, scores: Tensor, part: slice) -> None:
        """Take the own scores of the pairs whose documents are in this block."""
        here = np.flatnonzero((self.documents >= part.start) & (self.documents < part.stop))
        if len(here):
            rows = torch.from_numpy(self.rows[here]).to(scores.device)
            columns = torch.from_numpy(self.documents[here] - part.start).to(scores.device)
            self.own[here] = scores[rows, columns].cpu().numpy()

    def scan(self, scores: Tensor, part: slice) -> None:
        """Count the documents of a block before each pair, and keep the best."""
        (self._scan_cpu if scores.device.type == "cpu" else self._scan_torch)(scores, part)

    def ranks(self) -> np.ndarray:
        """(p,) int64, ranks of the pairs once all blocks have gone by; 0 = not retrieved."""
        own = np.where(np.isnan(self.own), -np.inf, self.own)
        return np.where((self.documents >= 0) & (own >= self.lowest), 1 + self.above.cpu().numpy(), 0)

    def _scan_cpu(self, scores: Tensor, part: slice) -> None:
        of = self.places.of
        starts = np.searchsorted(self.rows, np.arange(len(scores) + 1))
        block = (scores.numpy(), of[part], starts, self.own, of[self.documents], np.float32(self.lowest))
        best, above = self.best.numpy(), self.above.numpy()
        in_threads(lambda first, last: scan(first, last, *block, best, above), len(scores))

    def _scan_torch(self, scores: Tensor, part: slice) -> None:
        device = scores.device
        self.best, self.above = self.best.to(device), self.above.to(device)
        keys = torch_keys(scores, torch.from_numpy(self.places.of[part]).to(device))
        own_places = torch.from_numpy(self.places.of[self.documents]).to(device)
        own_keys = torch_keys(torch.from_numpy(self.own).to(device), own_places)
        rows = torch.from_numpy(self.rows).to(device)
        for first in range(0, len(rows), _PAIRS):
            few = slice(first, first + _PAIRS)
            self.above[few] += (keys[rows[few]] > own_keys[few, None]).sum(1)
        lowest = torch.tensor([self.lowest], dtype=torch.float32, device=device)
        least = torch_keys(lowest, torch.zeros(1, dtype=torch.int32, device=device))
        offered = torch.where(keys >= least, keys, NONE)
        self.best = torch.cat([self.best, offered], 1).topk(self.best.shape[1], sorted=False).values


class _Places:
    """Places of the documents among equal scores, and the way back from keys to rows."""

    def __init__(self, order: np.ndarray | Tensor, documents: int) -> None:
        values = order.cpu().numpy() if isinstance(order, Tensor) else np.asarray(order)
        if values.shape != (documents,):
            raise ValueError(f"order has shape {values.shape}, but there are {documents} documents")
        # Any distinct integers will do, for example those of a subset of the corpus: only places count.
        self.rows = np.argsort(values)
        self.of = np.empty(documents, np.int32)  # (N,)
        self.of[self.rows] = np.arange(documents, dtype=np.int32)

    def decode(self, keys: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(Q, k) int64 document rows and (Q, k) float32 scores, best first, of unsorted (Q, ≤ k) keys."""
        rows = np.full((len(keys), k), -1, np.int64)
        scores = np.full((len(keys), k), -np.inf, np.float32)
        keys = np.sort(keys, axis=1)[:, ::-1]
        found = np.nonzero(keys > NONE)
        rows[found] = self.rows[keys[found] & 0xFFFFFFFF]
        scores[found] = key_scores(keys[found])
        return rows, scores


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Pairs sorted by query.

    Attributes:
        queries: (P,) int64, ascending.
        documents: (P,) int64.
        back: (P,) int64, where each pair, in the order given, stands among the sorted ones.
    """

    queries: np.ndarray
    documents: np.ndarray
    back: np.ndarray

    @classmethod
    def sorted(cls, pairs: tuple[np.ndarray, np.ndarray] | None, queries: int, documents: int) -> _Pairs:
        query_rows, document_rows = pairs if pairs is not None else ([], [])
        q, d = np.asarray(query_rows, np.int64), np.asarray(document_rows, np.int64)
        if q.shape != d.shape or q.ndim != 1:
            raise ValueError(f"pairs need as many query rows as document rows, not {q.shape} and {d.shape}")
        if len(q) and (q.min() < 0 or q.max() >= queries or d.min() < -1 or d.max() >= documents):
            raise ValueError(f"a pair lies outside the {queries} queries and {documents} documents")
        ascending = np.argsort(q, kind="stable")
        back = np.empty(len(q), np.int64)
        back[ascending] = np.arange(len(q))
        return cls(q[ascending], d[ascending], back)

    def of(self, block: slice) -> slice:
        """The pairs of a block of queries."""
        first, last = np.searchsorted(self.queries, [block.start, block.stop])
        return slice(int(first), int(last))


def _slices(rows: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def _scores(score: Score, queries: slice, documents: slice) -> Tensor:
    scores = score(queries, documents)
    shape = (queries.stop - queries.start, documents.stop - documents.start)
    if scores.shape != shape:
        raise ValueError(f"score returned shape {tuple(scores.shape)} for a block of shape {shape}")
    return scores.to(torch.float32).contiguous()
