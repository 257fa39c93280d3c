"""From vectors to numbers: the rankings of a split by the towers, by BM25 and by both, and their metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from two_tower.bm25 import BM25
from two_tower.cache import entry, key_of
from two_tower.console import Advance, counter
from two_tower.data.stream.corpus import Corpus, Split
from two_tower.distributed import share_of
from two_tower.engine.base import Engine, Work
from two_tower.engine.local import LOCAL
from two_tower.fusion import Judged, cross_fit
from two_tower.metrics import DEFAULT_METRICS, mean
from two_tower.metrics.rank_metrics import RankMetrics
from two_tower.ragged import Ragged
from two_tower.ranking import Blocks, Ranking, RowPairs, Share, nearest
from two_tower.tokenizer.base import Tokenizer
from two_tower.validation._room import room_for
from two_tower.vectors import Side, Towers

BM25_VERSION = 6  # raise whenever BM25 would rank otherwise

CPU = torch.device("cpu")
DOCUMENT_BLOCK = 8192  # documents that one process encodes and scores together
QUERY_BLOCK = 8192  # queries whose metrics are computed together


@dataclass(frozen=True)
class Evaluation:
    """The figures of one system on one split."""

    means: dict[str, float]  # metric → mean over the queries
    per_query: dict[str, np.ndarray]  # metric → (Q,) float64
    ranking: Ranking  # the top documents of every query and the ranks of the judged ones
    seconds: float
    groups: dict[str, float] = field(default_factory=dict)  # ``GROUP/METRIC`` → mean, see `QueryGroups`

    @classmethod
    def from_ranking(
        cls, ranking: Ranking, split: Split, metrics: Sequence[str], device: torch.device, start: float
    ) -> Evaluation:
        """Measure a ranking that every process has; each process measures its part of the queries.

        ``device`` is where they exchange tensors, ``start`` when the work began, by `time.perf_counter`.
        """
        accumulated, share = RankMetrics(metrics, split.threshold), share_of(device)
        if share.size > 1:
            accumulated.to(device)
        first, last = (split.qrels.queries * part // share.size for part in (share.rank, share.rank + 1))
        for pairs, qrels in split.qrels.blocks(first, last, QUERY_BLOCK):
            accumulated.update(ranking.ranks[pairs], qrels)
        per_query = accumulated.per_query()
        return cls(mean(per_query), per_query, ranking, time.perf_counter() - start)


@dataclass(frozen=True, eq=False)
class EncodedCorpus:
    """Queries and a corpus as vectors, ready to be ranked.

    Processes that train together share the work: each encodes and scores its own blocks of documents. All get the
    whole ranking, which does not depend on their number.
    """

    model: Towers
    corpus: Corpus
    queries: Tensor  # (Q, D)
    blocks: dict[int, Tensor]  # the vectors of this process's blocks of documents, by their first row
    share: Share

    @classmethod
    def from_model(
        cls, model: Towers, corpus: Corpus, queries: Ragged, progress: Callable[[int], None] | None = None,
        engine: Engine = LOCAL,
    ) -> EncodedCorpus:  # fmt: skip
        """Encode the queries and this process's documents; ``progress`` gets the number of documents just encoded."""
        share = share_of(model.device)
        vectors = model.encode("queries", queries)
        firsts = [first for n, first in enumerate(range(0, len(corpus), DOCUMENT_BLOCK)) if share.owns(n)]
        tokens = corpus.tokens.ids.numpy(), corpus.tokens.offsets.numpy()
        work = _Documents(Side(model.document_tower, model.similarity))
        room = room_for(len(firsts) * DOCUMENT_BLOCK, vectors.shape[1], model.device)
        engine.run(work, partial(_slices, *tokens, firsts), room.keep, progress)
        return cls(model, corpus, vectors, room.blocks(), share)

    def rank(self, k: int, pairs: RowPairs | None = None) -> Ranking:
        """The best ``k`` documents of every query, and the ranks of pairs."""
        return nearest(
            self.queries, lambda part: self.blocks[part.start], len(self.corpus), self.model.similarity,
            order=self.corpus.order, pairs=pairs, k=k, blocks=Blocks(documents=DOCUMENT_BLOCK), share=self.share,
        )  # fmt: skip


class _Documents(Work[tuple[int, np.ndarray, np.ndarray], tuple[int, Tensor]]):
    """Gives the tokens of documents their vectors."""

    def __init__(self, side: Side) -> None:
        self._side, self._away = side, False

    def to(self, device: str) -> None:
        self._side.tower.to(device)
        self._away = True

    def __call__(
        self, item: tuple[int, np.ndarray, np.ndarray], progress: Advance | None
    ) -> Callable[[], tuple[int, Tensor]]:
        first, *tokens = item
        vectors = self._side.encode(Ragged.from_numpy(*tokens), progress)
        return lambda: (first, vectors.cpu() if self._away else vectors)


