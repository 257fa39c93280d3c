"""Word vectors trained on the corpus itself (Mikolov et al., 2013): words of like company get like vectors."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from two_tower.cache import entry, key_of
from two_tower.data.stream.corpus import Corpus
from two_tower.embedding._partial import Known, PartialEmbedding
from two_tower.errors import UserError
from two_tower.progress import counter
from two_tower.ragged import Ragged
from two_tower.tokenizer.base import Tokenizer

__all__ = ["Word2VecEmbedding"]

# Raise whenever the same settings would give other vectors.
TRAINING = 1
_PASSAGES = 4096


class Word2VecEmbedding(PartialEmbedding):
    """word2vec with negative sampling, trained by gensim on the passages as tokens, once; kept in the cache.

    Args:
        dim: dimensions of a word vector.
        missing: what words start as that are in no passage: ``random``, ``mean`` or ``zero``.
        normalise: centre the vectors and scale them to length 1.
        skip_gram: predict the neighbours from a word (better for rare words), not a word from its neighbours.
        window: how many words to each side count as neighbours.
        negative: random words that each pair is compared with.
        epochs: passes over the corpus.
        seed: of the start and the sampling.
        workers: threads; with more than one the vectors differ a little from training to training.
        weights: initial token weights, ``idf`` or ``uniform``.
        freeze: see `two_tower.embedding.base.Embedding`.

    Raises:
        UserError: gensim is not installed, or a number is out of range.
    """

    def __init__(
        self,
        dim: int,
        missing: str = "random",
        normalise: bool = True,
        skip_gram: bool = True,
        window: int = 5,
        negative: int = 5,
        epochs: int = 5,
        seed: int = 0,
        workers: int = 1,
        weights: str = "idf",
        freeze: bool | int = False,
    ) -> None:
        super().__init__("word2vec", dim, dim, missing, normalise, weights, freeze)
        self._settings = {
            "vector_size": dim,
            "sg": int(skip_gram),
            "window": window,
            "negative": negative,
            "epochs": epochs,
            "seed": seed,
            "workers": workers,
        }
        for name in ("window", "negative", "epochs", "workers"):
            if self._settings[name] < 1:
                raise UserError(f"embedding.{name}={self._settings[name]} must be at least 1.")
        try:
            self._version = importlib.metadata.version("gensim")
        except importlib.metadata.PackageNotFoundError:
            raise UserError('embedding=word2vec needs gensim: pip install -e ".[word2vec]"') from None

    def known(self, tokenizer: Tokenizer, corpus: Corpus) -> Known:
        """The vectors of the words in the passages, trained now or found in the cache."""
        made_of = (TRAINING, corpus.source.fingerprint(), tokenizer.fingerprint, self._version)
        key = key_of(*made_of, *sorted(self._settings.items()))
        folder = entry("word2vec", key, lambda path: self._train(path, tokenizer, corpus))
        rows, trained = np.load(folder / "rows.npy"), np.load(folder / "vectors.npy")
        vectors, found = np.zeros((len(tokenizer), self.dim), np.float32), np.zeros(len(tokenizer), bool)
        vectors[rows], found[rows] = trained, True
        return Known(vectors, found, len(rows), len(rows))

    def _train(self, folder: Path, tokenizer: Tokenizer, corpus: Corpus) -> None:
        from gensim.models import Word2Vec

        with counter(f"word2vec on {corpus.source.name}", "passages") as progress:
            passages = _Passages(corpus.tokens, tokenizer, progress)
            trained = Word2Vec(passages, min_count=1, **self._settings).wv
        rows = {word: row for row, word in enumerate(tokenizer.vocabulary)}
        np.save(folder / "rows.npy", np.array([rows[word] for word in trained.index_to_key], np.int64))
        np.save(folder / "vectors.npy", np.asarray(trained.vectors, np.float32))


class _Passages:
    """The passages as lists of known words, as often as they are asked for.

    Args:
        tokens: N passages.
        tokenizer: made the tokens.
        progress: called with the number of passages given since the last call.
    """

    def __init__(self, tokens: Ragged, tokenizer: Tokenizer, progress: Callable[[int], None]) -> None:
        self._tokens, self._tokenizer, self._progress = tokens, tokenizer, progress

    def __iter__(self) -> Iterator[list[str]]:
        words, unknown = self._tokenizer.vocabulary, self._tokenizer.unknown_id
        for start in range(0, len(self._tokens), _PASSAGES):
            block = self._tokens.slice(start, min(start + _PASSAGES, len(self._tokens)))
            for text in block.to_lists():
                yield [words[i] for i in text if i != unknown]
            self._progress(len(block))
