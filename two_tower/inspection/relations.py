"""What can be said of texts that belong together: judged pairs, given triplets, splits of the same queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from two_tower.data.stream.corpus import Corpus, Split
from two_tower.inspection.texts import distribution, empty_hash, named
from two_tower.ragged import Ragged

__all__ = [
    "PAIRS",
    "Judged",
    "judgement_facts",
    "leakage",
    "lexical_overlap",
    "pair_keys",
    "sample",
    "suspicious_triplets",
    "unjudged_copies",
    "word_overlap",
]

#: Most pairs whose words are compared; a share is then right to 1 % (two standard errors at most).
PAIRS = 10_000


@dataclass(frozen=True, eq=False)
class Judged:
    """The queries of a split and their relevant passages, by what their texts are.

    Attributes:
        queries: (Q,) uint64, equal for queries of the same words; see `word_hashes`.
        query_rows: (P,) int64, the query of each relevant judgement, ascending.
        documents: (P,) uint64, equal for passages that a model cannot tell apart.
    """

    queries: np.ndarray
    query_rows: np.ndarray
    documents: np.ndarray

    @classmethod
    def of(cls, corpus: Corpus, split: Split, queries: np.ndarray) -> Judged:
        """The relevant judgements of a split whose queries have these hashes."""
        relevant = split.qrels.relevant() & split.qrels.present
        return cls(queries, split.qrels.query_rows[relevant], corpus.hashes[split.qrels.document_rows[relevant]])

    @property
    def pairs(self) -> np.ndarray:
        """(P,) uint64, equal for pairs of equal queries and equal passages."""
        return pair_keys(self.queries[self.query_rows], self.documents)


def pair_keys(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """(P,) uint64: a hash of each pair of hashes."""
    return (queries * np.uint64(0x9E3779B97F4A7C15)) ^ (documents + (queries >> np.uint64(32)))


def judgement_facts(split: Split) -> dict[str, Any]:
    """How many judgements and relevant passages the queries have.

    Returns:
        ``judgements``, ``positives`` (those that are relevant: the examples to train on), ``positives_per_query``
        (see `distribution`), ``without_positives``: ``count`` and ``examples``.
    """
    relevant = split.qrels.relevant() & split.qrels.present
    per_query = np.bincount(split.qrels.query_rows[relevant], minlength=len(split))
    without = np.flatnonzero(per_query == 0)
    return {
        "judgements": int(split.qrels.present.sum()),
        "positives": int(relevant.sum()),
        "positives_per_query": distribution(np.bincount(per_query)),
        "without_positives": named(without, split.ids),
    }


def unjudged_copies(judged: Judged, sorted_corpus: np.ndarray) -> np.ndarray:
    """(P,) bool: relevant passages of which the corpus has a copy that is not judged relevant to that query.

    A search that finds the copy has found the answer, and is counted wrong.

    Args:
        judged: the judgements of a split.
        sorted_corpus: (N,) uint64, the hashes of all passages in ascending order.
    """
    documents = judged.documents
    copies = np.searchsorted(sorted_corpus, documents, "right") - np.searchsorted(sorted_corpus, documents, "left")
    rows = judged.query_rows.astype(np.uint64)  # not the queries' hashes: equal ones are judged apart
    _, which, relevant = np.unique(pair_keys(rows, documents), return_inverse=True, return_counts=True)
    return (copies > relevant[which]) & (documents != empty_hash())


def leakage(train: Judged, other: Judged) -> tuple[np.ndarray, np.ndarray]:
    """Queries of a split to judge by that a model was trained on.

    Returns:
        (Q,) bool: queries of ``other`` whose words are those of a training query; (Q,) bool: those among them
        that share a relevant passage with it.
    """
    leaked = np.isin(other.queries, train.queries) & (other.queries != empty_hash())
    with_answer = np.zeros(len(leaked), bool)
    with_answer[other.query_rows[np.isin(other.pairs, train.pairs)]] = True
    return leaked, leaked & with_answer


def suspicious_triplets(
    queries: np.ndarray, positives: np.ndarray, negatives: np.ndarray, known: np.ndarray
) -> dict[str, np.ndarray]:
    """Triplets that teach something wrong.

    Args:
        queries: (T,) uint64, hashes of the queries.
        positives: (T,) uint64, hashes of the positives.
        negatives: (T,) uint64, hashes of the negatives.
        known: (K,) uint64, `pair_keys` of the relevant pairs.

    Returns:
        Masks (T,) bool, of which the first two never hold together: ``positive_is_negative``, both are equal in
        text; ``negative_is_relevant``, it is another relevant passage of the query, or equal to one;
        ``positive_not_relevant``, no judgement says that it answers the query.
    """
    same = positives == negatives
    return {
        "positive_is_negative": same,
        "negative_is_relevant": ~same & np.isin(pair_keys(queries, negatives), known),
        "positive_not_relevant": ~np.isin(pair_keys(queries, positives), known),
    }


def lexical_overlap(queries: Ragged, documents: Ragged, unknown_id: int) -> np.ndarray:
    """How much of each query its passage repeats.

    Args:
        queries: B texts.
        documents: B texts.
        unknown_id: id of the words that are not in the vocabulary, which are no known words.

    Returns:
        (B,) float64: the share of the different known words of query ``i`` that document ``i`` has; NaN where the
        query has none.
    """
    size = 1 + max((int(t.ids.max()) for t in (queries, documents) if len(t.ids)), default=0)
    asked, answered = _words(queries, unknown_id, size), _words(documents, unknown_id, size)
    shared = np.isin(asked, answered, assume_unique=True)
    owner = asked // size
    words = np.bincount(owner, minlength=len(queries))
    found = np.bincount(owner, shared, minlength=len(queries))
    return np.divide(found, words, out=np.full(len(words), np.nan), where=words > 0)


def _words(tokens: Ragged, unknown_id: int, size: int) -> np.ndarray:
    """(W,) int64, ``text * size + word`` of each different known word of each text."""
    owner = np.repeat(np.arange(len(tokens)), tokens.lengths.numpy())
    known = tokens.ids.numpy() != unknown_id
    return np.unique(owner[known] * size + tokens.ids.numpy()[known])


def word_overlap(queries: Ragged, documents: Ragged, unknown_id: int, seed: int = 0) -> dict[str, Any]:
    """Whether pairs have more words in common than texts that do not belong together.

    Rows that slipped, a header that was read as a row or a wrong column leave pairs that share no more than
    chance has it.

    Args:
        queries: B texts.
        documents: B texts, the passage of each query, in the order of the data.
        unknown_id: id of the words that are not in the vocabulary.
        seed: of the random pairs.

    Returns:
        ``pairs`` compared (queries without a known word are left out); ``shared``, the mean share of a query's
        different words that its passage has; ``nothing_shared``, the rate of pairs without a common word; both
        again ``_by_chance``, of each query with another one's passage; ``parts``, the mean share in equal
        consecutive parts of the pairs: ten, or fewer, so that each has 50.
    """
    order = np.random.default_rng(seed).permutation(len(queries))
    others = np.empty_like(order)
    others[order] = np.roll(order, 1)
    own = lexical_overlap(queries, documents, unknown_id)
    chance = lexical_overlap(queries, documents.select(others), unknown_id)
    compared = ~np.isnan(own)
    own, chance = own[compared], chance[compared]
    parts = np.array_split(own, min(max(len(own) // 50, 1), 10)) if len(own) else []
    return {
        "pairs": len(own),
        "shared": _mean(own),
        "shared_by_chance": _mean(chance),
        "nothing_shared": _mean(own == 0),
        "nothing_shared_by_chance": _mean(chance == 0),
        "parts": [_mean(part) for part in parts],
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0


def sample(count: int, most: int, seed: int = 0) -> np.ndarray:
    """Rows (R,) int64, ascending: all of ``count``, or ``most`` of them at random."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))
