"""Gradient caching: a large batch in the memory of a small one, with the same gradients.

A loss over many texts needs all their vectors at once, but not all that led to them. So the texts are encoded in
chunks, and of each only the vectors are kept; the backward pass encodes a chunk again when its gradient is there
(Gao et al. 2021, arXiv:2101.06983). It is an ordinary step of a graph, so automatic optimization, clipping and
gradient accumulation know nothing of it.

`torch.utils.checkpoint` does not do it here. Its reentrant form encodes without gradients, for which the recurrent
towers have another path (other dropout, perhaps bfloat16), so the loss would be that of other vectors; the other
form drops saved tensors only, and their loops keep what they need beside those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import get_device_states, set_device_states

from two_tower.ragged import Ragged

__all__ = ["encode_in_chunks"]


def encode_in_chunks(tower: nn.Module, tokens: Ragged, size: int | None) -> Tensor:
    """``tower(tokens)``, with the activations of ``size`` texts at a time.

    Gradients are those of the chunks encoded one after another, dropout included, up to the order in which they
    are summed. Those of word tables stay sparse.

    Args:
        tower: texts → vectors, each text by itself.
        tokens: B texts.
        size: texts of a chunk; None encodes all together, as happens without gradients in any case.

    Returns:
        (B, D), of the tower's type.
    """
    if size is None or len(tokens) <= size or not torch.is_grad_enabled():
        return tower(tokens)
    return _Chunks.apply(tower, tokens, size, *(p for p in tower.parameters() if p.requires_grad))


class _Chunks(torch.autograd.Function):
    """See `encode_in_chunks`; the parameters are arguments so that their gradients have a way out."""

    @staticmethod
    def forward(ctx: Any, tower: nn.Module, tokens: Ragged, size: int, *parameters: Tensor) -> Tensor:  # noqa: ANN401
        chunks = [tokens.slice(first, min(first + size, len(tokens))) for first in range(0, len(tokens), size)]
        ctx.save_for_backward(*parameters)
        ctx.tower, ctx.chunks, ctx.size, ctx.chance = tower, chunks, size, []
        ctx.autocast = _autocast(tokens.device.type)
        vectors = []
        for chunk in chunks:
            ctx.chance.append((torch.get_rng_state(), *get_device_states(chunk.ids)))
            with torch.enable_grad():  # as the backward pass encodes it
                vectors.append(tower(chunk).detach())
        return torch.cat(vectors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BD: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        total: list[Tensor | None] = [None] * len(ctx.saved_tensors)
        devices = ctx.chance[0][1]
        with torch.random.fork_rng(devices):  # what is drawn next does not depend on what is drawn again
            for chunk, (state, _, states), grad in zip(ctx.chunks, ctx.chance, grad_BD.split(ctx.size), strict=True):
                torch.set_rng_state(state)
                set_device_states(devices, states)
                with torch.autocast(**ctx.autocast):
                    grads = _gradients(ctx.tower, chunk, grad, ctx.saved_tensors)
                total = [_sum(*pair) for pair in zip(total, grads, strict=True)]
        return None, None, None, *total


def _gradients(
    tower: nn.Module, chunk: Ragged, grad_BD: Tensor, parameters: Sequence[Tensor]
) -> Sequence[Tensor | None]:
    """The gradients of the parameters from those of a chunk's vectors; the activations end with this function."""
    with torch.enable_grad():
        vectors = tower(chunk)
    if not vectors.requires_grad:  # none of its texts has a token
        return [None] * len(parameters)
    return torch.autograd.grad(vectors, parameters, grad_BD, allow_unused=True)


def _sum(total: Tensor | None, grad: Tensor | None) -> Tensor | None:
    """Two coalesced sparse gradients are merged by row, so their sum does not grow with the number of chunks."""
    if total is None or grad is None:
        return grad if total is None else total
    total = total + grad
    return total.coalesce() if total.is_sparse else total


def _autocast(device_type: str) -> dict[str, Any]:
    """The mixed precision in use, as arguments of `torch.autocast`; a backward pass begins without."""
    return {
        "device_type": device_type,
        "enabled": torch.is_autocast_enabled(device_type),
        "dtype": torch.get_autocast_dtype(device_type),
        "cache_enabled": torch.is_autocast_cache_enabled(),
    }
