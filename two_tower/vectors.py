"""Tokens and texts to vectors: one tower, one similarity, one tokenizer.

Nothing here trains, so that a worker who only encodes need not import what does, which takes seconds.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from two_tower.console import Advance
from two_tower.data.base import full_text
from two_tower.engine.base import Work
from two_tower.errors import UserError
from two_tower.gradient_cache import encode_in_chunks
from two_tower.ragged import Ragged
from two_tower.similarity import Similarity
from two_tower.store import Numbers, Part, Shard, VectorStore
from two_tower.threads import each
from two_tower.tokenizer.base import Texts, Tokenizer
from two_tower.tower.base import Tower

# Texts encoded together outside training: few enough for the CPU's cache, and for a progress bar that moves.
BATCH = 2048
# Texts that a thread tokenizes, then pools, at most. It should alternate rarely, since the tokenizer's table and the
# word vectors each fill its cache (60,000 texts: 340 ms with 1,024, 283 ms with 4,096, 257 ms with 8,192).
CHUNK = 8192
MIN_CHUNK = 1024  # fewer texts are not worth another thread: these take 4 ms

OfPassages: TypeAlias = Callable[[pa.Table, Advance | None], Numbers]  # the vectors of some passages


@dataclass(frozen=True)
class Side:
    """The tower of queries or of documents, and the similarity that its vectors are for."""

    tower: Tower
    similarity: Similarity
    chunk: int | None = None  # texts encoded together in training, see `encode_in_chunks`

    def vectors(self, tokens: Ragged) -> Tensor:
        """(B, D), prepared for the similarity."""
        vectors = encode_in_chunks(self.tower, tokens, self.chunk)
        shape = tuple(getattr(vectors, "shape", ()))
        if shape != (len(tokens), self.tower.dim):
            wanted = f"{len(tokens)} texts with dim={self.tower.dim} need {(len(tokens), self.tower.dim)}"
            raise UserError(f"{type(self.tower).__name__} returns vectors of the shape {shape}: {wanted}")
        return self.similarity.prepare(vectors)

    @torch.inference_mode()
    def encode(self, tokens: Ragged, progress: Advance | None = None) -> Tensor:
        """(B, D) float32 without dropout and gradients: the one encode path of validation, embedding, search.

        ``progress`` is called after each block with its number of texts.
        """
        was_training = self.tower.training
        self.tower.eval()
        try:
            blocks = []
            for start in range(0, max(1, len(tokens)), BATCH):  # at least one block, perhaps empty
                block = tokens.slice(start, min(start + BATCH, len(tokens)))
                blocks.append(self.vectors(block.to(self.device)).float())
                if progress:
                    progress(len(block))
            return blocks[0] if len(blocks) == 1 else torch.cat(blocks)
        finally:
            self.tower.train(was_training)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return _device(self.tower)


def _device(module: nn.Module) -> torch.device:
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


class Towers(nn.Module):
    """Query tower, document tower (the same object for shared towers) and the similarity of their vectors."""

    query_tower: Tower
    document_tower: Tower
    similarity: Similarity
    encode_chunk: int | None = None  # texts encoded together in training, see `encode_in_chunks`

    @property
    def shared(self) -> bool:
        """Whether both sides are one tower."""
        return self.query_tower is self.document_tower

    @property
    def device(self) -> torch.device:
        """Where they compute."""
        return _device(self)

    def queries(self, tokens: Ragged) -> Tensor:
        """Vectors of queries, prepared for the similarity, (B, D)."""
        return self._side(self.query_tower).vectors(tokens)

    def documents(self, tokens: Ragged) -> Tensor:
        """Vectors of documents, prepared for the similarity, (N, D)."""
        return self._side(self.document_tower).vectors(tokens)

    def encode(self, side: str, tokens: Ragged, progress: Advance | None = None) -> Tensor:
        """(B, D) float32 vectors of ``queries`` or ``documents`` (``side``), see `Side.encode`."""
        return self._side(self.query_tower if side == "queries" else self.document_tower).encode(tokens, progress)

    def _side(self, tower: Tower) -> Side:
        return Side(tower, self.similarity, self.encode_chunk)


class LoadedTowers(Towers):
    """Those of a finished run, to be used."""

    def __init__(self, query_tower: Tower, document_tower: Tower, similarity: Similarity) -> None:
        super().__init__()
        self.query_tower, self.document_tower, self.similarity = query_tower, document_tower, similarity


@dataclass(frozen=True)
class Counts:
    """Of passages that were encoded: how many, their tokens, and those of these outside the vocabulary."""

    passages: int = 0
    tokens: int = 0
    unknown: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.passages + other.passages, self.tokens + other.tokens, self.unknown + other.unknown)


class PassageEncoder:
    """Passages to vectors; ``counts`` are of all encoded so far."""

    def __init__(self, side: Side, tokenizer: Tokenizer) -> None:
        self.side, self.tokenizer, self.counts = side, tokenizer, Counts()

    def vectors(self, texts: Texts, progress: Advance | None = None) -> np.ndarray:
        """Vectors of passages (title and text, see `two_tower.data.base.full_text`), (N, D) float32."""
        tower = self.side.tower
        if not tower.parallel_by_text or self.side.device.type != "cpu":
            tokens = self.tokenizer.encode_documents(texts)
            self.counts += self._count(tokens)
            return self.side.encode(tokens, progress).cpu().numpy()
        column = texts if isinstance(texts, pa.Array | pa.ChunkedArray) else pa.array(texts, pa.string())
        vectors = np.empty((len(column), tower.dim), np.float32)
        # Equally many chunks for each thread, none above `CHUNK`.
        threads = torch.get_num_threads()
        rounds = max(1, math.ceil(len(column) / (threads * CHUNK)))
        size = max(MIN_CHUNK, math.ceil(len(column) / (threads * rounds)))

        def encode(start: int) -> Counts:
            tokens = self.tokenizer.encode_documents(column.slice(start, size), threads=1)
            vectors[start : start + size] = self.side.encode(tokens).numpy()
            if progress:
                progress(len(tokens))
            return self._count(tokens)

        self.counts = sum(each(encode, range(0, len(column), size)), self.counts)
        return vectors

    def numbers(self, dtype: str) -> OfPassages:
        """A function that gives passages their vectors as a store of that type keeps them."""
        return partial(self._numbers, dtype)

    def _numbers(self, dtype: str, passages: pa.Table, progress: Advance | None) -> Numbers:
        return Numbers.of(self.vectors(full_text(passages), progress), dtype)

    def _count(self, tokens: Ragged) -> Counts:
        unknown = np.count_nonzero(tokens.ids.numpy() == self.tokenizer.unknown_id)
        return Counts(len(tokens), len(tokens.ids), int(unknown))


class Embedded(NamedTuple):
    """A shard that was written."""

    number: int
    shard: Shard
    counts: Counts


class Embedding(Work[Part, Embedded]):
    """Gives passages their vectors and writes both as a shard of a store, whose manifest is left to others."""

    def __init__(self, store: VectorStore, encoder: PassageEncoder, numbers: OfPassages) -> None:
        self._store, self._encoder, self._numbers = store, encoder, numbers

    def to(self, device: str) -> None:
        self._encoder.side.tower.to(device)

    def __call__(self, item: Part, progress: Advance | None) -> Callable[[], Embedded]:
        if not self._store.path.is_dir():
            missing = f"{self._store.path} is not there on {socket.gethostname()}"
            raise UserError(f"{missing}: choose an output=PATH that all machines share.")
        numbers = self._numbers(item.passages, progress)
        counts, self._encoder.counts = self._encoder.counts, Counts()
        return lambda: Embedded(item.number, self._store.save(item.number, numbers, item.passages), counts)
