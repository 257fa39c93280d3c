"""The word table of a tower: one vector per word, perhaps one learned weight, gradients only for used rows."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from two_tower.ragged import Ragged
from two_tower.tower._kernels import (
    distinct_rows,
    group_by_row,
    in_parts,
    number_rows,
    pool_gradients,
    pool_rows,
    sum_rows,
)

__all__ = ["WordTable", "lookup", "pool", "word_tables"]


def _arrays(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    """The same memory as NumPy arrays."""
    return tuple(t.detach().numpy() for t in tensors)


def _sparse(rows: Tensor, values: Tensor, size: tuple[int, ...]) -> Tensor:
    """A coalesced sparse gradient: ``rows`` (R,) ascending and distinct, ``values`` (R, …)."""
    return torch.sparse_coo_tensor(rows.unsqueeze(0), values, size, is_coalesced=True, check_invariants=False)


def _grouped(ids: np.ndarray, offsets: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct ids (R,), where the tokens of each start (R + 1,), and the texts of these (T,)."""
    rows = distinct_rows(ids, np.zeros(size, np.bool_))
    return rows, *group_by_row(ids, offsets, rows, np.empty(size, np.int32))


class _Pool(torch.autograd.Function):
    """Weighted mean of word vectors on the CPU with coalesced sparse gradients (see `pool`)."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, offsets: Tensor, vectors: Tensor, log_weights: Tensor) -> Tensor:  # noqa: ANN401
        out, total = torch.empty(len(offsets) - 1, vectors.shape[1]), torch.empty(len(offsets) - 1)
        ctx.save_for_backward(ids, offsets, vectors, log_weights, out, total)
        # NumPy, and only the tokens' weights: torch would split the exponentials among its threads, and the
        # wait for a busy core took 8 ms; those of 400,000 words would take longer than to pool a query.
        tokens, starts, table, logs, means, sums = _arrays(ids, offsets, vectors, log_weights, out, total)
        weights = np.exp(logs.take(tokens))
        in_parts(lambda a, b: pool_rows(tokens, starts, a, b, table, weights, means, sums), starts)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BD: Tensor) -> tuple:  # noqa: ANN401
        ids, offsets, vectors, log_weights, out, total = _arrays(*ctx.saved_tensors)
        (grads,) = _arrays(grad_BD.contiguous())
        scale = np.divide(1, total, out=np.zeros_like(total), where=total > 0)
        pull = np.einsum("bd,bd->b", out, grads)
        rows, starts, texts = _grouped(ids, offsets, len(vectors))
        factors = scale.take(texts)
        weights = np.exp(log_weights.take(rows))
        grad_vectors, grad_weights = np.empty((len(rows), vectors.shape[1]), np.float32), np.empty_like(weights)
        inputs, outputs = (grads, factors, pull, vectors, weights), (grad_vectors, grad_weights)
        in_parts(lambda a, b: pool_gradients(rows, starts, texts, a, b, *inputs, *outputs), starts)
        used = torch.from_numpy(rows)
        needed = zip(ctx.needs_input_grad[2:], outputs, (vectors.shape, log_weights.shape), strict=True)
        sparse = [_sparse(used, torch.from_numpy(grad), size) if need else None for need, grad, size in needed]
        return None, None, *sparse


class _Lookup(torch.autograd.Function):
    """The rows of the tokens with a coalesced sparse gradient, on any device (see `lookup`)."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, table: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(ids)
        ctx.size = table.shape
        return table[ids.long()]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:  # noqa: ANN401
        (ids,) = ctx.saved_tensors
        if grad.dim() == 2 and _on_cpu(grad := grad.contiguous()):
            return None, _lookup_gradient(ids.numpy(), grad.numpy(), ctx.size)
        used, place = torch.unique(ids.long(), return_inverse=True)
        summed = grad.new_zeros((len(used), *ctx.size[1:])).index_add_(0, place, grad)
        return None, _sparse(used, summed, ctx.size)


def _lookup_gradient(ids: np.ndarray, grads: np.ndarray, size: torch.Size) -> Tensor:
    """The gradients ``grads`` (T, D) of the tokens summed per row: each token is a text of its own."""
    rows, starts, tokens = _grouped(ids, np.arange(len(ids) + 1), size[0])
    out, ones = np.empty((len(rows), grads.shape[1]), np.float32), np.ones(len(ids), np.float32)
    in_parts(lambda a, b: sum_rows(starts, tokens, a, b, grads, ones, out), starts)
    return _sparse(torch.from_numpy(rows), torch.from_numpy(out), size)


