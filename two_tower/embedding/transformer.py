"""Word vectors from a transformer: what it makes of each word alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from two_tower.data.stream.corpus import Corpus
from two_tower.embedding._partial import Known, PartialEmbedding
from two_tower.errors import UserError
from two_tower.teacher._vectors import teacher_vectors
from two_tower.teacher.base import Teacher
from two_tower.tokenizer.base import Tokenizer

__all__ = ["TransformerEmbedding"]


class TransformerEmbedding(PartialEmbedding):
    """The teacher's vector of each word of the vocabulary, centred, of length 1, as in model2vec.

    With fewer dimensions than the teacher's, those in which the vectors differ most (principal components).

    Source:
        Tulkens and van Dongen 2024, model2vec (github.com/MinishLab/model2vec).

    Args:
        teacher: the model; ``teacher=none`` is refused.
        dim: dimensions of a word vector; those beyond the teacher's start random and tell words apart.
        weights: initial token weights, ``idf`` or ``uniform``.
        freeze: see `two_tower.embedding.base.Embedding`.
    """

    def __init__(self, teacher: Teacher, dim: int, weights: str = "idf", freeze: bool | int = False) -> None:
        # The unknown word, which alone has no vector, says nothing.
        super().__init__(teacher.name, min(dim, teacher.dim), dim, "zero", True, weights, freeze)
        self._teacher = teacher

    def known(self, tokenizer: Tokenizer, corpus: Corpus) -> Known:
        """The vectors of all words, but for the unknown one."""
        words = tokenizer.vocabulary
        rows = np.array([row for row, word in enumerate(words) if word and row != tokenizer.unknown_id], np.int64)
        if not len(rows):
            raise UserError("The vocabulary is empty: there is no word for embedding=transformer.")
        texts = pa.array([words[row] for row in rows], pa.string())
        taught = teacher_vectors(self._teacher, texts, "words", tokenizer.fingerprint)
        vectors, found = np.zeros((len(words), self.width), np.float32), np.zeros(len(words), bool)
        vectors[rows], found[rows] = _shortened(taught.take(np.arange(len(rows))), self.width), True
        return Known(vectors, found, len(rows), len(rows))


def _shortened(vectors: np.ndarray, width: int) -> np.ndarray:
    """The vectors (V, T), less their mean, in their first ``width`` principal components; all T as they are."""
    centred = vectors - vectors.mean(0)
    if width == vectors.shape[1]:
        return centred
    _, directions = np.linalg.eigh(centred.T @ centred)  # ascending
    components = directions[:, ::-1][:, :width]
    # A component's sign is arbitrary, and another library might choose another.
    components = components * np.sign(components[np.abs(components).argmax(0), np.arange(width)])
    return np.ascontiguousarray(centred @ components)
