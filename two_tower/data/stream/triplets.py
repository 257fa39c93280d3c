"""Training examples: judged pairs, triplets of ids, triplets of texts. Large sets stay on disk."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from two_tower.cache import entry, key_of, notice
from two_tower.console import counter
from two_tower.data.base import Source
from two_tower.data.stream.corpus import LAYOUT, Corpus, Split, rows_of
from two_tower.data.stream.token_store import TokenWriter, read_tokens
from two_tower.errors import UserError
from two_tower.negatives.base import KnownPositives, Positives
from two_tower.ragged import Ragged
from two_tower.threads import prefetch
from two_tower.tokenizer.base import Tokenizer

log = logging.getLogger(__name__)

# Triplets whose ids are looked up together: each look-up builds a hash table of the whole corpus.
LOOKUP_ROWS = 1 << 20
# A prime. Neighbouring passages are about the same thing, so they should not come with neighbouring queries.
STRIDE = 1_000_003


@dataclass(frozen=True, eq=False)
class ExampleRows:
    """Examples as arrays, which may be memory-mapped."""

    query_rows: np.ndarray  # (E,) integers
    positive_rows: np.ndarray  # (E,) integers
    negative_rows: np.ndarray | None = None  # (E, G) integers, the negatives that the data brings
    margins: np.ndarray | None = None  # (E, G) float32, a teacher's score of each positive minus those of these

    def __len__(self) -> int:
        return len(self.query_rows)

    def take(self, positions: np.ndarray) -> ExampleRows:
        queries, positives = self.query_rows[positions], self.positive_rows[positions]
        negatives = None if self.negative_rows is None else self.negative_rows[positions].astype(np.int64)
        margins = None if self.margins is None else self.margins[positions]
        return ExampleRows(queries.astype(np.int64), positives.astype(np.int64), negatives, margins)


class Examples(Protocol):
    """Training examples by position."""

    def __len__(self) -> int: ...

    def take(self, positions: np.ndarray) -> ExampleRows:
        """The examples at (B,) positions, with int64 rows."""


@dataclass(frozen=True, eq=False)
class _Counted:
    """Examples that are computed from their positions."""

    count: int

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True, eq=False)
class ExampleSubset(_Counted):
    """``count`` of the examples, spread evenly over them."""

    examples: Examples

    def take(self, positions: np.ndarray) -> ExampleRows:
        return self.examples.take(positions * len(self.examples) // self.count)


@dataclass(frozen=True, eq=False)
class EveryPassage:
    """Passages, each with an unrelated training query, to learn from a teacher; the queries come equally often."""

    queries: np.ndarray  # rows, int64
    passages: np.ndarray  # rows, int64; one that occurs twice comes twice

    @classmethod
    def spread(cls, queries: int, passages: int, sample: int | None = None) -> EveryPassage:
        """All of so many, or a ``sample`` of the passages and at most as many queries, both spread evenly."""
        count = min(passages, sample or passages)
        return cls(*(np.arange(min(count, all_)) * all_ // max(1, min(count, all_)) for all_ in (queries, passages)))

    def with_share(self, rows: np.ndarray, share: float) -> EveryPassage:
        """The same, but passages of some ``rows`` come so often that they make up that share."""
        others = self.passages[~np.isin(self.passages, rows)]
        times = max(1, round(share / (1 - share) * len(others) / max(1, len(rows))))
        return EveryPassage(self.queries, np.concatenate([others, np.repeat(rows, times)]))

    def __len__(self) -> int:
        return len(self.passages)

    def take(self, positions: np.ndarray) -> ExampleRows:
        return ExampleRows(self.queries[positions * STRIDE % len(self.queries)], self.passages[positions])

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """The different rows of queries and of passages, ascending int64."""
        return np.unique(self.queries), np.unique(self.passages)


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Everything that batches are made of."""

    examples: Examples  # which rows belong together
    queries: Ragged  # the texts of the query rows
    documents: Ragged  # the texts of the document rows
    positives: Positives  # which documents are known to be relevant to which queries
    written: np.ndarray  # (Q,) uint64 of the queries: equal for equal texts, letter by letter; 0 without words
    judged: bool = True  # whether every example's document is relevant to its query


def _groups(hashes: np.ndarray) -> np.ndarray:
    return np.unique(hashes, return_inverse=True)[1].astype(np.int64)


def _known(corpus: Corpus, split: Split) -> KnownPositives:
    queries, documents = split.relevant
    if split.same is not None:  # what is not ranked for a query is no negative of it
        some = np.flatnonzero(split.same >= 0)
        queries, documents = np.append(queries, some), np.append(documents, split.same[some])
    return KnownPositives(queries, documents, _groups(split.hashes), _groups(corpus.hashes))


def judged_pairs(corpus: Corpus, split: Split) -> TrainingSet:
    """One example for every relevant (query, document) of a split's judgements."""
    return TrainingSet(ExampleRows(*split.relevant), split.tokens, corpus.tokens, _known(corpus, split), split.written)


