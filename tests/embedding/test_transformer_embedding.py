"""Word vectors from a teacher."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from two_tower.data.beir import Beir
from two_tower.data.stream.corpus import Corpus, trained_tokenizer
from two_tower.embedding.transformer import TransformerEmbedding
from two_tower.errors import UserError
from two_tower.teacher.base import Teacher
from two_tower.teacher.none import NoTeacher
from two_tower.tokenizer.word import WordTokenizer


class Speller(Teacher):
    """Vectors that depend on the word, with a mean that is not 0."""

    name, dim = "speller", 10

    def fingerprint(self) -> str:
        return "speller"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        drawn = np.array([np.random.default_rng([*text.encode()]).normal(0.4, 1, self.dim) for text in texts])
        return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("dim", [4, 10, 16])
def test_each_word_alone_centred_of_length_1(dim: int, collection: Path) -> None:
    source = Beir(str(collection))
    tokenizer = trained_tokenizer(source, WordTokenizer(), "train")
    embedding = TransformerEmbedding(Speller(), dim)
    vectors = embedding.vectors(tokenizer, Corpus.load(source, tokenizer)).numpy()
    assert vectors.shape == (len(tokenizer), dim)
    assert embedding.pretrained_dims == min(dim, 10)
    words = np.array([row for row in range(len(tokenizer)) if row != tokenizer.unknown_id])
    raw = Speller().encode([tokenizer.vocabulary[row] for row in words]).astype(np.float16).astype(np.float64)
    centred = raw - raw.mean(0)
    if dim < 10:  # as many principal components
        _, _, components = np.linalg.svd(centred, full_matrices=False)
        centred = centred @ components[:dim].T
        centred -= centred.mean(0)
    wanted = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    found = vectors[words, : min(dim, 10)]
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    # Up to the signs of components, cosines are the same.
    np.testing.assert_allclose(found[:50] @ found[:50].T, wanted[:50] @ wanted[:50].T, atol=2e-3)
    assert np.linalg.norm(vectors[words], axis=1).mean() == pytest.approx(1, abs=0.1)


def test_without_a_teacher_it_says_what_to_do() -> None:
    with pytest.raises(UserError, match="add teacher=sentence_transformer"):
        TransformerEmbedding(NoTeacher(), 8)
