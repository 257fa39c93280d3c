"""What can be counted of texts that belong together: judged pairs, splits of the same queries, triplets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from two_tower.data.base import TRIPLETS
from two_tower.data.stream.corpus import Corpus, Split, rows_of
from two_tower.data.stream.token_store import text_hashes
from two_tower.doctor.texts import EXAMPLES, distribution, empty_hash, examples, word_hashes
from two_tower.ragged import Ragged
from two_tower.tokenizer.base import Tokenizer

#: The most pairs whose words are compared; a share is then right to 1 % (two standard errors at most).
PAIRS = 10_000
#: Triplets that are read, the first of the file: MS MARCO has one with 398 million.
MAX_TRIPLETS = 1_000_000


class Judged(NamedTuple):
    """The queries of a split and their relevant passages, by what their texts are."""

    queries: np.ndarray  # (Q,) uint64, equal for queries that are the same
    query_rows: np.ndarray  # (P,) int64, the query of each relevant judgement, ascending
    documents: np.ndarray  # (P,) uint64, equal for passages that a model cannot tell apart

    @classmethod
    def from_split(cls, corpus: Corpus, split: Split, queries: np.ndarray) -> Judged:
        """The relevant judgements of a split whose queries have these hashes."""
        query_rows, document_rows = relevant_rows(split)
        return cls(queries, query_rows, corpus.hashes[document_rows])

    @property
    def pairs(self) -> np.ndarray:
        """(P,) uint64, equal for pairs of equal queries and equal passages."""
        return pair_keys(self.queries[self.query_rows], self.documents)


def relevant_rows(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """(P,) int64 rows of the queries, and of the passages that are relevant to them."""
    relevant = split.qrels.relevant(split.threshold) & split.qrels.present
    return split.qrels.query_rows[relevant].astype(np.int64), split.qrels.document_rows[relevant].astype(np.int64)


def pair_keys(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """(P,) uint64: a hash of each pair of hashes."""
    return (queries * np.uint64(0x9E3779B97F4A7C15)) ^ (documents + (queries >> np.uint64(32)))


def judgement_facts(split: Split) -> dict[str, Any]:
    """How many judgements and relevant passages the queries have; ``positives`` are the examples to train on."""
    per_query = np.bincount(relevant_rows(split)[0], minlength=len(split))
    return {
        "judgements": int(split.qrels.present.sum()),
        "positives": int(per_query.sum()),
        "positives_per_query": distribution(np.bincount(per_query)),
        "without_positives": examples(np.flatnonzero(per_query == 0), split.ids),
    }


def unjudged_copies(judged: Judged, sorted_corpus: np.ndarray) -> np.ndarray:
    """(P,) bool: relevant passages of which the corpus has a copy that is not judged relevant to that query.

    A search that finds the copy has found the answer, and is counted wrong. ``sorted_corpus`` (N,) uint64 are the
    hashes of all passages in ascending order.
    """
    documents = judged.documents
    copies = np.searchsorted(sorted_corpus, documents, "right") - np.searchsorted(sorted_corpus, documents, "left")
    rows = judged.query_rows.astype(np.uint64)  # not the queries' hashes: equal queries are judged separately
    _, which, relevant = np.unique(pair_keys(rows, documents), return_inverse=True, return_counts=True)
    return (copies > relevant[which]) & (documents != empty_hash())


def leakage(train: Judged, other: Judged) -> tuple[np.ndarray, np.ndarray]:
    """(Q,) bool twice: queries of ``other`` that are training queries; those that also share a relevant passage."""
    leaked = np.isin(other.queries, train.queries) & (other.queries != empty_hash())
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


def word_overlap(queries: Ragged, documents: Ragged, unknown_id: int, seed: int = 0) -> dict[str, Any]:
    """Whether queries and their passages (in the order of the data) share more words than texts do by chance.

    Rows that slipped, a header that was read as a row or a wrong column leave pairs that share no more.

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


def sample(count: int, limit: int, seed: int = 0) -> np.ndarray:
    """Rows (R,) int64, ascending: all of ``count``, or ``limit`` of them at random."""
    if count <= limit:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))


class TripletHashes(NamedTuple):
    """Hashes of T triplets, (T,) uint64 each."""

    words: np.ndarray  # of the queries' words
    queries: np.ndarray  # of the queries' tokens
    positives: np.ndarray
    negatives: np.ndarray


class _Triplets(NamedTuple):
    """Triplets of a source, as they were read."""

    total: int  # that were read
    hashes: TripletHashes  # of those without unknown ids
    relevant: np.ndarray  # (K,) uint64, `pair_keys` of the relevant pairs
    queries: Ragged  # up to PAIRS of them, and their positives
    positives: Ragged
    name: Callable[[int], Any]  # what a triplet is called


