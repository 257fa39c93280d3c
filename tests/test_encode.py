"""Texts become the same vectors in one chunk or in many, at any number of threads."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from two_tower import vectors
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


@pytest.mark.parametrize("threads", [1, 3])
def test_chunks_and_threads_change_nothing(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, before = random_encoder(TEXTS), torch.get_num_threads()
    whole = encoder.documents(TEXTS)
    monkeypatch.setattr(vectors, "CHUNK", 16)
    monkeypatch.setattr(vectors, "MIN_CHUNK", 5)
    torch.set_num_threads(threads)
    in_chunks = encoder.documents(pa.chunked_array([pa.array(TEXTS[:33]), pa.array(TEXTS[33:])]))
    alone = np.concatenate([encoder.documents([text]) for text in TEXTS])
    torch.set_num_threads(before)
    assert np.array_equal(in_chunks, whole)
    assert np.array_equal(alone, whole)
    assert encoder.documents([]).shape == (0, 16)
