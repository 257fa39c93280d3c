"""Metrics of a model or of BM25 over a whole corpus; the one way from vectors to numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from two_tower.bm25 import BM25
from two_tower.cache import entry, key_of
from two_tower.data.stream.corpus import Corpus, Split
from two_tower.distributed import share_of
from two_tower.metrics import DEFAULT_METRICS, evaluate, mean
from two_tower.model import TwoTower
from two_tower.ranking import Ranking, nearest
from two_tower.tokenizer.tokenizer import Tokenizer

__all__ = ["Evaluation", "evaluate_bm25", "evaluate_dense"]

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


def evaluate_dense(
    model: TwoTower,
    corpus: Corpus,
    split: Split,
    depth: int = 100,
    metrics: Sequence[str] = DEFAULT_METRICS,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Encode everything and rank all documents for every query.

    Processes that train together share the work out: each encodes and scores its own blocks of documents. All
    get the whole result, which does not depend on their number.

    Args:
        model: the towers.
        corpus: N documents.
        split: Q queries with their judgements.
        depth: length of the kept ranking.
        metrics: names, see `two_tower.metrics`.
        progress: called with the number of documents encoded since the last call.
    """
    start, share = time.perf_counter(), share_of(model.device)
    q_QD = model.encode("queries", split.tokens)
    borders = range(0, len(corpus), DOCUMENT_BLOCK)
    d_ND = {
        first: model.encode("documents", corpus.tokens.slice(first, min(first + DOCUMENT_BLOCK, len(corpus))), progress)
        for number, first in enumerate(borders)
        if share.owns(number)
    }

    ranking = nearest(
        q_QD,
        lambda part: d_ND[part.start],
        len(corpus),
        model.similarity,
        order=corpus.order,
        pairs=(split.qrels.query_rows, split.qrels.document_rows),
        k=depth,
        document_block=DOCUMENT_BLOCK,
        share=share,
    )
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
