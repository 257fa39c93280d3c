"""What a tower is, the table of word vectors that it is given, and how it makes one vector of a text's states."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from two_tower.ragged import Ragged
from two_tower.tower._lookup import Lookup, number_rows, on_cpu, pool


class Tower(nn.Module, ABC):
    """Maps texts to vectors. A text's vector depends on that text alone.

    A tower whose constructor has a parameter called ``words`` is given the run's `WordTable`, and may keep it under
    any name. All other parameters are keys of its YAML file. docs/towers.md shows a complete tower of your own.
    """

    # Whether several threads may encode different texts at once, each on one core; one batch may use all cores itself.
    parallel_by_text: ClassVar[bool] = False
    special_tokens: ClassVar[bool] = False  # whether it expects those that a tokenizer of pieces puts around a text

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @abstractmethod
    def forward(self, tokens: Ragged) -> Tensor:
        """Vectors (B, D) float32 of B texts; zeros for a text without tokens."""


class WordTable(nn.Module):
    """A vector and a token weight for each of V words.

    Gradients are sparse: the rows of the batch. ``is_word_table`` on both parameters: the optimizer steps row by row.
    """

    pretrained_dims: int = 0  # leading dimensions copied from pretrained vectors
    coverage: float | None = None  # share of the corpus' tokens whose word has a pretrained vector, if there are any
    spelling: Sequence[str] = ()  # the V words, "" for the unknown one; for towers that read it

    def __init__(self, vocabulary_size: int, dim: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(vocabulary_size, dim))
        self.log_weights = nn.Parameter(torch.zeros(vocabulary_size))  # so that weights stay positive
        for parameter in self.parameters():
            parameter.is_word_table = True  # type: ignore[attr-defined]

    @torch.no_grad()
    def initialize(
        self, vectors: Tensor, weights: Tensor | None, pretrained_dims: int = 0, coverage: float | None = None
    ) -> None:
        """Start from ``vectors`` (V, D) and ``weights`` (V,) > 0; without weights every token counts 1."""
        self.vectors.copy_(vectors)
        self.log_weights.copy_(torch.zeros_like(self.log_weights) if weights is None else weights.log())
        self.pretrained_dims, self.coverage = pretrained_dims, coverage

    def freeze(self, frozen: bool = True) -> None:
        """Keep the vectors (not the token weights) as they are."""
        self.vectors.requires_grad_(not frozen)

    def pool(self, tokens: Ragged) -> Tensor:
        """Weighted mean of each text's vectors, (B, D); zeros for a text without tokens."""
        return pool(tokens, self.vectors, self.log_weights)

    def lookup(self, ids: Tensor) -> Tensor:
        """The tokens' vectors: ``ids`` (T,) → (T, D)."""
        return Lookup.apply(ids, self.vectors)

    def distinct(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Each word of ``ids`` (T,) once: the vectors (R, D), and the row among them of each token, (T,) integers."""
        if on_cpu(self.vectors):
            used, rows = map(torch.from_numpy, number_rows(ids.numpy(), len(self.vectors)))
        else:
            used, rows = torch.unique(ids.long(), return_inverse=True)
        return self.lookup(used), rows


def word_tables(module: nn.Module) -> dict[str, WordTable]:
    """The word tables within a module, by name."""
    return {name: table for name, table in module.named_modules() if isinstance(table, WordTable)}


def padded(values: Tensor, tokens: Ragged, fill: float = 0) -> tuple[Tensor, Tensor]:
    """One row per text, for networks that need a rectangle: ``values`` (T, …) as (B, L, …), ``fill`` behind each text.

    Also returns the mask (B, L) bool of real tokens: ``rows[mask]`` are the values again.
    """
    longest = int(tokens.lengths.max()) if len(tokens) else 0
    mask = torch.arange(max(1, longest), device=tokens.device) < tokens.lengths.unsqueeze(1)
    rows = values.new_full((*mask.shape, *values.shape[1:]), fill)
    rows[mask] = values
    return rows, mask


# From the states (T, M) of all tokens to one vector per text, (B, M): plain torch, on any device, without padding.
# A text without tokens gives zeros.


def _texts(tokens: Ragged) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(tokens), device=tokens.device), tokens.lengths)


def _sums(states: Tensor, texts: Tensor, count: int) -> Tensor:
    return states.new_zeros(count, *states.shape[1:]).index_add(0, texts, states)


def _at(states: Tensor, places: Tensor, tokens: Ragged) -> Tensor:
    real = tokens.lengths > 0
    out = states.new_zeros(len(tokens), states.shape[1])
    return out.masked_scatter(real.unsqueeze(1), states.index_select(0, places[real]))


def last_state(states: Tensor, tokens: Ragged) -> Tensor:
    """The state of each text's last token."""
    return _at(states, tokens.offsets[1:] - 1, tokens)


def first_state(states: Tensor, tokens: Ragged) -> Tensor:
    """The state of each text's first token."""
    return _at(states, tokens.offsets[:-1], tokens)


def mean_state(states: Tensor, tokens: Ragged) -> Tensor:
    """The mean over each text's tokens."""
    return _sums(states, _texts(tokens), len(tokens)) / tokens.lengths.clamp(min=1).unsqueeze(1)


def largest_state(states: Tensor, tokens: Ragged) -> Tensor:
    """Each dimension's maximum over a text's tokens."""
    texts = _texts(tokens).unsqueeze(1).expand_as(states)
    return states.new_zeros(len(tokens), states.shape[1]).scatter_reduce(0, texts, states, "amax", include_self=False)


def attention_mean(states: Tensor, tokens: Ragged, scores: Tensor) -> Tensor:
    """The mean over each text's tokens, weighted by the softmax of ``scores`` (T,) over the text."""
    texts = _texts(tokens)
    top = scores.detach().new_zeros(len(tokens)).scatter_reduce(0, texts, scores.detach(), "amax", include_self=False)
    weights = (scores - top[texts]).exp()
    total = _sums(weights, texts, len(tokens)).clamp(min=torch.finfo(weights.dtype).tiny)
    return _sums(states * weights.unsqueeze(1), texts, len(tokens)) / total.unsqueeze(1)
