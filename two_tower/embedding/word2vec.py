"""Word vectors trained on the corpus itself (Mikolov et al., 2013): words in similar contexts get similar vectors."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from two_tower.cache import entry, key_of
from two_tower.console import counter
from two_tower.data.stream.corpus import Corpus
from two_tower.embedding.base import Missing, PartialEmbedding, Pretrained, Weights
from two_tower.errors import UserError, at_least
from two_tower.ragged import Ragged
from two_tower.tokenizer.base import Tokenizer

TRAINING = 1  # raise whenever the same settings would give other vectors
PASSAGES = 4096


class Word2VecEmbedding(PartialEmbedding):
    """word2vec with negative sampling, trained by gensim on the tokens of the passages, once; kept in the cache."""

    def __init__(
        self, dim: int, missing: Missing = "random", normalize: bool = True, skip_gram: bool = True, window: int = 5,
        negative: int = 5, epochs: int = 5, seed: int = 0, workers: int = 1,
        weights: Weights = "idf", freeze: bool | int = False, pull: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__("word2vec", dim, dim, missing, normalize, weights, freeze, pull)
        numbers = {"window": window, "negative": negative, "epochs": epochs, "workers": workers}
        at_least(1, **numbers)
        self._settings = {"vector_size": dim, "sg": int(skip_gram), "seed": seed, **numbers}
        try:
            self._version = importlib.metadata.version("gensim")
        except importlib.metadata.PackageNotFoundError:
            raise UserError('embedding=word2vec needs gensim: pip install -e ".[word2vec]"') from None

    def pretrained(self, tokenizer: Tokenizer, corpus: Corpus) -> Pretrained:
        collection = corpus.source.fingerprint(), tokenizer.fingerprint
        key = key_of(TRAINING, *collection, self._version, *sorted(self._settings.items()))
        folder = entry("word2vec", key, lambda path: self._train(path, tokenizer, corpus))
        rows, trained = np.load(folder / "rows.npy"), np.load(folder / "vectors.npy")
        vectors, known = np.zeros((len(tokenizer), self.dim), np.float32), np.zeros(len(tokenizer), bool)
        vectors[rows], known[rows] = trained, True
        return Pretrained(vectors, known, len(rows), len(rows))

    def _train(self, folder: Path, tokenizer: Tokenizer, corpus: Corpus) -> None:
        from gensim.models import Word2Vec

        with counter(f"word2vec on {corpus.source.name}", "passages") as progress:
            trained = Word2Vec(_Passages(corpus.tokens, tokenizer, progress), min_count=1, **self._settings).wv
        rows = {word: row for row, word in enumerate(tokenizer.vocabulary)}
        np.save(folder / "rows.npy", np.array([rows[word] for word in trained.index_to_key], np.int64))
        np.save(folder / "vectors.npy", np.asarray(trained.vectors, np.float32))


@dataclass
class _Passages:
    """The passages as lists of known words; gensim goes through them several times."""

    tokens: Ragged
    tokenizer: Tokenizer
    progress: Callable[[int], None]

    def __iter__(self) -> Iterator[list[str]]:
        words, unknown = self.tokenizer.vocabulary, self.tokenizer.unknown_id
        for start in range(0, len(self.tokens), PASSAGES):
            block = self.tokens.slice(start, min(start + PASSAGES, len(self.tokens)))
            for text in block.to_lists():
                yield [words[i] for i in text if i != unknown]
            self.progress(len(block))
