"""Initial word vectors and token weights; what words without a vector start as, and what is reported about them."""

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from two_tower.data.stream.corpus import Corpus
from two_tower.embedding.base import PartialEmbedding, Pretrained
from two_tower.embedding.random import RandomEmbedding
from two_tower.errors import UserError
from two_tower.ragged import Ragged
from two_tower.tokenizer.base import Tokenizer


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(0, 9), max_size=8), min_size=1, max_size=10))
def test_idf_equals_the_definition(texts: list[list[int]]) -> None:
    found = RandomEmbedding(4).token_weights(Ragged.from_lists(texts), 10)
    assert RandomEmbedding(4, weights="uniform").token_weights(Ragged.from_lists(texts), 10) is None
    for word in range(10):
        frequency = sum(word in text for text in texts)
        assert found[word].item() == pytest.approx(math.log(1 + len(texts) / (1 + frequency)), rel=1e-6)


def test_random_vectors_have_about_unit_length_and_repeat_with_the_seed(make: Callable) -> None:
    tokenizer, corpus = make([" ".join(f"w{i}" for i in range(500))])
    torch.manual_seed(0)
    one = RandomEmbedding(256).vectors(tokenizer, corpus)
    torch.manual_seed(0)
    assert torch.equal(one, RandomEmbedding(256).vectors(tokenizer, corpus))
    assert one.shape == (501, 256)
    assert one.norm(dim=1).mean().item() == pytest.approx(1, abs=0.02)
    assert not torch.equal(one[0], one[1])


@pytest.mark.parametrize(("freeze", "frozen"), [(False, False), (True, True), (1, False), (2, True), (30, True)])
def test_what_is_frozen_when_training_starts(freeze: bool | int, frozen: bool) -> None:
    assert RandomEmbedding(4, freeze=freeze).frozen is frozen
    for epoch in (0, -1):
        with pytest.raises(ValueError, match=f"^freeze={epoch} must be true, false, or the first epoch"):
            RandomEmbedding(4, freeze=epoch)


class Some(PartialEmbedding):
    """Vectors for the words that are given, drawn with another mean and spread in each dimension."""

    def __init__(self, words: list[str], dim: int | None = None, **options: Any) -> None:  # noqa: ANN401
        options = {"missing": "random", "normalize": False, **options}
        super().__init__("some", 3, dim, **options, weights="idf", freeze=False)
        rng = np.random.default_rng(0)
        self.words, self.counts = words, (len(words), len(words))
        self.given = (rng.normal(size=(len(words), 3)) * (1, 2, 0.1) + (0, 5, -9)).astype(np.float32)

    def pretrained(self, tokenizer: Tokenizer, corpus: Corpus) -> Pretrained:
        vectors, found = np.zeros((len(tokenizer), self.pretrained_dims), np.float32), np.zeros(len(tokenizer), bool)
        rows = [tokenizer.vocabulary.index(word) for word in self.words]
        vectors[rows], found[rows] = self.given, True
        return Pretrained(vectors, found, *self.counts)


Texts = tuple[Tokenizer, Corpus]
MANY = [f"w{i}" for i in range(2000)]


@pytest.fixture
def texts(make: Callable) -> Texts:
    return make([" ".join(MANY), "a a a b", "c a b"])


@pytest.mark.parametrize("missing", ["random", "mean", "zero"])
def test_found_vectors_stay_and_the_others_start_as_stated(texts: Texts, missing: str) -> None:
    embedding, drawn = Some(MANY[:1000], missing=missing), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(embedding.vectors(*texts))
    vectors = drawn[0]
    assert [torch.equal(vectors, other) for other in drawn[1:]] == [True, missing != "random"]
    rows = [texts[0].vocabulary.index(word) for word in MANY[:1000]]
    assert vectors.dtype == torch.float32
    assert torch.equal(vectors[rows], torch.from_numpy(embedding.given))
    others = np.delete(vectors.numpy(), rows, axis=0)
    assert len(others) == 1004  # the other words and the unknown one
    if missing == "zero":
        assert not others.any()
    elif missing == "mean":
        np.testing.assert_allclose(others, np.tile(embedding.given.mean(axis=0), (1004, 1)), rtol=1e-5)
    else:
        np.testing.assert_allclose(others.mean(axis=0), embedding.given.mean(axis=0), atol=0.2)
        np.testing.assert_allclose(others.std(axis=0), embedding.given.std(axis=0), rtol=0.1)
        assert len(np.unique(others, axis=0)) == 1004


