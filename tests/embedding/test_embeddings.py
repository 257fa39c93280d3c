"""Initial word vectors and token weights."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from two_tower.embedding.base import inverse_document_frequency
from two_tower.embedding.random import RandomEmbedding
from two_tower.errors import UserError
from two_tower.ragged import Ragged


@given(st.lists(st.lists(st.integers(0, 9), max_size=8), min_size=1, max_size=10))
def test_idf_equals_the_definition(texts: list[list[int]]) -> None:
    found = inverse_document_frequency(Ragged.from_lists(texts), 10)
    for word in range(10):
        frequency = sum(word in text for text in texts)
        assert found[word].item() == pytest.approx(math.log(1 + len(texts) / (1 + frequency)), rel=1e-6)


def test_random_vectors_have_about_unit_length_and_repeat_with_the_seed() -> None:
    torch.manual_seed(0)
    one = RandomEmbedding(256).vectors(["a"] * 500)
    torch.manual_seed(0)
    assert torch.equal(one, RandomEmbedding(256).vectors(["a"] * 500))
    assert one.norm(dim=1).mean().item() == pytest.approx(1, abs=0.02)
    assert not torch.equal(one[0], one[1])


def test_weights_are_a_choice() -> None:
    documents = Ragged.from_lists([[0, 1], [1]])
    assert RandomEmbedding(4, weights="uniform").token_weights(documents, 3) is None
    assert RandomEmbedding(4).token_weights(documents, 3).argmax().item() == 2
    with pytest.raises(UserError, match="did you mean 'idf'"):
        RandomEmbedding(4, weights="idff")
