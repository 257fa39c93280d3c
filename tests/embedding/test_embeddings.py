"""Initial word vectors and token weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from two_tower.embedding.base import inverse_document_frequency
from two_tower.embedding.random import RandomEmbedding
from two_tower.ragged import Ragged


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(0, 9), max_size=8), min_size=1, max_size=10))
def test_idf_equals_the_definition(texts: list[list[int]]) -> None:
    found = inverse_document_frequency(Ragged.from_lists(texts), 10)
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


def test_weights_are_a_choice() -> None:
    documents = Ragged.from_lists([[0, 1], [1]])
    assert RandomEmbedding(4, weights="uniform").token_weights(documents, 3) is None
    weights = RandomEmbedding(4).token_weights(documents, 3)
    assert weights is not None
    assert weights.argmax().item() == 2


@pytest.mark.parametrize(("freeze", "frozen"), [(False, False), (True, True), (1, False), (2, True), (30, True)])
def test_what_is_frozen_when_training_starts(freeze: bool | int, frozen: bool) -> None:
    assert RandomEmbedding(4, freeze=freeze).frozen is frozen
    for epoch in (0, -1):
        with pytest.raises(ValueError, match=f"^freeze={epoch} must be true, false, or the first epoch"):
            RandomEmbedding(4, freeze=epoch)