def triplet_facts(
    corpus: Corpus, train: Split | None, judged: Judged | None, tokenizer: Tokenizer, limit: int = MAX_TRIPLETS
) -> dict[str, Any] | None:
    """What is wrong with the first ``limit`` triplets of a source; ``train`` is the split to train on, if there is one.

    Returns:
        None where there are no triplets, or ids without a training split. ``kind``: ``ids`` or ``texts``;
        ``count`` that were read, and whether they are a ``sample``; ``unknown_ids``: those that name no passage
        or no query of the split, which are left out; ``overlap`` of queries and positives, see `word_overlap`; and
        with ``count`` and ``examples`` (three ids, or the number of the triplet, from 1) what `suspicious_triplets`
        finds.
    """
    texts = corpus.source.text_triplets()
    if texts is not None:
        triplets = _text_triplets(_first(texts, limit), judged, tokenizer)
    else:
        ids = corpus.source.triplets()
        if ids is None or train is None or judged is None:
            return None
        triplets = _id_triplets(_first(ids, limit), corpus, train, judged)
    facts = {
        "kind": "ids" if texts is None else "texts",
        "count": triplets.total,
        "sample": triplets.total >= limit,
        "unknown_ids": triplets.total - len(triplets.hashes.words),
        "overlap": word_overlap(triplets.queries, triplets.positives, tokenizer.unknown_id),
    }
    for kind, mask in suspicious_triplets(triplets.hashes, triplets.relevant).items():
        rows = np.flatnonzero(mask)
        facts[kind] = {"count": len(rows), "examples": [triplets.name(int(row)) for row in rows[:EXAMPLES]]}
    return facts


def _first(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch.slice(0, rows)
        rows -= len(batch)
        if rows <= 0:
            return


def _id_triplets(batches: Iterator[pa.RecordBatch], corpus: Corpus, train: Split, judged: Judged) -> _Triplets:
    table = pa.Table.from_batches(batches, TRIPLETS)
    among = (train.ids, corpus.ids, corpus.ids)
    rows = np.stack([rows_of(table[name], ids) for name, ids in zip(TRIPLETS.names, among, strict=True)])
    known = (rows >= 0).all(axis=0)
    queries, positives, negatives = rows[:, known]
    named, drawn = table.filter(pa.array(known)), sample(len(queries), PAIRS)
    words, tokens = judged.queries[queries], train.hashes[queries]
    return _Triplets(
        len(table),
        TripletHashes(words, tokens, corpus.hashes[positives], corpus.hashes[negatives]),
        judged.pairs,
        train.tokens.select(queries[drawn]),
        corpus.tokens.select(positives[drawn]),
        name=lambda row: [column[row].as_py() for column in named.columns],
    )


def _text_triplets(batches: Iterator[pa.RecordBatch], judged: Judged | None, tokenizer: Tokenizer) -> _Triplets:
    hashes_of_batches, queries_to_compare, positives_to_compare, count = [], list[Ragged](), list[Ragged](), 0
    for batch in batches:
        query, positive, negative = (pa.chunked_array([column]) for column in batch.columns)
        queries, positives = tokenizer.encode_queries(query), tokenizer.encode_documents(positive)
        negatives = tokenizer.encode_documents(negative)
        hashes = (text_hashes(tokens) for tokens in (queries, positives, negatives))
        hashes_of_batches.append((word_hashes(query, tokenizer), *hashes))
        wanted = min(max(PAIRS - count, 0), len(batch))
        queries_to_compare.append(queries.slice(0, wanted))
        positives_to_compare.append(positives.slice(0, wanted))
        count += len(batch)
    joined = TripletHashes(*(np.concatenate(columns) for columns in zip(*hashes_of_batches, strict=True)))
    relevant = [pair_keys(joined.words, joined.positives), *([] if judged is None else [judged.pairs])]
    pairs = Ragged.join(queries_to_compare), Ragged.join(positives_to_compare)
    return _Triplets(count, joined, np.concatenate(relevant), *pairs, name=lambda row: row + 1)


def suspicious_triplets(hashes: TripletHashes, relevant: np.ndarray) -> dict[str, np.ndarray]:
    """Triplets that teach something wrong, given the `pair_keys` of the relevant pairs.

    Returns:
        Masks (T,) bool, of which the first two never hold together: ``positive_is_negative``, both are equal in
        text; ``negative_is_relevant``, it is another relevant passage of the query, or equal to one;
        ``positive_not_relevant``, no judgement says that it answers the query; ``positive_is_query``, it is the
        query's own text.
    """
    same = hashes.positives == hashes.negatives
    return {
        "positive_is_negative": same,
        "negative_is_relevant": ~same & np.isin(pair_keys(hashes.words, hashes.negatives), relevant),
        "positive_not_relevant": ~np.isin(pair_keys(hashes.words, hashes.positives), relevant),
        "positive_is_query": (hashes.queries == hashes.positives) & (hashes.queries != empty_hash()),
    }
