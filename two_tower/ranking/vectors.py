"""`nearest`: rank all documents for every query by their vectors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from two_tower.ranking.coarse import Rounded, dots, products, scan_coarse, slacks
from two_tower.ranking.exact import Ranking, largest, rank, slices
from two_tower.ranking.kernels import NONE
from two_tower.ranking.places import Pairs, Places
from two_tower.ranking.share import Share
from two_tower.similarity import Similarity
from two_tower.threads import each

__all__ = ["nearest"]


@torch.no_grad()
def nearest(
    queries: Tensor,
    vectors: Callable[[slice], Tensor],
    documents: int,
    similarity: Similarity,
    *,
    order: np.ndarray | Tensor,
    pairs: tuple[np.ndarray, np.ndarray] | None = None,
    k: int = 0,
    query_block: int = 1024,
    document_block: int = 8192,
    share: Share | None = None,
) -> Ranking:
    """Rank all documents for every query, exactly, by the similarity of prepared vectors.

    Inner products on the CPU are computed in bfloat16 first, and exactly where that leaves anything open (see
    `two_tower.ranking.coarse`); the result is that of the exact scores, whatever the blocks, threads and processes.
    Distances, and vectors on other devices, go to `rank` with blocks of float32 scores.

    Beyond the vectors, memory grows with the queries and the block sizes, and by the 12 bytes a document
    that keep its place among equals.

    Args:
        queries: (Q, D) float32.
        vectors: gives the (n, D) float32 vectors of a slice of documents, on the device of the queries; asked for
            the blocks of this process only, each begins at a multiple of ``document_block``; may be called twice.
        documents: N.
        similarity: how vectors are compared.
        order: (N,) distinct integers; of two equal scores, the document with the larger one comes first.
        pairs: (P,) query rows and (P,) document rows whose ranks are asked for, in any order; a document row of -1
            stands for a document outside the corpus, which is never retrieved.
        k: how many of the best documents to return for each query.
        query_block: query rows of a block.
        document_block: document rows of a block.
        share: the processes that rank together, see `rank`.

    Returns:
        The best documents, and the ranks of the pairs in the order given.

    Raises:
        ValueError: ``order`` has not N entries, or a pair lies outside the queries and documents.
    """
    blocks = {"query_block": query_block, "document_block": document_block}
    if similarity.metric != "inner_product" or queries.device.type != "cpu":
        return rank(
            lambda rows, columns: similarity.scores(queries[rows], vectors(columns)),
            *(len(queries), documents), order=order, pairs=pairs, k=k, share=share, **blocks,
        )  # fmt: skip
    search = _Search(queries, vectors, documents, Places(order, documents), k, share or Share(), blocks)
    return search.run(Pairs.sorted(pairs, len(queries), documents), k)


class _Search:
    """One call of `nearest` on the CPU; arguments as there.

    Attributes:
        best: (Q, min(k, N)) int64 keys, the least of each query first.
    """

    def __init__(
        self,
        queries: Tensor,
        vectors: Callable[[slice], Tensor],
        documents: int,
        places: Places,
        k: int,
        share: Share,
        blocks: dict[str, int],
    ) -> None:
        self.queries, self.vectors, self.places, self.share = queries.contiguous(), vectors, places, share
        parts = enumerate(slices(documents, blocks["document_block"]))
        self.parts = [part for number, part in parts if share.owns(number)]
        even = -(-len(queries) // torch.get_num_threads())  # so that all threads are busy
        self.query_blocks = list(slices(len(queries), max(1, min(blocks["query_block"], even))))
        self.best = np.full((len(queries), min(k, documents)), NONE, np.int64)

    def run(self, asked: Pairs, k: int) -> Ranking:
        """The whole ranking."""
        within = np.flatnonzero(asked.documents >= 0)
        pairs = Pairs(asked.queries[within], asked.documents[within], within)
        own = self.share.maximum(self._own_scores(pairs))
        above = np.zeros(len(own), np.int64)
        rounded = Rounded.of(self.queries)
        for part in self.parts:
            self._scan(part, rounded, pairs, own, above)
        ranks = np.zeros(len(asked.documents), np.int64)
        ranks[within] = 1 + self.share.total(above)
        keys = largest(self.share.beside(self.best), self.best.shape[1])
        return Ranking(*self.places.decode(keys, k), ranks[asked.back])

    def _documents(self, part: slice) -> Tensor:
        return self.vectors(part).to(torch.float32).contiguous()

    def _own_scores(self, pairs: Pairs) -> np.ndarray:
        """(P,) float32 scores of the pairs, minus infinity where another process has the document."""
        own = np.full(len(pairs.documents), -np.inf, np.float32)
        for part in self.parts:
            here = np.flatnonzero((pairs.documents >= part.start) & (pairs.documents < part.stop))
            if not len(here):
                continue
            rows, columns, found = pairs.queries[here], pairs.documents[here] - part.start, np.empty(len(here), "f4")
            dots(self.queries.numpy(), self._documents(part).numpy(), rows, columns, found)
            own[here] = found
        return own

    def _scan(self, part: slice, queries: Rounded, pairs: Pairs, own: np.ndarray, above: np.ndarray) -> None:
        """Let a block of documents go by all queries, each thread with a block of them and one core."""
        documents = self._documents(part)
        rounded = Rounded.of(documents)

        def work(block: slice) -> None:
            mine, rows = pairs.of(block), queries.rows(block)
            scan_coarse(
                products(rows.vectors, rounded.vectors), slacks(rows, rounded),
                self.queries[block].numpy(), documents.numpy(), self.places.of[part],
                np.searchsorted(pairs.queries[mine], np.arange(block.start, block.stop + 1)),
                own[mine], self.places.of[pairs.documents[mine]], self.best[block], above[mine],
            )  # fmt: skip

        each(work, self.query_blocks)
