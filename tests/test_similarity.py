"""Similarities against their definitions."""

import numpy as np
import pytest
import torch

from two_tower.similarity import SIMILARITIES, Similarity


@pytest.mark.parametrize("name", SIMILARITIES)
def test_scores_equal_the_definition(name: str) -> None:
    rng = np.random.default_rng(0)
    q, d = rng.normal(size=(4, 7)), rng.normal(size=(5, 7))
    similarity = Similarity(name)
    scores = similarity.scores(similarity.prepare(torch.tensor(q)), similarity.prepare(torch.tensor(d)))
    for i in range(4):
        for j in range(5):
            expected = {
                "cosine": q[i] @ d[j] / np.linalg.norm(q[i]) / np.linalg.norm(d[j]),
                "dot": q[i] @ d[j],
                "euclidean": -np.sqrt(((q[i] - d[j]) ** 2).sum()),
            }[name]
            assert scores[i, j].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_gradients_are_finite_for_equal_and_for_zero_vectors(name: str) -> None:
    vectors = torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    similarity = Similarity(name)
    prepared = similarity.prepare(vectors)
    similarity.scores(prepared, prepared).sum().backward()
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()


@pytest.mark.parametrize("name", SIMILARITIES)
def test_an_index_distance_becomes_the_score(name: str) -> None:
    similarity = Similarity(name)
    q = similarity.prepare(torch.randn(3, 5, generator=torch.Generator().manual_seed(0)))
    d = similarity.prepare(torch.randn(4, 5, generator=torch.Generator().manual_seed(1)))
    found = torch.cdist(q, d) ** 2 if similarity.metric == "l2" else q @ d.T
    torch.testing.assert_close(similarity.from_distance(found), similarity.scores(q, d))


def test_an_unknown_similarity_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"similarity=cosin .* valid: cosine"):
        Similarity("cosin")
