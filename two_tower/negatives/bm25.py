"""Documents that share words with a query and do not answer it, found once by BM25."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from two_tower.bm25 import BM25
from two_tower.cache import entry, key_of
from two_tower.negatives._mined import MinedNegatives
from two_tower.negatives._table import Found, Kept, keep_candidates, least_scores
from two_tower.negatives.base import Collection
from two_tower.progress import counter

__all__ = ["BM25Negatives"]

log = logging.getLogger(__name__)

# Raise whenever the same settings would mine other documents.
VERSION = 1

# Queries that are ranked together.
BLOCK = 1024


class BM25Negatives(MinedNegatives):
    """Documents of the ranks ``first_rank`` to ``last_rank`` of BM25 (Karpukhin et al. 2020, arXiv:2004.04906).

    Mined once per collection and settings, before training, and then read from the cache.

    Args:
        count: see `MinedNegatives`.
        first_rank: see `MinedNegatives`.
        last_rank: see `MinedNegatives`.
        relative_margin: see `MinedNegatives`; compares BM25's scores.
        share_batch: see `Negatives`.
        mask_known: see `Negatives`.
    """

    def __init__(
        self,
        count: int = 1,
        first_rank: int = 1,
        last_rank: int = 50,
        relative_margin: float | None = 0.05,
        share_batch: bool | None = None,
        mask_known: bool = True,
    ) -> None:
        super().__init__(count, first_rank, last_rank, relative_margin, share_batch, mask_known)

    def prepare(self, collection: Collection) -> None:
        """Mine the candidates, or read them."""
        key = key_of(
            VERSION, collection.fingerprint, self.first_rank, self.last_rank, self.relative_margin, self.mask_known
        )
        folder = entry("negatives", key, lambda path: self._mine(path, collection))
        self.table = np.load(folder / "table.npy", mmap_mode="r")
        log.info("Negatives from BM25: %s.", (folder / "kept.txt").read_text(encoding="utf-8"))

    def _mine(self, folder: Path, collection: Collection) -> None:
        queries = collection.queries.to_pylist()
        index = BM25(collection.texts(), split_camel_case=collection.split_camel_case)
        least = least_scores(collection.pairs, index.pair_scores(queries, collection.pairs), len(queries))
        depth = min(self.last_rank, len(index))
        shape = (len(queries), max(depth - self.first_rank + 1, 1))
        table, kept = np.lib.format.open_memmap(folder / "table.npy", "w+", np.int32, shape), Kept()
        with counter("Mining negatives with BM25", "queries") as progress:
            for start in range(0, len(queries), BLOCK):
                rows = np.arange(start, min(start + BLOCK, len(queries)))
                ranking = index.rank(queries[start : start + BLOCK], order=collection.order, k=depth)
                taken = slice(self.first_rank - 1, None)
                found = Found(ranking.rows[:, taken], ranking.scores[:, taken], least[rows])
                candidates, counts = keep_candidates(found, rows, collection, self.relative_margin, self.mask_known)
                table[rows, : candidates.shape[1]] = candidates
                kept += counts
                progress(len(rows))
        table.flush()
        (folder / "kept.txt").write_text(self.describe(len(queries), kept), encoding="utf-8")
