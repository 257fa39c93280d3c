"""Text to vectors: one tokenizer, one tower, one similarity, from a run's folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import torch

from two_tower.assemble import load_model
from two_tower.console import Advance, command
from two_tower.data.base import Source, full_text
from two_tower.data.stream.token_store import prefetch
from two_tower.errors import UserError
from two_tower.files import file_hash
from two_tower.model import TwoTower
from two_tower.new_words import NewWords
from two_tower.ragged import Ragged
from two_tower.run import Run
from two_tower.store import Manifest, Numbers, VectorStore
from two_tower.threads import each
from two_tower.tokenizer.base import Texts, Tokenizer

# Texts that a thread tokenizes, then pools, at most. It should alternate rarely, since the tokenizer's table and the
# word vectors each fill its cache (60,000 texts: 340 ms with 1,024, 283 ms with 4,096, 257 ms with 8,192).
CHUNK = 8192
WORDS = "words.safetensors"  # beside the vectors of a collection with new words
MIN_CHUNK = 1024  # fewer texts are not worth another thread: these take 4 ms

OfPassages: TypeAlias = Callable[[pa.Table, Advance | None], Numbers]  # the vectors of some passages


class Encoder:
    """A run's model and tokenizer; ``fingerprint`` identifies the checkpoint, ``words`` are known besides its own."""

    def __init__(
        self, model: TwoTower, tokenizer: Tokenizer, fingerprint: str = "", words: NewWords | None = None
    ) -> None:
        self.model, self.tokenizer, self.fingerprint, self.words = model.eval(), tokenizer, fingerprint, words
        self.tokens = self.unknown = 0  # of all passages encoded so far: tokens, and those outside the vocabulary
        self._counting = Lock()

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
        return sum(int((~torch.isfinite(p)).sum()) for p in numbers) / max(1, sum(p.numel() for p in numbers))

    def queries(self, texts: Texts) -> np.ndarray:
        """Vectors of queries, (B, D) float32, prepared for the similarity."""
        return self.model.encode("queries", self.tokenizer.encode_queries(texts)).cpu().numpy()

    def known(self, texts: Texts) -> np.ndarray:
        """(B,) bool: whether a query has a word of the vocabulary. Without one, its vector means nothing."""
        return self.tokenizer.known(self.tokenizer.encode_queries(texts))

    def documents(self, texts: Texts, progress: Advance | None = None) -> np.ndarray:
        """Vectors of passages (title and text, see `two_tower.data.base.full_text`), (N, D) float32."""
        tower = self.model.document_tower
        if not tower.parallel_by_text or self.model.device.type != "cpu":
            tokens = self.tokenizer.encode_documents(texts)
            self._count(tokens)
            return self.model.encode("documents", tokens, progress).cpu().numpy()
        column = texts if isinstance(texts, pa.Array | pa.ChunkedArray) else pa.array(texts, pa.string())
        vectors = np.empty((len(column), tower.dim), np.float32)
        # Equally many chunks for each thread, none above `CHUNK`.
        threads = torch.get_num_threads()
        rounds = max(1, math.ceil(len(column) / (threads * CHUNK)))
        size = max(MIN_CHUNK, math.ceil(len(column) / (threads * rounds)))

        def encode(start: int) -> None:
            tokens = self.tokenizer.encode_documents(column.slice(start, size), threads=1)
            self._count(tokens)
            vectors[start : start + size] = self.model.encode("documents", tokens).numpy()
            if progress:
                progress(len(tokens))

        each(encode, range(0, len(column), size))
        return vectors

    def numbers(self, dtype: str) -> OfPassages:
        """A function that gives passages their vectors as a store of that type keeps them."""
        return lambda passages, progress: Numbers.of(self.documents(full_text(passages), progress), dtype)

    def _count(self, tokens: Ragged) -> None:
        unknown = int(np.count_nonzero(tokens.ids.numpy() == self.tokenizer.unknown_id))
        with self._counting:
            self.tokens, self.unknown = self.tokens + len(tokens.ids), self.unknown + unknown

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
    encoder: Encoder, source: Source, path: Path,
    shard_rows: int, progress: Advance | None = None, dtype: str = "float32", numbers: OfPassages | None = None,
) -> VectorStore:  # fmt: skip
    """Encode every passage of a source into the store in a folder; finished shards of the same source are kept.

    ``numbers`` gives the vectors of passages in place of the ``encoder``, where some are known already. Up to three
    shards are in memory at a time: the next is read and the last one written while one is encoded.
    """
    store = _opened(VectorStore(path, encoder.manifest(source, shard_rows, dtype)))
    if store.manifest.complete:
        return store
    path.mkdir(parents=True, exist_ok=True)
    for stale in path.glob(".*.tmp"):  # of a process that was killed
        stale.unlink(missing_ok=True)
    if encoder.words is not None:
        encoder.words.write(path / WORDS)
    _write_shards(store, numbers or encoder.numbers(dtype), source, progress)
    if not store.manifest.shards:
        raise UserError(f"The corpus of {source.name} is empty: there is nothing to embed.")
    store.finish()
    return store


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


def _write_shards(store: VectorStore, encode: OfPassages, source: Source, progress: Advance | None) -> None:
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: None)
        for number, passages in enumerate(prefetch(_shards(source, store.manifest.shard_rows))):
            if store.has(number):
                if progress:
                    progress(passages.num_rows)
                continue
            numbers = encode(passages, progress)
            writing.result()
            writing = pool.submit(store.write, number, numbers, passages)
        writing.result()


def _shards(source: Source, shard_rows: int) -> Iterator[pa.Table]:
    waiting, missing = list[pa.RecordBatch](), shard_rows
    for batch in source.search_corpus():
        while len(batch) >= missing:
            yield _table([*waiting, batch.slice(0, missing)])
            batch, waiting, missing = batch.slice(missing), [], shard_rows
        if len(batch):
            waiting.append(batch)
            missing -= len(batch)
    if waiting:
        yield _table(waiting)


def _table(batches: Sequence[pa.RecordBatch]) -> pa.Table:
    """Batches of passages as a table, of which some may have `FIELDS` and others not."""
    return pa.concat_tables([pa.Table.from_batches([batch]) for batch in batches], promote_options="default")
