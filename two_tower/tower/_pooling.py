"""From the vectors of a text's tokens to one vector, without padding: plain torch, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from two_tower.ragged import Ragged

__all__ = ["attention", "first", "largest", "last", "mean"]


def _texts(tokens: Ragged) -> Tensor:
    """(T,) int64, the text of each token."""
    return torch.repeat_interleave(torch.arange(len(tokens), device=tokens.device), tokens.lengths)


def _sums(states: Tensor, texts: Tensor, count: int) -> Tensor:
    return states.new_zeros(count, *states.shape[1:]).index_add(0, texts, states)


def _at(states: Tensor, places: Tensor, tokens: Ragged) -> Tensor:
    """The states at ``places`` (B,); zeros for texts without tokens."""
    kept = tokens.lengths > 0
    out = states.new_zeros(len(tokens), states.shape[1])
    return out.masked_scatter(kept.unsqueeze(1), states.index_select(0, places[kept]))


def last(states: Tensor, tokens: Ragged) -> Tensor:
    """The vector of each text's last token: ``states`` (T, M) → (B, M), zeros for a text without tokens."""
    return _at(states, tokens.offsets[1:] - 1, tokens)


def first(states: Tensor, tokens: Ragged) -> Tensor:
    """The vector of each text's first token: ``states`` (T, M) → (B, M), zeros for a text without tokens."""
    return _at(states, tokens.offsets[:-1], tokens)


def mean(states: Tensor, tokens: Ragged) -> Tensor:
    """The mean over each text's tokens: ``states`` (T, M) → (B, M), zeros for a text without tokens."""
    return _sums(states, _texts(tokens), len(tokens)) / tokens.lengths.clamp(min=1).unsqueeze(1)


def largest(states: Tensor, tokens: Ragged) -> Tensor:
    """Each dimension's maximum over a text's tokens: (T, M) → (B, M), zeros for a text without tokens."""
    texts = _texts(tokens).unsqueeze(1).expand_as(states)
    return states.new_zeros(len(tokens), states.shape[1]).scatter_reduce(0, texts, states, "amax", include_self=False)


def attention(states: Tensor, tokens: Ragged, scores: Tensor) -> Tensor:
    """The mean of each text's states, weighted by the softmax of ``scores`` (T,) over the text: (T, M) → (B, M)."""
    texts = _texts(tokens)
    top = scores.detach().new_zeros(len(tokens)).scatter_reduce(0, texts, scores.detach(), "amax", include_self=False)
    weights = (scores - top[texts]).exp()
    total = _sums(weights, texts, len(tokens)).clamp(min=torch.finfo(weights.dtype).tiny)
    return _sums(states * weights.unsqueeze(1), texts, len(tokens)) / total.unsqueeze(1)
