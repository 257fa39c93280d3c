"""Vectors of new words from the parts that they share with known ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import lsqr

from two_tower import extend
from two_tower.extend import SubwordVectors

STEMS = ["walk", "jump", "climb", "swim", "dance", "laugh", "paint", "build", "stretch", "whisper"]
ENDINGS = ["ing", "ness", "able", "ment"]


def compositional() -> tuple[list[str], torch.Tensor]:
    """Words whose vectors are those of their stem and their ending together."""
    generator = torch.Generator().manual_seed(0)
    stems, endings = (torch.randn(len(part), 24, generator=generator) for part in (STEMS, ENDINGS))
    pairs = list(itertools.product(range(len(STEMS)), range(len(ENDINGS))))
    return [STEMS[i] + ENDINGS[j] for i, j in pairs], torch.stack([stems[i] + endings[j] for i, j in pairs])


def test_a_new_word_is_near_what_its_parts_say() -> None:
    words, vectors = compositional()
    held_out = [3, 14, 22, 37]
    kept = [i for i in range(len(words)) if i not in held_out]
    made = SubwordVectors([words[i] for i in kept], vectors[kept])([words[i] for i in held_out])
    cosines = torch.nn.functional.cosine_similarity(made.unsqueeze(1), vectors.unsqueeze(0), dim=2)
    assert cosines.argmax(1).tolist() == held_out
    assert cosines.max(1).values.min() > 0.7


def test_it_is_the_ridge_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extend, "STEPS", 300)
    words, vectors = compositional()
    ours = SubwordVectors(words, vectors)(["walkable", "swimming", "unpainted"])
    parts = [{f"<{w}>"[i : i + n] for n in range(3, 7) for i in range(len(w) + 3 - n)} for w in words]
    counts = {part: sum(part in of for of in parts) for of in parts for part in of}
    shared = sorted(part for part, count in counts.items() if count >= 2)

    def rows(texts: list[str]) -> np.ndarray:
        out = np.zeros((len(texts), len(shared)))
        for row, word in zip(out, texts, strict=True):
            for part in (f"<{word}>"[i : i + n] for n in range(3, 7) for i in range(len(word) + 3 - n)):
                if part in shared:
                    row[shared.index(part)] += 1
            row /= max(1, row.sum())
        return out

    mean, wanted = vectors.mean(0).numpy(), (vectors - vectors.mean(0)).numpy()
    solved = [lsqr(rows(words), column, damp=extend.RIDGE**0.5, atol=1e-12, btol=1e-12)[0] for column in wanted.T]
    theirs = rows(["walkable", "swimming", "unpainted"]) @ np.stack(solved, axis=1) + mean
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-4)


def test_words_without_shared_parts_get_the_mean() -> None:
    words, vectors = compositional()
    made = SubwordVectors(words, vectors)
    torch.testing.assert_close(made(["квант", "", "a"]), vectors.mean(0).expand(3, -1))
    assert made([]).shape == (0, 24)
    torch.testing.assert_close(SubwordVectors(["ab"], vectors[:1])(["abc"]), vectors[:1])
