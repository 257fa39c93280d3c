"""Metrics of a model or of BM25 over a whole corpus; the one way from vectors to numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from two_tower.bm25 import BM25
from two_tower.cache import entry, key_of
from two_tower.data.stream.corpus import Corpus, Split
from two_tower.distributed import share_of
from two_tower.metrics import DEFAULT_METRICS, evaluate, mean
from two_tower.model import TwoTower
from two_tower.ragged import Ragged
from two_tower.ranking import Ranking, Share, nearest
from two_tower.tokenizer.base import Tokenizer

__all__ = ["Encoded", "Evaluation", "evaluate_bm25", "evaluate_dense"]

# Raise whenever BM25 would rank otherwise.
BM25_VERSION = 4

# Documents that one process encodes and scores together.
DOCUMENT_BLOCK = 8192


@dataclass(frozen=True)
class Evaluation:
    """What one system scores on one split.

    Attributes:
        means: metric → mean over the queries.
        per_query: metric → (Q,) float64.
        ranking: the top documents of every query and the ranks of the judged ones.
        seconds: what it cost.
    """

    means: dict[str, float]
    per_query: dict[str, np.ndarray]
    ranking: Ranking
    seconds: float


def _evaluation(ranking: Ranking, split: Split, metrics: Sequence[str], start: float) -> Evaluation:
    per_query = evaluate(ranking.ranks, split.qrels, metrics, split.threshold)
    return Evaluation(mean(per_query), per_query, ranking, time.perf_counter() - start)


@dataclass(frozen=True, eq=False)
class Encoded:
    """Queries and a corpus as vectors, to be ranked.

    Processes that train together share the work out: each encodes and scores its own blocks of documents. All
    get the whole ranking, which does not depend on their number.

    Attributes:
        model: the towers.
        corpus: N documents.
        queries: (Q, D) vectors.
        blocks: the vectors of this process' blocks of documents, by the row each begins with.
        share: which blocks those are.
    """

    model: TwoTower
    corpus: Corpus
    queries: Tensor
    blocks: dict[int, Tensor]
    share: Share

    @classmethod
    def of(
        cls, model: TwoTower, corpus: Corpus, queries: Ragged, progress: Callable[[int], None] | None = None
    ) -> Encoded:
        """Encode Q queries and this process' documents; ``progress`` gets the number of documents done since then."""
        share = share_of(model.device)
        vectors = model.encode("queries", queries)
        blocks = {}
        for number, first in enumerate(range(0, len(corpus), DOCUMENT_BLOCK)):
            if share.owns(number):
                tokens = corpus.tokens.slice(first, min(first + DOCUMENT_BLOCK, len(corpus)))
                blocks[first] = model.encode("documents", tokens, progress)
        return cls(model, corpus, vectors, blocks, share)

    def rank(self, k: int, pairs: tuple[np.ndarray, np.ndarray] | None = None) -> Ranking:
        """The best ``k`` documents of every query, and the ranks of pairs, see `two_tower.ranking.nearest`."""
        return nearest(
            self.queries,
            lambda part: self.blocks[part.start],
            len(self.corpus),
            self.model.similarity,
            order=self.corpus.order,
            pairs=pairs,
            k=k,
            document_block=DOCUMENT_BLOCK,
            share=self.share,
        )


def evaluate_dense(
    model: TwoTower,
    corpus: Corpus,
    split: Split,
    depth: int = 100,
    metrics: Sequence[str] = DEFAULT_METRICS,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Encode everything and rank all documents for every query, see `Encoded`.

    Args:
        model: the towers.
        corpus: N documents.
        split: Q queries with their judgements.
        depth: length of the kept ranking.
        metrics: names, see `two_tower.metrics`.
        progress: called with the number of documents encoded since the last call.
    """
    start = time.perf_counter()
    pairs = (split.qrels.query_rows, split.qrels.document_rows)
    ranking = Encoded.of(model, corpus, split.tokens, progress).rank(depth, pairs)
    return _evaluation(ranking, split, metrics, start)


def evaluate_bm25(
    corpus: Corpus,
    split: Split,
    tokenizer: Tokenizer,
    depth: int = 100,
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> Evaluation:
    """The lexical baseline on the same queries and documents, ranked once per collection and then read from the cache.

    Args:
        corpus: N documents.
        split: Q queries with their judgements.
        tokenizer: the towers': BM25 splits the words of identifiers as it does.
        depth: length of the kept ranking.
        metrics: names, see `two_tower.metrics`.
    """
    start, camel = time.perf_counter(), tokenizer.split_camel_case

    def measure(folder: Path) -> None:
        pairs = (split.qrels.query_rows, split.qrels.document_rows)
        bm25 = BM25(corpus.texts(), split_camel_case=camel)
        ranking = bm25.rank(split.texts.to_pylist(), order=corpus.order, pairs=pairs, k=depth)
        rows = ranking.rows.astype(np.int32)
        np.savez(folder / "ranking.npz", rows=rows, scores=ranking.scores, ranks=ranking.ranks)

    key = key_of(BM25_VERSION, corpus.source.fingerprint(), split.name, camel, depth)
    with np.load(entry("bm25", key, measure) / "ranking.npz") as saved:
        ranking = Ranking(saved["rows"].astype(np.int64), saved["scores"], saved["ranks"])
    return _evaluation(ranking, split, metrics, start)