def test_normalized_vectors_are_centred_and_unit(texts: Texts, caplog: pytest.LogCaptureFixture) -> None:
    embedding = Some(MANY, normalize=True)
    with caplog.at_level(logging.INFO, "two_tower"):
        vectors = embedding.vectors(*texts).numpy()
        assert "embedding.normalize" not in caplog.text
        Some(MANY).vectors(*texts)
        assert "embedding.normalize=true" in caplog.text  # long vectors are told
    given = embedding.given.astype(np.float64)
    centred = given - given.mean(axis=0)
    expected = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    rows = [texts[0].vocabulary.index(word) for word in MANY]
    np.testing.assert_allclose(vectors[rows], expected, atol=1e-4)


@pytest.mark.parametrize("missing", ["random", "mean", "zero"])
def test_more_dimensions_are_random_and_lengths_about_1(texts: Texts, missing: str) -> None:
    embedding = Some(MANY, dim=300, missing=missing, normalize=True)
    vectors = embedding.vectors(*texts)
    assert embedding.dim == vectors.shape[1] == 300
    assert Some(["a"], dim=2).dim == 3  # fewer are not possible
    rows = [texts[0].vocabulary.index(word) for word in MANY]
    assert vectors[rows].norm(dim=1).mean().item() == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(vectors[rows, :3].norm(dim=1).numpy(), np.full(2000, 0.1), rtol=1e-4)
    assert vectors[:, 3:].std().item() == pytest.approx(300**-0.5, rel=0.02)
    assert len(vectors.unique(dim=0)) == len(vectors)


def test_coverage_counts_words_and_tokens(make: Callable, caplog: pytest.LogCaptureFixture) -> None:
    start, counts = "the others start as embedding.missing=random", list[str]()
    texts = ["a a a a a b", "c d d e e e f g h", "i"], ["a a b c d e"]
    with caplog.at_level(logging.INFO, "two_tower"):
        for words, corpus in ((["a", "b", "i"], make(texts[0])), (["a"], make(texts[1], min_frequency=2))):
            caplog.clear()
            Some(words).vectors(*corpus)
            counts.append(caplog.messages[0])
    assert counts == [
        f"some has vectors for 3 of 9 words (33.3 %), which are 43.8 % of the corpus' tokens; {start}, most frequent: "
        "e, d, c, f, g.",
        f"some has vectors for 1 of 1 words (100.0 %), which are 33.3 % of the corpus' tokens; {start}.",
    ]


def test_low_coverage_warns_with_a_cause(texts: Texts, caplog: pytest.LogCaptureFixture) -> None:
    embedding = Some(["a", *MANY[:900]])
    for counts, cause in (
        ((1000, 20), "only 20 of its 1,000 words are single words for this tokenizer"),
        ((500, 500), "it has 500 words for a vocabulary of 2,004"),
        ((5000, 5000), "perhaps it is for another language or subject"),
    ):
        caplog.clear()
        embedding.counts = counts
        embedding.vectors(*texts)
        (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert warning.startswith("Only 45.0 % of the corpus' tokens have a vector in some: ")
        assert cause in warning
    caplog.clear()
    Some(["a", *MANY[:1100]]).vectors(*texts)
    assert not [r for r in caplog.records if r.levelno == logging.WARNING]
    with pytest.raises(UserError, match="some has no vector for any of the 2,003 words"):
        Some([]).vectors(*texts)
