"""`rank`: all documents for every query, from blocks of scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from torch import Tensor

from two_tower.ranking.base import (
    NONE,
    Blocks,
    Places,
    QueryDocumentPairs,
    Ranking,
    RowPairs,
    Share,
    key_of,
    key_score,
    largest,
    slices,
    torch_keys,
)
from two_tower.threads import in_parts

# ``score(queries, documents)``: (q, n) float32 scores of two slices of rows, on any device.
Score = Callable[[slice, slice], Tensor]

_GPU_PAIRS = 1024  # pairs that a GPU counts together
_CHUNK = 64  # documents that the top-k scan rejects together; 128 and 256 were slower


@torch.no_grad()
def rank(
    score: Score, queries: int, documents: int, *, order: np.ndarray | Tensor, pairs: RowPairs | None = None,
    k: int = 0, floor: float | None = None, share: Share | None = None,
    blocks: Blocks = Blocks(),  # noqa: B008 (immutable)
) -> Ranking:  # fmt: skip
    """Rank all ``documents`` for every one of ``queries``, exactly.

    Blocks start at multiples of the block size, so any number of threads, and of processes that share the blocks of
    documents, gives the same ranks. A pair's score is compared with the scores of the very matrix product that it
    came from, bit for bit. With pairs, a block of queries takes two passes: one reads the pairs' scores, one counts
    the documents above them; scores that fit into ``blocks.kept_bytes`` are computed once for both.

    Args:
        score: may be called twice for a block and must then answer the same. NaN counts as minus infinity.
        queries: Q, their number.
        documents: N, their number.
        order: (N,) distinct integers; of two equal scores, the document with the larger one ranks first (`id_order`).
        pairs: rows whose ranks are returned, in their order. A document row of -1 is outside the corpus: not retrieved.
        k: length of the ranking that is returned for each query.
        floor: documents that score no more than this (compared in float32) are not retrieved.
        blocks: they change no result.
        share: all processes must call with the same arguments; each scores its own blocks, and all get the result.
    """
    share = share or Share()
    places = Places(order, documents)
    wanted = QueryDocumentPairs.from_rows(pairs, queries, documents)
    lowest = -np.inf if floor is None else _next_above(floor)
    parts = [part for number, part in enumerate(slices(documents, blocks.documents)) if share.owns(number)]
    keep = min(blocks.queries, queries) * sum(part.stop - part.start for part in parts) * 4 <= blocks.kept_bytes
    keys = np.full((queries, min(k, documents)), NONE, np.int64)
    ranks = np.zeros(len(wanted.documents), np.int64)
    for block in slices(queries, blocks.queries):
        state = _Block.start(block, wanted, places, keys.shape[1], lowest)
        kept: dict[int, Tensor] = {}
        if len(state.rows):
            for part in parts:
                scores = _scores(score, block, part)
                state.read_pair_scores(scores, part)
                if keep:
                    kept[part.start] = scores
            state.pair_scores = share.all_reduce(state.pair_scores, "max")
        for part in parts:
            state.scan(kept.pop(part.start) if kept else _scores(score, block, part), part)
        keys[block] = largest(share.all_gather(state.best.cpu().numpy()), keys.shape[1])
        above = share.all_reduce(state.above.cpu().numpy(), "sum")
        ranks[wanted.in_block(block)] = state.ranks(above)
    rows, best_scores = places.decode(keys, k)
    return Ranking(rows, best_scores, ranks[wanted.positions])


def _scores(score: Score, queries: slice, documents: slice) -> Tensor:
    scores = score(queries, documents)
    shape = (queries.stop - queries.start, documents.stop - documents.start)
    if scores.shape != shape:
        raise ValueError(f"score returned shape {tuple(scores.shape)} for a block of shape {shape}")
    return scores.to(torch.float32).contiguous()


def _next_above(floor: float) -> float:
    """The smallest float32 above ``floor``; above 0 the smallest normal one.

    Training flushes smaller numbers to 0 in its process, and what scores 0 would then be retrieved.
    """
    tiny = np.finfo(np.float32).tiny
    return float(tiny if 0 <= floor < tiny else np.nextafter(np.float32(floor), np.float32(np.inf)))


@dataclass
class _Block:
    """A block of queries: its best documents and its pairs, while the blocks of documents pass by."""

    places: Places  # of all documents
    lowest: float  # the smallest score that is retrieved, exact in float32
    best: Tensor  # (q, k) int64 keys; on the CPU a min-heap for each query
    rows: np.ndarray  # (p,) int64, the query of each pair within the block, ascending
    documents: np.ndarray  # (p,) int64, its document row
    pair_scores: np.ndarray  # (p,) float32, its score; -inf until its document has passed
    above: Tensor  # (p,) int64, documents counted that rank above it

    @classmethod
    def start(cls, block: slice, pairs: QueryDocumentPairs, places: Places, k: int, lowest: float) -> _Block:
        own = pairs.in_block(block)
        best = torch.full((block.stop - block.start, k), NONE, dtype=torch.int64)
        scores = np.full(own.stop - own.start, -np.inf, np.float32)
        above = torch.zeros(len(scores), dtype=torch.int64)
        return cls(places, lowest, best, pairs.queries[own] - block.start, pairs.documents[own], scores, above)

    def read_pair_scores(self, scores: Tensor, part: slice) -> None:
        """Take the scores of the pairs whose documents are in this block of documents."""
        here = np.flatnonzero((self.documents >= part.start) & (self.documents < part.stop))
        if len(here):
            rows = torch.from_numpy(self.rows[here]).to(scores.device)
            columns = torch.from_numpy(self.documents[here] - part.start).to(scores.device)
            values = scores[rows, columns].cpu().numpy()
            self.pair_scores[here] = np.where(np.isnan(values), -np.inf, values)

    def scan(self, scores: Tensor, part: slice) -> None:
        """Count the documents of a block that rank above each pair, and keep the best."""
        (self._scan_cpu if scores.device.type == "cpu" else self._scan_torch)(scores, part)

    def ranks(self, above: np.ndarray) -> np.ndarray:
        """(p,) int64, ranks of the pairs, given the documents above each; 0 = not retrieved."""
        return np.where((self.documents >= 0) & (self.pair_scores >= self.lowest), 1 + above, 0)

    def _scan_cpu(self, scores: Tensor, part: slice) -> None:
        places = self.places.places
        starts = np.searchsorted(self.rows, np.arange(len(scores) + 1))
        pairs = (starts, self.pair_scores, places[self.documents])
        state = (np.float32(self.lowest), self.best.numpy(), self.above.numpy())
        arrays = (scores.numpy(), places[part], *pairs, *state)
        in_parts(lambda first, last: _scan(first, last, *arrays), len(scores))

    def _scan_torch(self, scores: Tensor, part: slice) -> None:
        device = scores.device
        self.best, self.above = self.best.to(device), self.above.to(device)
        keys = torch_keys(scores, torch.from_numpy(self.places.places[part]).to(device))
        pair_places = torch.from_numpy(self.places.places[self.documents]).to(device)
        pair_keys = torch_keys(torch.from_numpy(self.pair_scores).to(device), pair_places)
        rows = torch.from_numpy(self.rows).to(device)
        for some in slices(len(rows), _GPU_PAIRS):
            self.above[some] += (keys[rows[some]] > pair_keys[some, None]).sum(1)
        lowest = torch.tensor([self.lowest], dtype=torch.float32, device=device)
        lowest_key = torch_keys(lowest, torch.zeros(1, dtype=torch.int32, device=device))
        retrieved = torch.where(keys >= lowest_key, keys, NONE)
        self.best = torch.cat([self.best, retrieved], 1).topk(self.best.shape[1], sorted=False).values


@njit(nogil=True, cache=True)
def _scan(
    first: int, last: int, scores: np.ndarray, places: np.ndarray, starts: np.ndarray,
    pair_scores: np.ndarray, pair_places: np.ndarray, lowest: np.float32, best: np.ndarray, above: np.ndarray,
) -> None:  # fmt: skip
    """Scan rows ``first`` to ``last`` of the (q, n) ``scores`` once; changes ``best`` and ``above``.

    Row i has the pairs ``starts[i]`` to ``starts[i + 1]``. ``places`` (n,) int32 are the documents' places,
    ``pair_places`` (p,) int32 those of the pairs' documents; ``best`` (q, k) int64 holds a min-heap of keys a row.
    """
    for i in range(first, last):
        for p in range(starts[i], starts[i + 1]):
            above[p] += _count_above(scores[i], places, pair_scores[p], pair_places[p])
        if best.shape[1]:
            _keep_best(scores[i], places, best[i], lowest)


# The next two loops have no branches, so that they become vector instructions: 0.2 ns a document.


@njit(nogil=True, cache=True)
def _count_above(scores: np.ndarray, places: np.ndarray, score: np.float32, place: int) -> int:
    """Documents of a row that rank above the one with this score and place."""
    count = 0
    if score > -np.inf:
        for j in range(len(scores)):
            count += (scores[j] > score) | ((scores[j] == score) & (places[j] > place))
    else:  # minus infinity and NaN are equal to each other
        for j in range(len(scores)):
            count += (scores[j] > -np.inf) | (places[j] > place)
    return count


@njit(nogil=True, cache=True)
def _any_from(scores: np.ndarray, minimum: np.float32) -> bool:
    count = 0
    for j in range(len(scores)):
        count += not (scores[j] < minimum)  # NaN as well
    return count > 0


@njit(nogil=True, cache=True)
def _keep_best(scores: np.ndarray, places: np.ndarray, heap: np.ndarray, lowest: np.float32) -> None:
    """Offer a row's documents to a min-heap of keys; soon few chunks hold a document that gets in."""
    lowest_key = key_of(lowest, 0)
    minimum = lowest if heap[0] == NONE else key_score(heap[0])
    for start in range(0, len(scores), _CHUNK):
        stop = min(start + _CHUNK, len(scores))
        if not _any_from(scores[start:stop], minimum):
            continue
        for j in range(start, stop):
            if scores[j] < minimum:
                continue
            key = key_of(scores[j], places[j])
            if key >= lowest_key and key > heap[0]:
                _replace_smallest(heap, key)
                if heap[0] != NONE:
                    minimum = key_score(heap[0])


@njit(nogil=True, cache=True)
def _replace_smallest(heap: np.ndarray, key: np.int64) -> None:
    i, k = 0, len(heap)
    while 2 * i + 1 < k:
        child = 2 * i + 1
        if child + 1 < k and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[i] = heap[child]
        i = child
    heap[i] = key