def _on_cpu(vectors: Tensor) -> bool:
    return vectors.device.type == "cpu" and vectors.dtype == torch.float32 and vectors.is_contiguous()


def pool(tokens: Ragged, vectors: Tensor, log_weights: Tensor) -> Tensor:
    """Weighted mean of each text's word vectors, the weights being ``exp(log_weights)``.

    The backward pass gives sparse gradients that hold only the rows which the batch used: with 400,000
    words a dense gradient alone would cost some ten times the rest of a training step.

    Args:
        tokens: B texts.
        vectors: (V, D) float table.
        log_weights: (V,) float.

    Returns:
        (B, D); a text without tokens gives zeros. Bit-equal whatever the batch and the thread count
        (CPU, float32).
    """
    if _on_cpu(vectors):
        return _Pool.apply(tokens.ids, tokens.offsets, vectors, log_weights)
    ids, offsets = tokens.ids.long(), tokens.offsets
    weights = _Lookup.apply(ids, log_weights).exp()
    summed = F.embedding_bag(
        ids, vectors, offsets[:-1], mode="sum", per_sample_weights=weights.to(vectors.dtype), sparse=True
    )
    text = torch.repeat_interleave(torch.arange(len(tokens), device=ids.device), tokens.lengths)
    total = torch.zeros(len(tokens), device=ids.device, dtype=weights.dtype).index_add(0, text, weights)
    return summed / total.clamp(min=torch.finfo(total.dtype).tiny).unsqueeze(1).to(summed.dtype)


def lookup(ids: Tensor, vectors: Tensor) -> Tensor:
    """The vectors of the tokens ``ids`` (T,), as (T, D); sparse gradient with the used rows only."""
    return _Lookup.apply(ids, vectors)


class WordTable(nn.Module):
    """Word vectors and log token weights, the parameters that an optimizer steps row by row.

    Args:
        vocabulary_size: V.
        dim: D.

    Attributes:
        vectors: (V, D) float32 parameter.
        log_weights: (V,) float32 parameter.
        informed: how many dimensions, the first ones, come from elsewhere; 0 for none.
        coverage: share of the corpus' tokens whose word got a vector from elsewhere; None where none did.
    """

    def __init__(self, vocabulary_size: int, dim: int) -> None:
        super().__init__()
        self.informed, self.coverage = 0, cast(float | None, None)
        self.vectors = nn.Parameter(torch.zeros(vocabulary_size, dim))
        self.log_weights = nn.Parameter(torch.zeros(vocabulary_size))
        for parameter in self.parameters():
            parameter.is_word_table = True  # type: ignore[attr-defined]

    @torch.no_grad()
    def initialise(self, vectors: Tensor, weights: Tensor | None) -> None:
        """Start from ``vectors`` (V, D) and ``weights`` (V,) > 0; without weights every token counts 1."""
        self.vectors.copy_(vectors)
        self.log_weights.copy_(torch.zeros_like(self.log_weights) if weights is None else weights.log())

    def freeze(self, frozen: bool = True) -> None:
        """Keep the vectors (not the token weights) as they are."""
        self.vectors.requires_grad_(not frozen)

    def pool(self, tokens: Ragged) -> Tensor:
        """Weighted mean of each text's vectors, (B, D)."""
        return pool(tokens, self.vectors, self.log_weights)

    def lookup(self, ids: Tensor) -> Tensor:
        """The tokens' vectors, (T, D)."""
        return lookup(ids, self.vectors)

    def distinct(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Each word of ``ids`` (T,) once: the vectors (R, D), and the row among them of each token, (T,) integers."""
        if _on_cpu(self.vectors):
            used, rows = map(torch.from_numpy, number_rows(ids.numpy(), np.full(len(self.vectors), -1, np.int32)))
        else:
            used, rows = torch.unique(ids.long(), return_inverse=True)
        return self.lookup(used), rows


def word_tables(module: nn.Module) -> dict[str, WordTable]:
    """The word tables within a module, by name."""
    return {name: table for name, table in module.named_modules() if isinstance(table, WordTable)}
