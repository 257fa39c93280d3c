"""`rank`: all documents for every query, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from two_tower.ranking.kernels import NONE, scan, torch_keys
from two_tower.ranking.places import Pairs, Places
from two_tower.ranking.share import Share
from two_tower.threads import in_parts

__all__ = ["Ranking", "Score", "largest", "rank", "slices"]

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
    share: Share | None = None,
) -> Ranking:
    """Rank all documents for every query, exactly.

    Blocks start at multiples of the block size, so any number of threads, and of processes that share
    the blocks of documents out, gives the same ranks. A pair is compared with scores of the very
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
        share: the processes that rank together; each scores its own blocks of documents only, and all must
            call with the same arguments. All get the whole result.

    Returns:
        The best documents, and the ranks of the pairs in the order given.

    Raises:
        ValueError: ``order`` has not N entries, a pair lies outside the queries and documents, or
            ``score`` returns another shape than asked for.
    """
    share = share or Share()
    places = Places(order, documents)
    asked = Pairs.sorted(pairs, queries, documents)
    keys = np.full((queries, min(k, documents)), NONE, np.int64)
    ranks = np.zeros(len(asked.documents), np.int64)
    lowest = -np.inf if floor is None else _above(floor)
    parts = [part for number, part in enumerate(slices(documents, document_block)) if share.owns(number)]
    keep = min(query_block, queries) * sum(part.stop - part.start for part in parts) * 4 <= budget_bytes
    for block in slices(queries, query_block):
        state = _Block.start(block, asked, places, keys.shape[1], lowest)
        kept: dict[int, Tensor] = {}
        if len(state.rows):
            for part in parts:
                scores = _scores(score, block, part)
                state.read_own(scores, part)
                if keep:
                    kept[part.start] = scores
            state.own = share.maximum(state.own)
        for part in parts:
            state.scan(kept.pop(part.start) if kept else _scores(score, block, part), part)
        keys[block] = largest(share.beside(state.best.cpu().numpy()), keys.shape[1])
        state.above = torch.from_numpy(share.total(state.above.cpu().numpy()))
        ranks[asked.of(block)] = state.ranks()
    rows, best_scores = places.decode(keys, k)
    return Ranking(rows, best_scores, ranks[asked.back])


def _above(floor: float) -> float:
    """The least float32 above ``floor``; above 0 the least normal one.

    Training flushes smaller numbers to 0 in its process, and what scores 0 would then be retrieved.
    """
    tiny = np.finfo(np.float32).tiny
    return float(tiny if 0 <= floor < tiny else np.nextafter(np.float32(floor), np.float32(np.inf)))


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

    places: Places
    lowest: float
    best: Tensor
    rows: np.ndarray
    documents: np.ndarray
    own: np.ndarray
    above: Tensor

    @classmethod
    def start(cls, block: slice, pairs: Pairs, places: Places, k: int, lowest: float) -> _Block:
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
            own = scores[rows, columns].cpu().numpy()
            self.own[here] = np.where(np.isnan(own), -np.inf, own)

    def scan(self, scores: Tensor, part: slice) -> None:
        """Count the documents of a block before each pair, and keep the best."""
        (self._scan_cpu if scores.device.type == "cpu" else self._scan_torch)(scores, part)

    def ranks(self) -> np.ndarray:
        """(p,) int64, ranks of the pairs once all blocks have gone by; 0 = not retrieved."""
        return np.where((self.documents >= 0) & (self.own >= self.lowest), 1 + self.above.cpu().numpy(), 0)

    def _scan_cpu(self, scores: Tensor, part: slice) -> None:
        of = self.places.of
        starts = np.searchsorted(self.rows, np.arange(len(scores) + 1))
        block = (scores.numpy(), of[part], starts, self.own, of[self.documents], np.float32(self.lowest))
        best, above = self.best.numpy(), self.above.numpy()
        in_parts(lambda first, last: scan(first, last, *block, best, above), len(scores))

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


def largest(keys: np.ndarray, k: int) -> np.ndarray:
    """The ``k`` largest of each row, in any order."""
    return keys if keys.shape[1] == k else np.partition(keys, keys.shape[1] - k, axis=1)[:, keys.shape[1] - k :]


def slices(rows: int, size: int) -> Iterator[slice]:
    """Blocks of ``rows`` rows, each begins at a multiple of ``size``."""
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def _scores(score: Score, queries: slice, documents: slice) -> Tensor:
    scores = score(queries, documents)
    shape = (queries.stop - queries.start, documents.stop - documents.start)
    if scores.shape != shape:
        raise ValueError(f"score returned shape {tuple(scores.shape)} for a block of shape {shape}")
    return scores.to(torch.float32).contiguous()
