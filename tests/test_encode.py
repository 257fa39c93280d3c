"""Texts become the same vectors in one chunk or in many, at any number of threads."""

import threading
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
from two_tower.tower._words import WordTable
from two_tower.tower.average import AverageTower

TEXTS = [f"alpha{i % 7} beta{i % 11} gamma{i % 3}" * (i % 4) for i in range(100)]


@pytest.fixture
def encoder() -> Encoder:
    tokenizer = WordTokenizer(min_frequency=1).train([TEXTS])
    words = WordTable(len(tokenizer), 16)
    words.initialise(torch.randn(len(tokenizer), 16, generator=torch.Generator().manual_seed(0)), None)
    tower = AverageTower(words, 16)
    return Encoder(TwoTower(tower, tower, Similarity("cosine")), tokenizer)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("count", [1, 2, 3])
def test_chunks_and_threads_change_nothing(encoder: Encoder, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encoder.documents(TEXTS)
    monkeypatch.setattr(encode, "CHUNK", 16)
    monkeypatch.setattr(encode, "MIN_CHUNK", 5)
    torch.set_num_threads(count)
    column = pa.chunked_array([pa.array(TEXTS[:33]), pa.array(TEXTS[33:])])
    assert np.array_equal(encoder.documents(column), whole)
    alone = np.concatenate([encoder.documents([text]) for text in TEXTS])
    assert np.array_equal(alone, whole)


@pytest.mark.usefixtures("threads")
def test_the_number_of_threads_stays_as_it_was(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "MIN_CHUNK", 5)
    torch.set_num_threads(3)
    encoder.documents(TEXTS)
    seen = [torch.get_num_threads()]
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [3, 3]


@pytest.mark.parametrize(
    ("texts", "threads", "expected"),
    [(0, 2, 1024), (1024, 2, 1024), (3000, 2, 1500), (16_384, 2, 8192), (16_385, 2, 4097), (60_000, 2, 7500)],
)
def test_chunks_are_as_many_for_each_thread(texts: int, threads: int, expected: int) -> None:
    assert encode._chunk_size(texts, threads) == expected


def test_no_texts_give_no_vectors(encoder: Encoder) -> None:
    assert encoder.documents([]).shape == (0, 16)
