"""Text to vectors: one tokenizer, one tower, one similarity, from a run's folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from two_tower.console import Advance, command
from two_tower.data.base import Source
from two_tower.engine.base import Engine
from two_tower.engine.local import LOCAL
from two_tower.errors import UserError
from two_tower.files import file_hash
from two_tower.loading import load_model
from two_tower.new_words import NewWords
from two_tower.run import Run
from two_tower.store import Manifest, VectorStore, in_parts
from two_tower.tokenizer.base import Texts, Tokenizer
from two_tower.vectors import Counts, Embedded, Embedding, OfPassages, PassageEncoder, Side, Towers

WORDS = "words.safetensors"  # beside the vectors of a collection with new words


class Encoder:
    """A run's model and tokenizer; ``fingerprint`` identifies the checkpoint, ``words`` are known besides its own."""

    def __init__(
        self, model: Towers, tokenizer: Tokenizer, fingerprint: str = "", words: NewWords | None = None
    ) -> None:
        self.model, self.tokenizer, self.fingerprint, self.words = model.eval(), tokenizer, fingerprint, words
        self.passages = PassageEncoder(Side(model.document_tower, model.similarity), tokenizer)

    @classmethod
    def load(cls, run: Run, words: NewWords | None = None) -> Encoder:
        """The best checkpoint of a run; a UserError if its numbers are none."""
        encoder = cls(*load_model(run, words), file_hash(run.best), words)
        if encoder.broken:
            broken = f"{encoder.broken:.1%} of the numbers of {run.best} are NaN or infinite"
            remedy = f"{command('two-tower', 'doctor', run.path)}  says why"
            raise UserError(f"{broken}, so that nothing can be found:  {remedy}")
        return encoder

    @classmethod
    def of_collection(cls, run: Run, source: Source, index: Path | None = None) -> Encoder:
        """The best checkpoint of a run, with the new words of a collection that it was not trained on.

        They are read from the folder of its ``index``, if they are there.
        """
        if run.has_learned(source.fingerprint()):
            return cls.load(run)
        words = NewWords.read(index / WORDS) if index else None
        if words is None or not words.are_of(run, source):
            encoder = cls.load(run)
            words = NewWords.find(run, encoder.model, encoder.tokenizer, source)
            if words is None:
                return encoder
        return cls.load(run, words)

    @property
    def broken(self) -> float:
        """Share of the model's numbers that are NaN or infinite."""
        numbers = [p for p in self.model.parameters() if p.is_floating_point()]
        suspects = [p for p in numbers if not torch.isfinite(p.sum())]  # of most a sum tells, many times as fast
        return sum(int((~torch.isfinite(p)).sum()) for p in suspects) / max(1, sum(p.numel() for p in numbers))

    def queries(self, texts: Texts) -> np.ndarray:
        """Vectors of queries, (B, D) float32, prepared for the similarity."""
        return self.model.encode("queries", self.tokenizer.encode_queries(texts)).cpu().numpy()

    def known(self, texts: Texts) -> np.ndarray:
        """(B,) bool: whether a query has a word of the vocabulary. Without one, its vector means nothing."""
        return self.tokenizer.known(self.tokenizer.encode_queries(texts))

    def documents(self, texts: Texts, progress: Advance | None = None) -> np.ndarray:
        """Vectors of passages (title and text, see `two_tower.data.base.full_text`), (N, D) float32."""
        return self.passages.vectors(texts, progress)

    def manifest(self, source: Source, shard_rows: int, dtype: str) -> Manifest:
        """What a store of this source's passages is made from."""
        return Manifest(**self._facts(), corpus=source.fingerprint(), shard_rows=shard_rows, dtype=dtype)

    def mismatches(self, manifest: Manifest) -> list[str]:
        """Which facts of a store's manifest are others: checkpoint, tokenizer, similarity, dim or words."""
        return [key for key, value in self._facts().items() if getattr(manifest, key) != value]

    def _facts(self) -> dict[str, Any]:
        return {
            "tokenizer": self.tokenizer.fingerprint,
            "checkpoint": self.fingerprint,
            "similarity": self.model.similarity.name,
            "dim": self.model.document_tower.dim,
            "words": "" if self.words is None else self.words.fingerprint,
        }


def embed_corpus(
    encoder: Encoder, source: Source, path: Path, shard_rows: int,
    progress: Advance | None = None, dtype: str = "float32", numbers: OfPassages | None = None, engine: Engine = LOCAL,
) -> VectorStore:  # fmt: skip
    """Encode every passage of a source into the store in a folder; finished shards of the same source are kept.

    ``numbers`` gives the vectors of passages in place of the ``encoder``, where some are known already. Up to three
    shards are in memory at a time: the next is read and the last one written while one is encoded.
    """
    store = _opened(VectorStore(path.absolute(), encoder.manifest(source, shard_rows, dtype)))
    if store.manifest.complete:
        return store
    path.mkdir(parents=True, exist_ok=True)
    _delete_temporary(path)
    if encoder.words is not None:
        encoder.words.write(path / WORDS)
    if progress:
        progress(store.rows)
    work = Embedding(store, encoder.passages, numbers or encoder.passages.numbers(dtype))
    counts = []

    def keep(done: Embedded) -> None:
        store.add(done.number, done.shard)
        counts.append(done.counts)

    engine.run(work, partial(in_parts, source.search_corpus, shard_rows, {*store.shards}), keep, progress)
    encoder.passages.counts = sum(counts, Counts())
    if not store.manifest.shards:
        raise UserError(f"The corpus of {source.name} is empty: there is nothing to embed.")
    _delete_temporary(path)
    store.finish()
    return store


def _delete_temporary(path: Path) -> None:
    """Delete what processes that were killed have left."""
    for stale in path.glob(".*.tmp"):
        stale.unlink(missing_ok=True)


def _opened(new: VectorStore) -> VectorStore:
    if not (new.path / "manifest.json").exists():
        return new
    store = VectorStore.open(new.path)
    before, now = store.manifest.source(), new.manifest.source()
    if changed := ", ".join(key for key in now if before[key] != now[key]):
        remark = f"{new.path} holds vectors made with another {changed}"
        raise UserError(f"{remark}: delete that folder or choose another output=PATH.")
    store.verify()
    return store
