"""Texts become the same vectors in one chunk or in many, at any number of threads."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import torch

from two_tower import encode
from two_tower.encode import Encoder
from two_tower.model import TwoTower
from two_tower.similarity import Similarity
from two_tower.tokenizer.word import WordTokenizer
from two_tower.tower.average import AverageTower
from two_tower.tower.base import WordTable

TEXTS = [f"alpha{i % 7} beta{i % 11} gamma{i % 3}" * (i % 4) for i in range(100)]


def random_encoder(texts: list[str], similarity: str = "cosine") -> Encoder:
    """An untrained average tower of 16 dimensions that knows the words of some texts."""
    tokenizer = WordTokenizer(min_frequency=1).train([texts])
    words = WordTable(len(tokenizer), 16)
    words.initialize(torch.randn(len(tokenizer), 16, generator=torch.Generator().manual_seed(0)), None)
    tower = AverageTower(words, 16)
    return Encoder(TwoTower(tower, tower, Similarity(similarity)), tokenizer)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Encoder]:
    """Works in small chunks."""
    monkeypatch.setattr(encode, "CHUNK", 16)
    monkeypatch.setattr(encode, "MIN_CHUNK", 5)
    before = torch.get_num_threads()
    yield random_encoder(TEXTS)
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 3])
def test_chunks_and_threads_change_nothing(encoder: Encoder, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(encode, "MIN_CHUNK", 1000)
        whole = encoder.documents(TEXTS)
    torch.set_num_threads(threads)
    column = pa.chunked_array([pa.array(TEXTS[:33]), pa.array(TEXTS[33:])])
    assert np.array_equal(encoder.documents(column), whole)
    alone = np.concatenate([encoder.documents([text]) for text in TEXTS])
    assert np.array_equal(alone, whole)
    assert encoder.documents([]).shape == (0, 16)


@pytest.mark.parametrize(
    ("texts", "threads", "expected"),
    [(0, 2, 1024), (1024, 2, 1024), (3000, 2, 1500), (16_384, 2, 8192), (16_385, 2, 4097), (60_000, 2, 7500)],
)
def test_every_thread_gets_equally_many_chunks(texts: int, threads: int, expected: int) -> None:
    assert encode._chunk_size(texts, threads) == expected
