"""From the states (T, M) of all tokens to one vector per text, (B, M): plain torch, on any device.

A text without tokens gives zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor

from two_tower.ragged import Ragged


def _texts(tokens: Ragged) -> Tensor:
    """(T,) int64, the text of each token."""
    return torch.repeat_interleave(torch.arange(len(tokens), device=tokens.device), tokens.lengths)


def _sums(states: Tensor, texts: Tensor, count: int) -> Tensor:
    return states.new_zeros(count, *states.shape[1:]).index_add(0, texts, states)


def _at(states: Tensor, places: Tensor, tokens: Ragged) -> Tensor:
    """The states at ``places`` (B,)."""
    real = tokens.lengths > 0
    out = states.new_zeros(len(tokens), states.shape[1])
    return out.masked_scatter(real.unsqueeze(1), states.index_select(0, places[real]))


def last(states: Tensor, tokens: Ragged) -> Tensor:
    """The state of each text's last token."""
    return _at(states, tokens.offsets[1:] - 1, tokens)


def first(states: Tensor, tokens: Ragged) -> Tensor:
    """The state of each text's first token."""
    return _at(states, tokens.offsets[:-1], tokens)


def mean(states: Tensor, tokens: Ragged) -> Tensor:
    """The mean over each text's tokens."""
    return _sums(states, _texts(tokens), len(tokens)) / tokens.lengths.clamp(min=1).unsqueeze(1)


def largest(states: Tensor, tokens: Ragged) -> Tensor:
    """Each dimension's maximum over a text's tokens."""
    texts = _texts(tokens).unsqueeze(1).expand_as(states)
    return states.new_zeros(len(tokens), states.shape[1]).scatter_reduce(0, texts, states, "amax", include_self=False)


def attention(states: Tensor, tokens: Ragged, scores: Tensor) -> Tensor:
    """The mean over each text's tokens, weighted by the softmax of ``scores`` (T,) over the text."""
    texts = _texts(tokens)
    top = scores.detach().new_zeros(len(tokens)).scatter_reduce(0, texts, scores.detach(), "amax", include_self=False)
    weights = (scores - top[texts]).exp()
    total = _sums(weights, texts, len(tokens)).clamp(min=torch.finfo(weights.dtype).tiny)
    return _sums(states * weights.unsqueeze(1), texts, len(tokens)) / total.unsqueeze(1)
