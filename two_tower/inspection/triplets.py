"""Given triplets: those that a source brings, as ids or as texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from two_tower.data.base import TRIPLETS
from two_tower.data.stream.corpus import Corpus, Split, rows_of
from two_tower.data.stream.token_store import text_hashes
from two_tower.inspection.relations import PAIRS, Judged, pair_keys, sample, suspicious_triplets, word_overlap
from two_tower.inspection.texts import EXAMPLES, empty_hash, word_hashes
from two_tower.ragged import Ragged
from two_tower.tokenizer.base import Tokenizer

__all__ = ["MOST_TRIPLETS", "triplet_facts"]

#: Triplets that are read, the first of the file: MS MARCO has one with 398 million.
MOST_TRIPLETS = 1_000_000


def triplet_facts(
    corpus: Corpus, train: Split | None, judged: Judged | None, tokenizer: Tokenizer, most: int = MOST_TRIPLETS
) -> dict[str, Any] | None:
    """What is wrong with the triplets of a source.

    Args:
        corpus: the passages.
        train: the split to train on, or None where there is none.
        judged: its judgements.
        tokenizer: the vocabulary.
        most: read so many, the first ones.

    Returns:
        None where there are no triplets, or ids without a training split. ``kind``: ``ids`` or ``texts``;
        ``count`` that were read, and whether they are a ``sample``; ``unknown_ids``: those that name no passage
        or no query of the split, which are left out; ``overlap`` of queries and positives, see `word_overlap`; and
        with ``count`` and ``examples`` (three ids, or the number of the triplet, from 1) what `suspicious_triplets`
        gives and ``positive_is_query``: the positive is the query's own text.
    """
    source = corpus.source
    texts = source.text_triplets()
    if texts is not None:
        return _of_texts(_first(texts, most), judged, tokenizer, most)
    triplets = source.triplets()
    if triplets is None or train is None or judged is None:
        return None
    return _of_ids(_first(triplets, most), corpus, train, judged, tokenizer, most)


def _first(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch.slice(0, rows)
        rows -= len(batch)
        if rows <= 0:
            return


def _of_ids(
    batches: Iterator[pa.RecordBatch], corpus: Corpus, train: Split, judged: Judged, tokenizer: Tokenizer, most: int
) -> dict[str, Any]:
    table = pa.Table.from_batches(batches, TRIPLETS)
    among = (train.ids, corpus.ids, corpus.ids)
    rows = np.stack([rows_of(table[name], ids) for name, ids in zip(TRIPLETS.names, among, strict=True)])
    known = (rows >= 0).all(axis=0)
    queries, positives, negatives = rows[:, known]
    kept, drawn = table.filter(pa.array(known)), sample(len(queries), PAIRS)
    hashes = _Hashes(judged.queries[queries], train.hashes[queries], corpus.hashes[positives], corpus.hashes[negatives])

    def name(row: int) -> list[str]:
        return [column[row].as_py() for column in kept.columns]

    return {
        "kind": "ids",
        "count": len(table),
        "sample": len(table) >= most,
        "unknown_ids": len(table) - len(kept),
        "overlap": word_overlap(
            train.tokens.select(queries[drawn]), corpus.tokens.select(positives[drawn]), tokenizer.unknown_id
        ),
        **_suspicious(hashes, judged.pairs, name),
    }


def _of_texts(
    batches: Iterator[pa.RecordBatch], judged: Judged | None, tokenizer: Tokenizer, most: int
) -> dict[str, Any]:
    count, read, asked, answered = 0, [], list[Ragged](), list[Ragged]()
    for batch in batches:
        query, positive, negative = (pa.chunked_array([column]) for column in batch.columns)
        queries, positives = tokenizer.encode_queries(query), tokenizer.encode_documents(positive)
        negatives = tokenizer.encode_documents(negative)
        hashes = (text_hashes(tokens) for tokens in (queries, positives, negatives))
        read.append((word_hashes(query, tokenizer), *hashes))
        wanted = min(max(PAIRS - count, 0), len(batch))
        asked.append(queries.slice(0, wanted))
        answered.append(positives.slice(0, wanted))
        count += len(batch)
    found = _Hashes(*(np.concatenate(parts) for parts in zip(*read, strict=True)))
    known = pair_keys(found.words, found.positives)
    return {
        "kind": "texts",
        "count": count,
        "sample": count >= most,
        "unknown_ids": 0,
        "overlap": word_overlap(Ragged.join(asked), Ragged.join(answered), tokenizer.unknown_id),
        **_suspicious(found, known if judged is None else np.concatenate([known, judged.pairs]), lambda row: row + 1),
    }


class _Hashes(NamedTuple):
    """Hashes of T triplets, (T,) uint64 each: the queries' words and tokens, positives, negatives."""

    words: np.ndarray
    queries: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray


def _suspicious(hashes: _Hashes, known: np.ndarray, name: Callable[[int], Any]) -> dict[str, Any]:
    masks = suspicious_triplets(hashes.words, hashes.positives, hashes.negatives, known)
    masks["positive_is_query"] = (hashes.queries == hashes.positives) & (hashes.queries != empty_hash())
    return {
        kind: {"count": int(mask.sum()), "examples": [name(int(row)) for row in np.flatnonzero(mask)[:EXAMPLES]]}
        for kind, mask in masks.items()
    }
