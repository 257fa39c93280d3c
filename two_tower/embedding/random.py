"""Random word vectors: no download, and with idf weights a hash of tf-idf from the first step."""

from __future__ import annotations

import torch
from torch import Tensor

from two_tower.data.stream.corpus import Corpus
from two_tower.embedding.base import Embedding
from two_tower.tokenizer.base import Tokenizer


class RandomEmbedding(Embedding):
    """Vectors drawn from a normal distribution, of unit length on average: nearly orthogonal, they tell words apart."""

    def vectors(self, tokenizer: Tokenizer, corpus: Corpus) -> Tensor:
        return torch.randn(len(tokenizer), self.dim) * self.dim**-0.5
