"""Random word vectors: no download, and with idf weights a hash of tf-idf from the first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from two_tower.data.stream.corpus import Corpus
from two_tower.embedding.base import Embedding, Further, drawn
from two_tower.tokenizer.base import Tokenizer


class RandomEmbedding(Embedding, Further):
    """Vectors drawn from a normal distribution, of unit length on average: nearly orthogonal, they tell words apart."""

    needs_map = False

    def vectors(self, tokenizer: Tokenizer, corpus: Corpus) -> Tensor:
        self.origin = {}
        return torch.randn(len(tokenizer), self.dim) * self.dim**-0.5

    def further(self, words: Sequence[str], origin: Mapping[str, Tensor]) -> Tensor:
        return drawn(words, self.dim) * self.dim**-0.5
