"""Word vectors from a file."""

from __future__ import annotations

from pathlib import Path

from two_tower.data.stream.corpus import Corpus
from two_tower.embedding._matching import read_known
from two_tower.embedding._partial import Known, PartialEmbedding
from two_tower.embedding.reading.open import open_vectors
from two_tower.errors import UserError
from two_tower.tokenizer.base import Tokenizer

__all__ = ["PretrainedEmbedding"]


class PretrainedEmbedding(PartialEmbedding):
    """Vectors of a file for the words that it has.

    Args:
        path: GloVe text, word2vec text or binary (these also ``.gz``), ``.npy``, ``.pth`` or safetensors.
        vocabulary: for the formats without words, the words of the rows: a text file with one on each line, or
            JSON with a list of words or a mapping between words and rows.
        tensor: the name of the matrix in a ``.pth`` or safetensors file, where several have a row per word.
        dim: dimensions of a word vector if there are to be more than the file's; see `PartialEmbedding`.
        missing: what words without a vector start as: ``random``, ``mean`` or ``zero``.
        normalise: centre the file's vectors and scale them to length 1.
        weights: initial token weights, ``idf`` or ``uniform``.
        freeze: see `two_tower.embedding.base.Embedding`.

    Raises:
        UserError: there is no such file, it cannot be read safely, or an argument does not fit it.
    """

    def __init__(
        self,
        path: str | None = None,
        vocabulary: str | None = None,
        tensor: str | None = None,
        dim: int | None = None,
        missing: str = "random",
        normalise: bool = False,
        weights: str = "idf",
        freeze: bool | int = False,
    ) -> None:
        if path is None:
            raise UserError("embedding=pretrained needs a file of word vectors: add embedding.path=FILE.")
        self.file = open_vectors(Path(path), Path(vocabulary) if vocabulary else None, tensor)
        super().__init__(path, self.file.dim, dim, missing, normalise, weights, freeze)

    def known(self, tokenizer: Tokenizer, corpus: Corpus) -> Known:
        """See `PartialEmbedding.known`."""
        return read_known(self.file, tokenizer)
