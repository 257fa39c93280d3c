"""Word vectors from a transformer: what it makes of each word alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from two_tower.data.stream.corpus import Corpus
from two_tower.embedding.base import Further, PartialEmbedding, Pretrained, Weights
from two_tower.errors import UserError
from two_tower.teacher._vectors import teacher_vectors
from two_tower.teacher.base import Teacher
from two_tower.tokenizer.base import Tokenizer


class TransformerEmbedding(PartialEmbedding, Further):
    """The teacher's vector of each word, centred, of length 1, as in model2vec (Tulkens and van Dongen 2024)."""

    rarest_word = 1

    def __init__(
        self, teacher: Teacher, dim: int, weights: Weights = "idf", freeze: bool | int = False,
        pull: float | None = None, common_words: bool = True,
    ) -> None:  # fmt: skip
        # Only the unknown word has no vector, and it means nothing: zero.
        super().__init__(teacher.name, min(dim, teacher.dim), dim, "zero", True, weights, freeze, pull)
        self._teacher, self._has_common_words = teacher, common_words

    def common_words(self) -> Sequence[str]:
        return self._teacher.common_words() if self._has_common_words else []

    def pretrained(self, tokenizer: Tokenizer, corpus: Corpus) -> Pretrained:
        words, width = tokenizer.vocabulary, self.pretrained_dims
        rows = np.array([row for row, word in enumerate(words) if word and row != tokenizer.unknown_id], np.int64)
        if not len(rows):
            raise UserError("The vocabulary is empty: there is no word for embedding=transformer.")
        # Of a tokenizer of pieces, those within a word or at its beginning have a mark, which is no text.
        of_teacher = self._of_teacher([words[row] if tokenizer.rule else words[row].lstrip("#▁Ġ") for row in rows])
        mean = of_teacher.mean(0)
        centred = of_teacher - mean
        self.origin = {"mean": torch.from_numpy(mean)}
        if width < centred.shape[1]:
            components = _principal_components(centred, width)
            self.origin["components"] = torch.from_numpy(components)
            centred = np.ascontiguousarray(centred @ components)
        vectors, known = np.zeros((len(words), width), np.float32), np.zeros(len(words), bool)
        vectors[rows], known[rows] = centred, True
        return Pretrained(vectors, known, len(rows), len(rows))

    def further(self, words: Sequence[str], origin: Mapping[str, Tensor]) -> Tensor:
        centred = torch.from_numpy(self._of_teacher(words)) - origin["mean"]
        return self._widened(self._scaled(centred @ origin["components"] if "components" in origin else centred), words)

    def _of_teacher(self, words: Sequence[str]) -> np.ndarray:
        vectors = teacher_vectors(self._teacher, pa.array(words, pa.string()), "words")
        return vectors.take(np.arange(len(words)))


def _principal_components(centred: np.ndarray, width: int) -> np.ndarray:
    """The first ``width`` principal components of vectors (V, T) whose mean is 0, as columns (T, width)."""
    _, directions = np.linalg.eigh(centred.T @ centred)  # ascending
    components = directions[:, ::-1][:, :width]
    # A component's sign is arbitrary, and another library might choose another.
    return components * np.sign(components[np.abs(components).argmax(0), np.arange(width)])
