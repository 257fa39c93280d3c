"""What can be counted of texts (lengths, unknown words, copies) and of texts that belong together, ready for JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from two_tower.data.stream.corpus import Corpus, Split
from two_tower.ragged import Ragged

EXAMPLES = 3  # ids that are given of whatever is found
PAIRS = 10_000  # the most whose words are compared; a share is then right to 1 % (two standard errors at most)


def text_facts(batches: Iterable[Ragged], unknown_id: int, limit: int) -> dict[str, Any]:
    """Lengths and unknown words of whole texts, and what is cut off if ``limit`` tokens are kept of each.

    Of ``cut`` and ``unknown`` the ``texts`` are those that are longer, and those without any known word. Counts batch
    by batch, so that memory holds one of them.
    """
    lengths, unknown, without_known = np.zeros(1, np.int64), 0, 0  # lengths[n] texts have n tokens
    for batch in batches:
        batch_lengths = np.bincount(batch.lengths.numpy(), minlength=len(lengths))
        batch_lengths[: len(lengths)] += lengths
        lengths = batch_lengths
        known = batch.ids.numpy() != unknown_id
        unknown += len(known) - int(np.count_nonzero(known))
        without_known += int(np.count_nonzero(~batch.any(known)))
    sizes = np.arange(len(lengths))
    texts, tokens = int(lengths.sum()), int(lengths @ sizes)
    longer, lost = int(lengths[limit + 1 :].sum()), int(lengths @ np.maximum(sizes - limit, 0))
    cut = {"texts": longer, "rate": _rate(longer, texts), "tokens": lost, "token_rate": _rate(lost, tokens)}
    without = {"texts": without_known, "text_rate": _rate(without_known, texts)}
    return {
        "count": texts, "tokens": tokens, "lengths": distribution(lengths), "cut": {"limit": limit, **cut},
        "unknown": {"tokens": unknown, "rate": _rate(unknown, tokens), **without},
    }  # fmt: skip


def _rate(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def distribution(counts: np.ndarray) -> dict[str, Any]:
    """How values are spread, where ``counts[v]`` things have the value ``v``.

    Returns:
        ``min``, ``median``, ``mean``, ``p95``, ``p99``, ``max`` (a quantile is the smallest value that occurs with at
        least that share at or below it), and ``histogram``: ``edges`` (E + 1,) and ``counts`` (E,). Edges are 0, 1, 2,
        3, 4, 6, 8, 12 … wherever the values lie, so that histograms can be compared. Of nothing zeros, and no bins.
    """
    ends = np.concatenate([[0], np.cumsum(counts)])
    total = int(ends[-1])
    if not total:
        return {**dict.fromkeys(("min", "median", "mean", "p95", "p99", "max"), 0), "histogram": _histogram(ends)}
    median, p95, p99 = (int(np.searchsorted(ends[1:], share * total)) for share in (0.5, 0.95, 0.99))
    first, last = np.flatnonzero(counts)[[0, -1]].tolist()
    mean = float(counts @ np.arange(len(counts))) / total
    return {
        "min": first, "median": median, "mean": mean, "p95": p95, "p99": p99, "max": last,
        "histogram": _histogram(ends),
    }  # fmt: skip


def _histogram(ends: np.ndarray) -> dict[str, list[int]]:
    edges = [0, 1, 2]
    while edges[-1] < len(ends) - 1:
        last = edges[-1]
        edges.append(last * 3 // 2 if last & (last - 1) == 0 else last * 4 // 3)
    counts = np.diff(ends[np.minimum(edges, len(ends) - 1)])
    filled = np.flatnonzero(counts)
    if not len(filled):
        return {"edges": [], "counts": []}
    first, stop = int(filled[0]), int(filled[-1]) + 1
    return {"edges": edges[first : stop + 1], "counts": counts[first:stop].tolist()}


def duplicates(hashes: np.ndarray, ids: pa.ChunkedArray) -> dict[str, Any]:
    """Texts with equal hashes (B,), but for hash 0: how many, how many different ones, ids of the first."""
    rows = np.flatnonzero(hashes)
    rows = rows[np.argsort(hashes[rows], kind="stable")]
    ordered = hashes[rows]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(rows)])
    sizes = np.diff(starts, append=len(rows))
    starts, sizes = starts[sizes > 1], sizes[sizes > 1]
    firsts = np.argsort(rows[starts])[:EXAMPLES]
    groups = [rows[starts[g] : starts[g] + min(sizes[g], EXAMPLES)] for g in firsts]
    named = [[ids[int(row)].as_py() for row in group] for group in groups]
    return {"texts": int(sizes.sum()), "groups": len(sizes), "examples": named}


def examples(rows: np.ndarray, ids: pa.ChunkedArray) -> dict[str, Any]:
    """How many texts there are: ``count``, and ``examples``, the ids of the first ones."""
    return {"count": len(rows), "examples": [ids[int(row)].as_py() for row in rows[:EXAMPLES]]}


class Judged(NamedTuple):
    """The queries of a split and their relevant passages, by what their texts are, letter by letter."""

    queries: np.ndarray  # (Q,) uint64, equal for equal queries; 0 for none
    query_rows: np.ndarray  # (P,) int64, the query of each relevant judgement, ascending
    documents: np.ndarray  # (P,) uint64, equal for equal passages; 0 for one without words

    @classmethod
    def from_split(cls, corpus: Corpus, split: Split) -> Judged:
        """The relevant judgements of a split."""
        query_rows, document_rows = split.relevant
        return cls(split.written, query_rows, corpus.written[document_rows])

    @property
    def pairs(self) -> np.ndarray:
        """(P,) uint64, equal for pairs of equal queries and equal passages."""
        return pair_keys(self.queries[self.query_rows], self.documents)


def pair_keys(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """(P,) uint64: a hash of each pair of hashes."""
    return (queries * np.uint64(0x9E3779B97F4A7C15)) ^ (documents + (queries >> np.uint64(32)))


def unjudged_copies(judged: Judged, sorted_corpus: np.ndarray) -> np.ndarray:
    """(P,) bool: relevant passages of which the corpus has a copy that is not judged relevant to that query.

    A search that finds the copy has found the answer, and is counted wrong. ``sorted_corpus`` (N,) uint64 are the
    hashes of all passages in ascending order.
    """
    documents = judged.documents
    copies = np.searchsorted(sorted_corpus, documents, "right") - np.searchsorted(sorted_corpus, documents, "left")
    rows = judged.query_rows.astype(np.uint64)  # not the queries' hashes: equal queries are judged separately
    _, which, relevant = np.unique(pair_keys(rows, documents), return_inverse=True, return_counts=True)
    return (copies > relevant[which]) & (documents != 0)


def leakage(train: Judged, other: Judged) -> tuple[np.ndarray, np.ndarray]:
    """(Q,) bool twice: queries of ``other`` that are training queries; those that also share a relevant passage."""
    leaked = np.isin(other.queries, train.queries) & (other.queries != 0)
    with_answer = np.zeros(len(leaked), bool)
    with_answer[other.query_rows[np.isin(other.pairs, train.pairs)]] = True
    return leaked, leaked & with_answer


def lexical_overlap(queries: Ragged, documents: Ragged, unknown_id: int) -> np.ndarray:
    """(B,) float64: the share of the different known words of query i that document i has; NaN where it has none."""
    size = 1 + max((int(t.ids.max()) for t in (queries, documents) if len(t.ids)), default=0)
    query_words, document_words = (_different_words(t, unknown_id, size) for t in (queries, documents))
    shared = np.isin(query_words, document_words, assume_unique=True)
    owner = query_words // size
    words = np.bincount(owner, minlength=len(queries))
    shared_words = np.bincount(owner, shared, minlength=len(queries))
    return np.divide(shared_words, words, out=np.full(len(words), np.nan), where=words > 0)


def _different_words(tokens: Ragged, unknown_id: int, size: int) -> np.ndarray:
    """(W,) int64, ``text * size + word`` of each different known word of each text."""
    owner = np.repeat(np.arange(len(tokens)), tokens.lengths.numpy())
    known = tokens.ids.numpy() != unknown_id
    return np.unique(owner[known] * size + tokens.ids.numpy()[known])


def word_overlap(queries: Ragged, documents: Ragged, unknown_id: int) -> dict[str, Any]:
    """Whether queries and their passages (in the order of the data) share more words than texts do by chance.

    Pairs of slipped rows or of a wrong column share no more. ``pairs`` are compared (queries without a known word are
    left out); ``shared`` is the mean `lexical_overlap`; ``nothing_shared`` the rate of pairs without a common word;
    both again ``_by_chance``, of each query with another one's passage; ``parts`` the mean share in equal consecutive
    parts: ten, or fewer, each of 50 pairs.
    """
    order = np.random.default_rng(0).permutation(len(queries))
    others = np.empty_like(order)
    others[order] = np.roll(order, 1)
    own = lexical_overlap(queries, documents, unknown_id)
    chance = lexical_overlap(queries, documents.select(others), unknown_id)
    compared = ~np.isnan(own)
    own, chance = own[compared], chance[compared]
    parts = np.array_split(own, min(max(len(own) // 50, 1), 10)) if len(own) else []
    return {
        "pairs": len(own),
        "shared": mean(own),
        "shared_by_chance": mean(chance),
        "nothing_shared": mean(own == 0),
        "nothing_shared_by_chance": mean(chance == 0),
        "parts": [mean(part) for part in parts],
    }


def mean(values: np.ndarray) -> float:
    """The mean without NaN; 0 of nothing."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else 0.0


def sample(count: int, limit: int) -> np.ndarray:
    """Rows (R,) int64, ascending: all of ``count``, or ``limit`` of them at random."""
    if count <= limit:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, limit, replace=False))
