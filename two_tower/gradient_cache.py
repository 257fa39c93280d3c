"""Gradient caching: a large batch in the memory of a small one, with the same gradients.

Texts are encoded in chunks that keep only their vectors, and the backward pass encodes each chunk again when it has
its gradient (Gao et al. 2021, arXiv:2101.06983). `torch.utils.checkpoint` cannot do it: its reentrant form encodes
without gradients, where the recurrent towers take another path (other dropout, perhaps bfloat16), so the loss would see
other vectors. The other form drops saved tensors only, and the towers' compiled loops keep their activations elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import get_device_states, set_device_states

from two_tower.ragged import Ragged

Grad: TypeAlias = Tensor | None


def encode_in_chunks(tower: nn.Module, tokens: Ragged, size: int | None) -> Tensor:
    """``tower(tokens)``, (B, D), with the activations of ``size`` texts at a time.

    The gradients equal those of the chunks encoded one after another, dropout included, up to the order of the sums.
    Those of word tables stay sparse. With ``size=None``, or without gradients, all texts are encoded together.
    """
    if size is None or len(tokens) <= size or not torch.is_grad_enabled():
        return tower(tokens)
    return _Chunks.apply(tower, tokens, size, *(p for p in tower.parameters() if p.requires_grad))


class _Chunks(torch.autograd.Function):
    # The parameters are arguments because autograd takes gradients of arguments only.
    @staticmethod
    def forward(ctx: Any, tower: nn.Module, tokens: Ragged, size: int, *parameters: Tensor) -> Tensor:  # noqa: ANN401
        chunks = [tokens.slice(first, min(first + size, len(tokens))) for first in range(0, len(tokens), size)]
        ctx.save_for_backward(*parameters)
        ctx.tower, ctx.chunks, ctx.size, ctx.rng_states = tower, chunks, size, []
        kind = tokens.device.type
        ctx.autocast = {  # arguments of torch.autocast: a backward pass starts without mixed precision
            "device_type": kind,
            "enabled": torch.is_autocast_enabled(kind),
            "dtype": torch.get_autocast_dtype(kind),
            "cache_enabled": torch.is_autocast_cache_enabled(),
        }
        vectors = []
        for chunk in chunks:
            ctx.rng_states.append((torch.get_rng_state(), *get_device_states(chunk.ids)))
            with torch.enable_grad():  # as the backward pass encodes it
                vectors.append(tower(chunk).detach())
        return torch.cat(vectors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BD: Tensor) -> tuple[Grad, ...]:  # noqa: ANN401
        total: list[Grad] = [None] * len(ctx.saved_tensors)
        devices = ctx.rng_states[0][1]
        with torch.random.fork_rng(devices):  # the repeated draws must not move the generator
            for chunk, state, grad in zip(ctx.chunks, ctx.rng_states, grad_BD.split(ctx.size), strict=True):
                torch.set_rng_state(state[0])
                set_device_states(devices, state[2])
                with torch.autocast(**ctx.autocast):
                    grads = _gradients(ctx.tower, chunk, grad, ctx.saved_tensors)
                total = [_sum(*pair) for pair in zip(total, grads, strict=True)]
        return None, None, None, *total


def _gradients(tower: nn.Module, chunk: Ragged, grad_BD: Tensor, parameters: Sequence[Tensor]) -> Sequence[Grad]:
    # The activations of the chunk are freed when this function returns.
    with torch.enable_grad():
        vectors = tower(chunk)
    if not vectors.requires_grad:  # no text of the chunk has a token
        return [None] * len(parameters)
    return torch.autograd.grad(vectors, parameters, grad_BD, allow_unused=True)


def _sum(total: Grad, grad: Grad) -> Grad:
    if total is None or grad is None:
        return grad if total is None else total
    total = total + grad
    return total.coalesce() if total.is_sparse else total  # so that it does not grow with the number of chunks
