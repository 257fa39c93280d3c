"""Pseudo-queries: pieces of passages that stand for questions which these answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from two_tower.cache import entry, key_of
from two_tower.data.stream.corpus import LAYOUT, Corpus, Split
from two_tower.data.stream.token_store import TokenWriter, read_tokens
from two_tower.data.stream.triplets import Pairs, TrainingSet
from two_tower.negatives.base import KnownPositives
from two_tower.progress import counter
from two_tower.ragged import Ragged
from two_tower.tokenizer.base import Tokenizer

__all__ = ["KINDS", "PseudoQueries", "pieces"]

KINDS = ("sentence", "title", "cloze")
# Words of a sentence that may stand for a question; of a span for the inverse cloze task.
SENTENCE, SPAN = (4, 30), (3, 10)
_ENDS = re.compile(r"(?<=[.!?])\s+")
_SCHEMA = pa.schema([("text", pa.string()), ("row", pa.int64())])


def pieces(title: str, text: str, count: int, kinds: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Up to ``count`` different pieces of a passage, of the kinds in turn.

    Args:
        title: of the passage; may be empty.
        text: of the passage.
        count: how many; fewer where the passage has no more.
        kinds: ``title``; ``sentence`` of 4 to 30 words, but not the whole text; ``cloze``, 3 to 10 words from
            anywhere (the inverse cloze task, Lee et al. 2019, arXiv:1906.00300, which would also take them out of
            the passage).
        rng: draws sentences and spans.
    """
    sentences = [s for s in _ENDS.split(text) if SENTENCE[0] <= len(s.split()) <= SENTENCE[1] and s != text]
    waiting = {"sentence": [sentences[i] for i in rng.permutation(len(sentences))], "title": [title] if title else []}
    words, found = text.split(), list[str]()
    for turn in range(count):
        kind = kinds[turn % len(kinds)]
        if kind != "cloze":
            found += waiting[kind][:1]
            del waiting[kind][:1]
        elif len(words) > SPAN[0]:
            length = int(rng.integers(SPAN[0], min(SPAN[1] + 1, len(words))))
            start = int(rng.integers(len(words) - length + 1))
            found.append(" ".join(words[start : start + length]))
    return list(dict.fromkeys(found))


@dataclass(frozen=True, eq=False)
class PseudoQueries:
    """Pieces of the passages of a corpus.

    Attributes:
        texts: (P,) the pieces.
        rows: (P,) int64, the passage of each.
        tokens: P texts.
        hashes: (P,) uint64, equal for texts of equal tokens.
    """

    texts: pa.ChunkedArray
    rows: np.ndarray
    tokens: Ragged
    hashes: np.ndarray

    @classmethod
    def load(cls, corpus: Corpus, tokenizer: Tokenizer, count: int, kinds: Sequence[str], split: str) -> PseudoQueries:
        """Those of a corpus, from the cache or made now; the same in every run.

        A piece that equals a query of another split than the training queries' is left out.

        Args:
            corpus: the passages.
            tokenizer: the run's.
            count: how many of each passage, at most.
            kinds: see `pieces`.
            split: of the training queries.
        """
        key = key_of(LAYOUT, corpus.source.fingerprint(), tokenizer.fingerprint, count, *kinds, split)
        folder = entry("pseudo", key, lambda path: _write(path, corpus, tokenizer, count, kinds, split))
        table = pa.ipc.open_file(pa.memory_map(str(folder / "texts.arrow"))).read_all()
        tokens, hashes = read_tokens(folder, "queries")
        return cls(table["text"], table["row"].to_numpy(), tokens, hashes)

    def added_to(self, data: TrainingSet, split: Split, corpus_hashes: np.ndarray) -> TrainingSet:
        """A training set with these as further queries, each with its own passage as positive.

        Their rows follow those of the split's queries.

        Args:
            data: the examples of the split, pairs of rows.
            split: the training queries.
            corpus_hashes: (N,) of the passages.
        """
        queries, positives, negatives = data.examples.take(np.arange(len(data.examples)))
        if negatives is not None:
            raise ValueError("pseudo-queries have no given negatives")
        rows = np.concatenate([queries, len(split) + np.arange(len(self.rows))])
        documents = np.concatenate([positives, self.rows])
        groups = np.unique(np.concatenate([split.hashes, self.hashes]), return_inverse=True)[1].astype(np.int64)
        same = np.unique(corpus_hashes, return_inverse=True)[1].astype(np.int64)
        return replace(
            data,
            examples=Pairs(rows, documents),
            queries=Ragged.join([split.tokens, self.tokens]),
            positives=KnownPositives(rows, documents, groups, same),
        )


def _write(folder: Path, corpus: Corpus, tokenizer: Tokenizer, count: int, kinds: Sequence[str], split: str) -> None:
    source, held_out = corpus.source, set[str]()
    for other in source.splits():
        if other != split:
            held_out |= {" ".join(tokenizer.words(text)) for text in source.queries(other)["text"].to_pylist()}
    with (
        counter(f"Pieces of {source.name}", "passages", len(corpus)) as progress,
        pa.ipc.new_file(folder / "texts.arrow", _SCHEMA) as file,
        TokenWriter(folder, "queries") as tokens,
    ):
        start = 0
        for batch in source.corpus():
            chosen = list(_chosen(batch, start, count, kinds, tokenizer, held_out))
            texts = pa.array([text for text, _ in chosen], pa.string())
            tokens.append(tokenizer.encode_queries(texts))
            file.write_batch(pa.record_batch([texts, pa.array([row for _, row in chosen], pa.int64())], schema=_SCHEMA))
            progress(len(batch))
            start += len(batch)


def _chosen(
    batch: pa.RecordBatch, start: int, count: int, kinds: Sequence[str], tokenizer: Tokenizer, held_out: set[str]
) -> Iterator[tuple[str, int]]:
    """The pieces of a batch of passages, each with the row of its passage."""
    columns = (batch.column(name).to_pylist() for name in ("title", "text"))
    for row, (title, text) in enumerate(zip(*columns, strict=True), start):
        for piece in pieces(title, text, count, kinds, np.random.default_rng((count, row))):
            if " ".join(tokenizer.words(piece)) not in held_out:
                yield piece, row