def id_triplets(corpus: Corpus, split: Split) -> TrainingSet:
    """The source's own triplets of ids, as rows on disk; those with an unknown id are dropped and counted."""
    key = key_of(LAYOUT, "rows and margins", corpus.source.fingerprint(), split.name)
    folder = entry("triplets", key, lambda path: _write_triplets(path, corpus, split))
    rows = np.memmap(folder / "rows", np.int32, mode="r").reshape(-1, 3)
    scored = (folder / "margins").stat().st_size > 0
    margins = np.memmap(folder / "margins", np.float32, mode="r").reshape(-1, 1) if scored else None
    examples = ExampleRows(rows[:, 0], rows[:, 1], rows[:, 2:], margins)
    return TrainingSet(examples, split.tokens, corpus.tokens, _known(corpus, split), split.written)


def _rebatched(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    collected: list[pa.RecordBatch] = []
    for batch in batches:
        collected.append(batch)
        if sum(map(len, collected)) >= rows:
            yield pa.Table.from_batches(collected)
            collected = []
    if collected:
        yield pa.Table.from_batches(collected)


def _write_triplets(folder: Path, corpus: Corpus, split: Split) -> None:
    source, total, kept = corpus.source, 0, 0
    ids = corpus.ids.combine_chunks()
    triplets = source.triplets()
    assert triplets is not None
    with (
        (folder / "rows").open("wb") as file,
        (folder / "margins").open("wb") as scores,
        counter(f"Reading triplets of {source.name}", "triplets") as progress,
    ):
        for table in _rebatched(triplets, LOOKUP_ROWS):
            query = rows_of(table["query_id"], split.ids)
            rows = np.stack([query, rows_of(table["positive_id"], ids), rows_of(table["negative_id"], ids)], axis=1)
            whole = (rows >= 0).all(axis=1)
            rows = rows[whole]
            file.write(np.ascontiguousarray(rows, np.int32).data)
            if "margin" in table.column_names:
                scores.write(np.ascontiguousarray(table["margin"].to_numpy()[whole], np.float32).data)
            total, kept = total + table.num_rows, kept + len(rows)
            progress(table.num_rows)
    log.info("%s: parsed %d triplets.", source.name, total)
    if not kept:
        raise UserError(
            f"None of the {total} triplets of {source.name} has a query of the split {split.name} and known passages: "
            "use negatives=in_batch, random, bm25, ann or mixed."
        )
    if kept < total:
        notice(
            f"{source.name}: {total - kept} of {total} triplets are left out: their query is not of the split "
            f"{split.name}, or a passage is unknown."
        )


class _TextExamples(_Counted):
    """Triplet t is query t, document 2 t and document 2 t + 1."""

    def take(self, positions: np.ndarray) -> ExampleRows:
        return ExampleRows(positions, 2 * positions, (2 * positions + 1)[:, None])


class _TextPositives(Positives):
    """What triplets of texts say: within a batch, a query's positives are those of all equal queries.

    They are known by hashes, (T,) uint64 of the queries and (2 T,) of the documents.
    """

    def __init__(self, queries: np.ndarray, texts: np.ndarray) -> None:
        self._queries, self._texts = queries, texts

    @property
    def documents(self) -> int:
        return len(self._texts)

    def contains(self, query_rows: np.ndarray, document_rows: np.ndarray) -> np.ndarray:
        return self._texts[document_rows] == self._texts[2 * query_rows]

    def mark(self, query_rows: np.ndarray, document_rows: np.ndarray) -> np.ndarray:
        # Row b: query b and its positive; rows B and following: the documents.
        rows = np.arange(len(query_rows))
        texts = self._texts[np.concatenate([2 * query_rows, document_rows])]
        known = KnownPositives(rows, rows, _groups(self._queries[query_rows]), _groups(texts))
        return known.mark(rows, len(rows) + np.arange(len(document_rows)))


def text_triplets(source: Source, tokenizer: Tokenizer) -> TrainingSet:
    """The source's triplets of texts, tokenized once into a store on disk."""
    key = key_of(LAYOUT, source.fingerprint(), tokenizer.fingerprint)
    folder = entry("text-triplets", key, lambda path: _write_text_triplets(path, source, tokenizer))
    queries, documents = read_tokens(folder, "queries"), read_tokens(folder, "documents")
    examples, positives = _TextExamples(len(queries.tokens)), _TextPositives(queries.hashes, documents.hashes)
    return TrainingSet(examples, queries.tokens, documents.tokens, positives, queries.texts)


def _write_text_triplets(folder: Path, source: Source, tokenizer: Tokenizer) -> None:
    triplets = source.text_triplets()
    assert triplets is not None
    with (
        TokenWriter(folder, "queries") as queries,
        TokenWriter(folder, "documents") as documents,
        counter(f"Tokenising triplets of {source.name}", "triplets") as progress,
    ):
        for batch in prefetch(triplets):
            queries.append(tokenizer.encode_queries(batch.column("query")), batch.column("query"))
            both = Ragged.join([tokenizer.encode_documents(batch.column(name)) for name in ("positive", "negative")])
            # Keep the two passages of a triplet together, so that a batch reads one place of the disk.
            documents.append(both.select(np.arange(2 * len(batch)).reshape(2, -1).T.ravel()))
            progress(len(batch))
    log.info("%s: parsed and tokenised %d triplets.", source.name, queries.texts)
