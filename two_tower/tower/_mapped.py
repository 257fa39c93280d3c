"""Word vectors that share what they learn."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from two_tower.ragged import Ragged
from two_tower.tower._lookup import pool
from two_tower.tower.base import WordTable, word_tables


class MappedWords(WordTable):
    """``W T_i + D_i`` as the vector of word i: one linear map of its first vector, and what it has of its own.

    What a word table learns for itself holds for the passages of training, what all words share holds for others too
    (docs/embeddings.md). ``start`` is T, (V, D), and stays; ``map`` is W, (D, D), and starts as the identity;
    ``vectors`` is D, starts as zeros and is kept small by `add_pull`. A step costs the same with any number of words:
    pooling is linear, so T and D are pooled by themselves and W multiplies a vector per text.
    """

    def __init__(self, vocabulary_size: int, dim: int, pull: float) -> None:
        super().__init__(vocabulary_size, dim)
        self.pull = pull
        self.start: Tensor
        self.register_buffer("start", torch.zeros(vocabulary_size, dim))
        self.map = nn.Parameter(torch.eye(dim))

    @torch.no_grad()
    def initialize(
        self, vectors: Tensor, weights: Tensor | None, pretrained_dims: int = 0, coverage: float | None = None
    ) -> None:
        super().initialize(torch.zeros_like(vectors), weights, pretrained_dims, coverage)
        self.start.copy_(vectors)

    def freeze(self, frozen: bool = True) -> None:
        super().freeze(frozen)
        self.map.requires_grad_(not frozen)

    def pool(self, tokens: Ragged) -> Tensor:
        shared, own = (pool(tokens, table, self.log_weights) for table in (self.start, self.vectors))
        return F.linear(shared, self.map) + own

    def lookup(self, ids: Tensor) -> Tensor:
        return F.linear(self.start[ids.long()], self.map) + super().lookup(ids)

    @torch.no_grad()
    def add_pull(self, grad: Tensor) -> Tensor:
        """Add the gradient of ``pull`` times the mean of |D_i|² over ``grad``'s rows; returns the number itself.

        ``grad`` is the coalesced gradient of ``vectors``, so only words of the batch are pulled. As a part of the loss
        it would be a sparse gradient more for autograd to sum, which takes longer than all the rest of a step.
        """
        own = self.vectors[grad.indices()[0]]
        factor = self.pull / max(1, len(own))
        grad.values().add_(own, alpha=2 * factor)
        return factor * torch.linalg.vector_norm(own).square()

    @torch.no_grad()
    def whole(self) -> Tensor:
        """The words' vectors, (V, D)."""
        return torch.addmm(self.vectors, self.start, self.map.T)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401
        if f"{prefix}start" not in state_dict and f"{prefix}vectors" in state_dict:  # of a finished run: a first vector
            vectors = state_dict[f"{prefix}vectors"]
            state_dict |= {f"{prefix}start": vectors, f"{prefix}vectors": torch.zeros_like(vectors)}
            state_dict[f"{prefix}map"] = torch.eye(vectors.shape[1])
        super()._load_from_state_dict(state_dict, prefix, *args)


def fold(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give a module's ``state`` ordinary word tables, with the words' vectors whole; returns the maps by table."""
    whole = {id(table): table.whole() for table in word_tables(module).values() if isinstance(table, MappedWords)}
    maps = {}
    for name, table in module.named_modules(remove_duplicate=False):
        if id(table) in whole:
            state[f"{name}.vectors"], maps[name] = whole[id(table)], state.pop(f"{name}.map")
            del state[f"{name}.start"]
    return maps