def _slices(
    ids: np.ndarray, offsets: np.ndarray, firsts: Sequence[int]
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """The tokens of the blocks of documents that begin at ``firsts``; in numpy, whose views are pickled alone."""
    for first in firsts:
        own = offsets[first : first + DOCUMENT_BLOCK + 1]
        yield first, ids[own[0] : own[-1]], own - own[0]


def rank_split(
    model: Towers, corpus: Corpus, split: Split, top_k: int = 100,
    metrics: Sequence[str] = DEFAULT_METRICS, progress: Callable[[int], None] | None = None,
) -> Evaluation:  # fmt: skip
    """Encode everything, rank all documents for every query and measure the ranking; keeps the best ``top_k``."""
    start = time.perf_counter()
    encoded = EncodedCorpus.from_model(model, corpus, split.tokens, progress)
    ranking = _without_same(encoded.rank, split, top_k)
    if split.known is not None:  # every passage is equally near to a query without a known word
        ranking = _answers_to(split.known, ranking, split)
    return Evaluation.from_ranking(ranking, split, metrics, model.device, start)


def _answers_to(queries: np.ndarray, ranking: Ranking, split: Split) -> Ranking:
    """The ranking of some queries, (Q,) bool; nothing is found for the others, as in a search."""
    found = queries[:, None]
    rows, scores = np.where(found, ranking.rows, -1), np.where(found, ranking.scores, np.float32(-np.inf))
    return Ranking(rows, scores, np.where(queries[split.qrels.query_rows], ranking.ranks, 0))


def _without_same(rank: Callable[[int, RowPairs], Ranking], split: Split, top_k: int) -> Ranking:
    """What ``rank`` finds, without the passage that has a query's own id (``split.same``)."""
    (queries, documents), same = split.qrels.pairs, split.same
    if same is None:
        return rank(top_k, (queries, documents))
    some = np.flatnonzero(same >= 0)
    found = rank(top_k + 1, (np.append(queries, some), np.append(documents, same[some])))
    ranks, own = found.ranks[: len(queries)], np.zeros(len(same), np.int64)
    own[some] = found.ranks[len(queries) :]
    own = own[queries]
    ranks = np.where(documents == same[queries], 0, ranks - ((own > 0) & (own < ranks)))
    last = np.argsort(found.rows == np.where(same < 0, -2, same)[:, None], axis=1, kind="stable")[:, :top_k]
    return Ranking(np.take_along_axis(found.rows, last, 1), np.take_along_axis(found.scores, last, 1), ranks)


def rank_split_by_bm25(
    corpus: Corpus, split: Split, tokenizer: Tokenizer, top_k: int = 100,
    metrics: Sequence[str] = DEFAULT_METRICS, device: torch.device = CPU,
) -> Evaluation:  # fmt: skip
    """The lexical baseline on the same queries and documents, ranked once per collection and cached.

    BM25 reads the words that the ``tokenizer`` of the towers does.
    """
    start, rule = time.perf_counter(), tokenizer.rule

    def measure(folder: Path) -> None:
        with counter(f"BM25 on {corpus.source.name}"):
            bm25 = BM25(corpus.texts(), rule)
            texts, order = split.texts.to_pylist(), corpus.order
            ranking = _without_same(lambda k, pairs: bm25.rank(texts, order=order, pairs=pairs, k=k), split, top_k)
        rows = ranking.rows.astype(np.int32)
        np.savez(folder / "ranking.npz", rows=rows, scores=ranking.scores, ranks=ranking.ranks)

    key = key_of(BM25_VERSION, corpus.source.fingerprint(), split.name, rule, top_k, split.same is not None)
    with np.load(entry("bm25", key, measure) / "ranking.npz") as saved:
        ranking = Ranking(saved["rows"].astype(np.int64), saved["scores"], saved["ranks"])
    return Evaluation.from_ranking(ranking, split, metrics, device, start)


def fuse_cross_fitted(
    dense: Evaluation, bm25: Evaluation, split: Split, order: np.ndarray, monitor: str, device: torch.device = CPU
) -> Evaluation:
    """The fusion of towers and BM25, see `cross_fit`: the metrics that ``dense`` has. Its ranking has ranks only.

    ``order`` (N,) decides between equal scores, ``monitor`` is the metric that the choice of weights maximizes.
    """
    start = time.perf_counter()
    judged = Judged(order, split.qrels, monitor, split.name, split.threshold)
    ranks = cross_fit(dense.ranking, bm25.ranking, judged)
    no_rows = np.zeros((split.qrels.queries, 0))
    ranking = Ranking(no_rows.astype(np.int64), no_rows.astype(np.float32), ranks)
    return Evaluation.from_ranking(ranking, split, list(dense.per_query), device, start)
