"""`nearest`: all documents for every query, from vectors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from two_tower.ranking.base import NONE, Blocks, Places, QueryDocumentPairs, Ranking, RowPairs, Share, largest, slices
from two_tower.ranking.coarse import Rounded, dots, products, scan_coarse, slacks
from two_tower.ranking.exact import rank
from two_tower.similarity import Similarity
from two_tower.threads import each


@torch.no_grad()
def nearest(
    queries: Tensor, vectors: Callable[[slice], Tensor], documents: int, similarity: Similarity, *,
    order: np.ndarray | Tensor, pairs: RowPairs | None = None, k: int = 0, share: Share | None = None,
    blocks: Blocks = Blocks(),  # noqa: B008 (immutable)
) -> Ranking:  # fmt: skip
    """Rank all documents for every query, exactly, by the similarity of prepared vectors.

    Inner products on the CPU are computed in bfloat16 first, and exactly where that leaves anything open (see
    `two_tower.ranking.coarse`); the result is that of the exact scores, whatever the blocks, threads and processes.
    Distances, and vectors on other devices, go to `rank` in blocks of float32 scores. Beyond the vectors, memory grows
    with the queries and the block sizes, and by 12 bytes a document for its place among equal scores.

    ``queries`` are (Q, D) float32. ``vectors`` returns the (n, D) vectors of a slice of the N documents, on the device
    of the queries; it is called for the blocks of this process only, perhaps twice, and each block starts at a
    multiple of ``blocks.documents``. All other arguments are those of `rank`.
    """
    if similarity.metric != "inner_product" or queries.device.type != "cpu":

        def score(rows: slice, columns: slice) -> Tensor:
            return similarity.scores(queries[rows], vectors(columns))

        return rank(score, len(queries), documents, order=order, pairs=pairs, k=k, blocks=blocks, share=share)
    search = _Search(queries, vectors, Places(order, documents), min(k, documents), share or Share(), blocks)
    return search.run(QueryDocumentPairs.from_rows(pairs, len(queries), documents), k)


class _Search:
    """One call of `nearest` for inner products on the CPU; ``best`` (Q, k) keys, each query's smallest first."""

    def __init__(
        self, queries: Tensor, vectors: Callable[[slice], Tensor], places: Places, k: int, share: Share, blocks: Blocks
    ) -> None:
        self.queries, self.vectors, self.places, self.share = queries.contiguous(), vectors, places, share
        parts = enumerate(slices(len(places.rows), blocks.documents))
        self.parts = [part for number, part in parts if share.owns(number)]
        even = -(-len(queries) // torch.get_num_threads())  # so that all threads are busy
        self.query_blocks = list(slices(len(queries), max(1, min(blocks.queries, even))))
        self.best = np.full((len(queries), k), NONE, np.int64)

    def run(self, wanted: QueryDocumentPairs, k: int) -> Ranking:
        in_corpus = np.flatnonzero(wanted.documents >= 0)
        pairs = QueryDocumentPairs(wanted.queries[in_corpus], wanted.documents[in_corpus], in_corpus)
        pair_scores = self.share.all_reduce(self._pair_scores(pairs), "max")
        above = np.zeros(len(pair_scores), np.int64)
        rounded = Rounded.from_vectors(self.queries)
        for part in self.parts:
            self._scan(part, rounded, pairs, pair_scores, above)
        ranks = np.zeros(len(wanted.documents), np.int64)
        ranks[in_corpus] = 1 + self.share.all_reduce(above, "sum")
        keys = largest(self.share.all_gather(self.best), self.best.shape[1])
        return Ranking(*self.places.decode(keys, k), ranks[wanted.positions])

    def _documents(self, part: slice) -> Tensor:
        return self.vectors(part).to(torch.float32).contiguous()

    def _pair_scores(self, pairs: QueryDocumentPairs) -> np.ndarray:
        """(P,) float32 scores of the pairs, minus infinity where another process has the document."""
        scores = np.full(len(pairs.documents), -np.inf, np.float32)
        for part in self.parts:
            here = np.flatnonzero((pairs.documents >= part.start) & (pairs.documents < part.stop))
            if len(here):
                rows, columns, values = pairs.queries[here], pairs.documents[here] - part.start, scores[here]
                dots(self.queries.numpy(), self._documents(part).numpy(), rows, columns, values)
                scores[here] = values
        return scores

    def _scan(
        self, part: slice, queries: Rounded, pairs: QueryDocumentPairs, pair_scores: np.ndarray, above: np.ndarray
    ) -> None:
        """Compare a block of documents with all queries, each thread with a block of queries and one core."""
        documents = self._documents(part)
        rounded, places = Rounded.from_vectors(documents), self.places.places

        def work(block: slice) -> None:
            own, rows = pairs.in_block(block), queries.rows(block)
            scan_coarse(
                products(rows.vectors, rounded.vectors), slacks(rows, rounded),
                self.queries[block].numpy(), documents.numpy(), places[part],
                np.searchsorted(pairs.queries[own], np.arange(block.start, block.stop + 1)),
                pair_scores[own], places[pairs.documents[own]], self.best[block], above[own],
            )  # fmt: skip

        each(work, self.query_blocks)
