"""The index of a collection that has changed: only what is new is encoded, and the folder changes all at once."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from two_tower.console import Advance
from two_tower.data.base import full_text
from two_tower.data.reading.unique import hash_rows
from two_tower.data.stream.corpus import rows_of
from two_tower.encode import WORDS, Encoder
from two_tower.errors import UserError
from two_tower.files import exchange
from two_tower.new_words import NewWords
from two_tower.run import Run
from two_tower.store import Manifest, Numbers, VectorStore, split_rows
from two_tower.tower.base import WordTable, word_tables

# What may differ between the states of a collection; the tokenizer by its words only.
_OF_COLLECTION = ("corpus", "shard_rows", "words", "tokenizer")


@dataclass(frozen=True)
class Changes:
    """Passages since an earlier state of a collection, by their ids and texts."""

    kept: int
    added: int
    changed: int
    deleted: int

    def __str__(self) -> str:
        return f"{self.kept:,} kept, {self.added:,} added, {self.changed:,} changed, {self.deleted:,} deleted"


class Earlier:
    """The vectors of an earlier state of a collection, which the texts of its passages find again.

    What `numbers` gives is bit for bit what the encoder makes of the passages (`two_tower.tower._products` says for
    which towers). Different texts share a hash of 64 bits in one of 500,000 collections of 8.8 million.
    """

    def __init__(self, store: VectorStore, before: Encoder, now: Encoder) -> None:
        self.store = store
        self._encoders = now, before
        self._hashes = _hashes(store)
        self._order = np.argsort(self._hashes, kind="stable")
        # Words that the other encoder reads in another way or not at all.
        self._others = _differing(now, before), _differing(before, now)

    @classmethod
    def find(cls, path: Path, run: Run, encoder: Encoder, now: Manifest) -> Earlier | None:
        """What the folder ``path`` holds, if that is of the same run and of another state of the collection."""
        if not (path / "manifest.json").exists():
            return None
        store = VectorStore.open(path)
        before, wanted = store.manifest.source(), now.source()
        if before == wanted or any(before[key] != wanted[key] for key in before.keys() - {*_OF_COLLECTION}):
            return None
        own = encoder if before["words"] == wanted["words"] else Encoder.load(run, NewWords.read(path / WORDS))
        if own.mismatches(store.manifest) or not store.manifest.shards:
            return None
        store.verify()
        return cls(store, own, encoder)

    def numbers(self, passages: pa.Table, progress: Advance | None = None) -> Numbers:
        """The vectors of some passages as they are stored.

        Only those are encoded whose text is new, or one of whose words has another vector now.
        """
        texts = full_text(passages)
        hashes = hash_rows(texts)
        places = np.minimum(np.searchsorted(self._hashes, hashes, sorter=self._order), len(self._order) - 1)
        rows = self._order[places]
        there = self._hashes[rows] == hashes
        there[there] = ~self._is_read_otherwise(texts.filter(pa.array(there)))
        if progress:
            progress(int(there.sum()))
        vectors = self._encoders[0].documents(texts.filter(pa.array(~there)), progress)
        parts = self._taken(rows[there]), Numbers.of(vectors, self.store.manifest.dtype)
        return Numbers.concatenate(parts).take(np.argsort(np.argsort(~there, kind="stable")))

    def changes(self, now: VectorStore) -> Changes:
        """What has changed up to a complete store of the collection."""
        rows = rows_of(now.ids(), self.store.ids())
        there = rows >= 0
        kept = int((self._hashes[rows[there]] == _hashes(now)[there]).sum())
        changed = int(there.sum()) - kept
        return Changes(kept, int((~there).sum()), changed, self.store.rows - kept - changed)

    def _is_read_otherwise(self, texts: pa.ChunkedArray) -> np.ndarray:
        """(n,) bool: the texts with a word that has another vector or weight now, or has or had none."""
        found = np.zeros(len(texts), bool)
        for encoder, others in zip(self._encoders, self._others, strict=True):
            if others.any():
                tokens = encoder.tokenizer.encode_documents(texts)
                before = np.concatenate([[0], np.cumsum(others[tokens.ids.numpy()])])[tokens.offsets.numpy()]
                found |= np.diff(before) > 0
        return found

    def _taken(self, rows: np.ndarray) -> Numbers:
        ascending, places = np.unique(rows, return_inverse=True)
        pieces = split_rows(self.store.numbers(), ascending)
        return Numbers.concatenate([numbers.take(own) for numbers, own in pieces]).take(places)


def _hashes(store: VectorStore) -> np.ndarray:
    """(N,) uint64, of the passages' texts."""
    return np.concatenate([hash_rows(full_text(table)) for table in store.texts()])


def _differing(encoder: Encoder, other: Encoder) -> np.ndarray:
    """(V,) bool: the words that another encoder of the same run has not, or with another vector or weight."""
    words, known = encoder.tokenizer.vocabulary, {word: row for row, word in enumerate(other.tokenizer.vocabulary)}
    if encoder is other:
        return np.zeros(len(words), bool)
    rows = np.array([known.get(word, -1) for word in words])
    differing = rows < 0
    for own, its in zip(_tables(encoder), _tables(other), strict=True):
        for values, others in ((own.vectors, its.vectors), (own.log_weights[:, None], its.log_weights[:, None])):
            differing |= (values.numpy() != others.numpy()[rows]).any(axis=1)
    return differing


def _tables(encoder: Encoder) -> list[WordTable]:
    return [*word_tables(encoder.model.document_tower).values()]


def beside(path: Path, now: Manifest) -> Path:
    """Where the next state of the index in ``path`` is written until it is whole; that of others there is deleted."""
    folder = path.with_name(f".{path.name}.next")
    try:
        same = VectorStore.open(folder).manifest.source() == now.source()
    except UserError:
        same = False
    if not same:
        shutil.rmtree(folder, ignore_errors=True)
    return folder


def put_in_place(folder: Path, path: Path) -> None:
    """Let ``folder`` take the place of ``path``, at once, and delete what was there."""
    exchange(folder, path)
    shutil.rmtree(folder)
