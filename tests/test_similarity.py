"""Similarities against their definitions."""

import pytest
import torch
from oracles import similarity as defined

from two_tower.similarity import SIMILARITIES, Similarity


@pytest.mark.parametrize("name", SIMILARITIES)
def test_scores_equal_the_definition_also_from_an_indexs_distances(name: str) -> None:
    similarity, generator = Similarity(name), torch.Generator().manual_seed(0)
    queries, documents = (torch.randn(n, 7, generator=generator, dtype=torch.float64) for n in (4, 5))
    q, d = similarity.prepare(queries), similarity.prepare(documents)
    expected = torch.stack([torch.stack([defined(a, b, name) for b in documents]) for a in queries])
    torch.testing.assert_close(similarity.scores(q, d), expected, atol=1e-12, rtol=0)
    distances = torch.cdist(q, d) ** 2 if similarity.metric == "l2" else q @ d.T
    torch.testing.assert_close(similarity.from_distance(distances), expected)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_gradients_are_finite_for_equal_and_for_zero_vectors(name: str) -> None:
    vectors = torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    similarity = Similarity(name)
    prepared = similarity.prepare(vectors)
    similarity.scores(prepared, prepared).sum().backward()
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()
