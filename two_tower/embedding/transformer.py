"""Word vectors from a transformer: what it makes of each word alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from two_tower.data.stream.corpus import Corpus
from two_tower.embedding.base import PartialEmbedding, Pretrained, Weights
from two_tower.errors import UserError
from two_tower.teacher._vectors import teacher_vectors
from two_tower.teacher.base import Teacher
from two_tower.tokenizer.base import Tokenizer


class TransformerEmbedding(PartialEmbedding):
    """The teacher's vector of each word, centred, of length 1, as in model2vec (Tulkens and van Dongen 2024)."""

    def __init__(
        self, teacher: Teacher, dim: int, weights: Weights = "idf", freeze: bool | int = False,
        pull: float | None = None,
    ) -> None:  # fmt: skip
        # Only the unknown word has no vector, and it means nothing: zero.
        super().__init__(teacher.name, min(dim, teacher.dim), dim, "zero", True, weights, freeze, pull)
        self._teacher = teacher

    def pretrained(self, tokenizer: Tokenizer, corpus: Corpus) -> Pretrained:
        words, width = tokenizer.vocabulary, self.pretrained_dims
        rows = np.array([row for row, word in enumerate(words) if word and row != tokenizer.unknown_id], np.int64)
        if not len(rows):
            raise UserError("The vocabulary is empty: there is no word for embedding=transformer.")
        texts = pa.array([words[row] for row in rows], pa.string())
        of_teacher = teacher_vectors(self._teacher, texts, "words")
        vectors, known = np.zeros((len(words), width), np.float32), np.zeros(len(words), bool)
        vectors[rows], known[rows] = _principal_components(of_teacher.take(np.arange(len(rows))), width), True
        return Pretrained(vectors, known, len(rows), len(rows))


def _principal_components(vectors: np.ndarray, width: int) -> np.ndarray:
    """The vectors (V, T), less their mean, in their first ``width`` principal components; unchanged where that is T."""
    centred = vectors - vectors.mean(0)
    if width == vectors.shape[1]:
        return centred
    _, directions = np.linalg.eigh(centred.T @ centred)  # ascending
    components = directions[:, ::-1][:, :width]
    # A component's sign is arbitrary, and another library might choose another.
    components = components * np.sign(components[np.abs(components).argmax(0), np.arange(width)])
    return np.ascontiguousarray(centred @ components)
