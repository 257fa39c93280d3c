"""Embeddings that come with, or are made by, a package."""

import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from two_tower.embedding import pretrained
from two_tower.embedding.pretrained import GloveEmbedding
from two_tower.embedding.word2vec import Word2VecEmbedding
from two_tower.errors import UserError
from two_tower.tokenizer.base import Tokenizer

TEXTS = ["tiger lion cat", "lion tiger cat cat", "car road truck", "truck road car car", "x"] * 40
Trainings = list[tuple[list[list[str]], dict[str, Any]]]
GLOVE = importlib.util.find_spec(pretrained.GLOVE_PACKAGE)


def likeness(tokenizer: Tokenizer, vectors: torch.Tensor, word: str) -> torch.Tensor:
    rows = vectors[[tokenizer.vocabulary.index(name) for name in ("tiger", word)]]
    return torch.cosine_similarity(*rows, dim=0)


@pytest.mark.skipif(GLOVE is None, reason="the extra glove is not installed")
def test_the_packaged_vectors_are_read_without_running_the_package(make: Callable) -> None:
    tokenizer, corpus = make(TEXTS)
    embedding = GloveEmbedding(normalize=False)
    vectors = embedding.vectors(tokenizer, corpus)
    folder = Path(GLOVE.origin).parent / "data"
    words = pq.read_table(folder / "glove_6B_index.parquet")["index"].to_pylist()
    matrix = np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r")
    for word in ("tiger", "lion"):
        assert vectors[tokenizer.vocabulary.index(word)].tolist() == matrix[words.index(word)].tolist()
    assert likeness(tokenizer, vectors, "lion") > likeness(tokenizer, vectors, "truck") + 0.1
    assert pretrained.GLOVE_PACKAGE not in sys.modules
    assert [GloveEmbedding(dim=dim).dim for dim in (None, 16, 64)] == [50, 50, 64]


def test_a_missing_package_and_numbers_out_of_range_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "GLOVE_PACKAGE", "no_such_package")
    with pytest.raises(UserError, match=r'pip install -e "\.\[glove\]"'):
        GloveEmbedding()
    monkeypatch.setattr(importlib.metadata, "version", Mock(side_effect=importlib.metadata.PackageNotFoundError()))
    with pytest.raises(UserError, match=r'pip install -e "\.\[word2vec\]"'):
        Word2VecEmbedding(4)
    for name in ("window", "negative", "epochs", "workers"):
        with pytest.raises(ValueError, match=f"^{name}=0 must be at least 1"):
            Word2VecEmbedding(4, **{name: 0})  # type: ignore[arg-type]


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trainings:
    """Sentences and settings of every training of gensim's, with an empty cache."""
    models = pytest.importorskip("gensim.models", reason="needs gensim: pip install -e '.[word2vec]'")
    seen: Trainings = []

    class Watched(models.Word2Vec):
        def __init__(self, sentences: Any, **settings: Any) -> None:  # noqa: ANN401
            seen.append((list(sentences), settings))
            super().__init__(sentences, **settings)

    monkeypatch.setattr(models, "Word2Vec", Watched)
    monkeypatch.setenv("TWO_TOWER_CACHE", str(tmp_path / "cache"))
    return seen


def test_word2vec_sees_the_known_words_once_for_the_same_corpus_and_settings_and_repeats(
    trainings: Trainings, make: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"missing": "zero", "normalize": False, "epochs": 20}
    vectors = Word2VecEmbedding(4, **settings, seed=7).vectors(*make(["A b b", "b é c", "c"], min_frequency=2))
    assert vectors.any(dim=1).tolist() == [False, True, True]  # the first is the unknown word's
    given = {"vector_size": 4, "sg": 1, "window": 5, "negative": 5, "epochs": 20, "seed": 7, "workers": 1}
    assert trainings == [([["b", "b"], ["b", "c"], ["c"]], {**given, "min_count": 1})]
    trainings.clear()
    tokenizer, corpus = make(TEXTS)
    first = Word2VecEmbedding(16, **settings).vectors(tokenizer, corpus)
    again = Word2VecEmbedding(16, **settings, weights="uniform", freeze=True).vectors(tokenizer, corpus)
    assert torch.equal(again, first)
    assert len(trainings) == 1
    assert likeness(tokenizer, first, "lion") > likeness(tokenizer, first, "truck")
    monkeypatch.setenv("TWO_TOWER_CACHE", str(tmp_path / "another"))
    assert torch.equal(Word2VecEmbedding(16, **settings).vectors(tokenizer, corpus), first)
    changed: list[tuple[Any, Any, Any]] = [
        (Word2VecEmbedding(4, seed=1), tokenizer, corpus),
        (Word2VecEmbedding(4, epochs=2), tokenizer, corpus),
        (Word2VecEmbedding(4), *make(TEXTS, fingerprint="b")),
        (Word2VecEmbedding(4), *make(TEXTS, vocabulary_size=5)),
    ]
    for count, (embedding, *data) in enumerate(changed, start=3):
        embedding.vectors(*data)
        assert len(trainings) == count
