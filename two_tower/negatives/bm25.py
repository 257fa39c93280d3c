"""Documents that share words with a query and that nobody judged relevant, mined once with BM25."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from two_tower.bm25 import BM25
from two_tower.cache import entry, key_of
from two_tower.console import counter
from two_tower.negatives._mined import FilterCounts, MinedNegatives, SearchResult, filter_candidates, min_scores
from two_tower.negatives.base import Collection

log = logging.getLogger(__name__)

VERSION = 2  # raise whenever the same settings would mine other documents
BLOCK = 1024  # queries ranked together


class BM25Negatives(MinedNegatives):
    """Documents of the ranks ``first_rank`` to ``last_rank`` of BM25 (Karpukhin et al. 2020, arXiv:2004.04906)."""

    def prepare(self, collection: Collection) -> None:
        settings = (self.first_rank, self.last_rank, self.relative_margin, self.mask_known_positives)
        key = key_of(VERSION, collection.fingerprint, *settings)
        folder = entry("negatives", key, lambda path: self._mine(path, collection))
        self.table = np.load(folder / "table.npy", mmap_mode="r")
        log.info("Negatives from BM25: %s.", (folder / "summary.txt").read_text(encoding="utf-8"))

    def _mine(self, folder: Path, collection: Collection) -> None:
        queries = collection.queries.to_pylist()
        index = BM25(collection.texts(), collection.rule)
        minimum = min_scores(collection.pairs, index.pair_scores(queries, collection.pairs), len(queries))
        depth = min(self.last_rank, len(index))
        shape = (len(queries), max(depth - self.first_rank + 1, 1))
        table = np.lib.format.open_memmap(folder / "table.npy", "w+", np.int32, shape)
        total = FilterCounts()
        with counter("Mining negatives with BM25", "queries") as progress:
            for start in range(0, len(queries), BLOCK):
                rows = np.arange(start, min(start + BLOCK, len(queries)))
                ranking = index.rank(queries[start : start + BLOCK], order=collection.order, k=depth)
                found = SearchResult(ranking.rows, ranking.scores, minimum[rows]).ranks(self.first_rank, depth)
                margin, mask = self.relative_margin, self.mask_known_positives
                candidates, counts = filter_candidates(found, rows, collection, margin, mask)
                table[rows, : candidates.shape[1]] = candidates
                total += counts
                progress(len(rows))
        table.flush()
        (folder / "summary.txt").write_text(self.describe(len(queries), total), encoding="utf-8")
