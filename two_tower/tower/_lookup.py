"""Looking up word vectors on the CPU, and the gradients of it: the hot loops of word tables.

Numba without ``prange``: its thread pool may not be entered from several Python threads at once, and encoding does
just that. `in_token_parts` makes threads instead, and the loops release the GIL. One thread sums an output row in
token order, so the result is the same bits at any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeAlias

import numba
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from two_tower.ragged import Ragged
from two_tower.threads import each

Array: TypeAlias = np.ndarray

# What the compiler may do to float32 sums to make vector instructions of them; NaN and infinity keep their meaning.
FAST = {"contract", "reassoc"}

# Below this many tokens a second thread costs more than it gains (a hand-over is about 30 µs).
PARALLEL_TOKENS = 20_000


def in_token_parts(work: Callable[[int, int], None], ends: Array) -> None:
    """Call ``work(first, last)``, which must release the GIL, on consecutive items, on as many threads as torch uses.

    ``ends`` (I + 1,) are ascending token positions of the items; each part gets about equally many tokens.
    """
    items, tokens = len(ends) - 1, int(ends[-1] - ends[0])
    parts = min(torch.get_num_threads(), items)
    if parts <= 1 or tokens < PARALLEL_TOKENS:
        work(0, items)
        return
    cuts = np.searchsorted(ends, ends[0] + tokens * np.arange(1, parts) / parts)
    each(lambda part: work(*part), pairwise([0, *cuts.tolist(), items]))


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _weighted_sum(rows: Array, factors: Array, table: Array, out: Array) -> None:
    """``out = sum_k factors[k] * table[rows[k]]``.

    Four rows at a time: the sum is loaded and stored a quarter as often, and four rows of the table are on
    their way from memory together (60,000 texts of 62 tokens: 76 ms instead of 125; eight gain nothing more).
    """
    for j in range(len(out)):
        out[j] = 0
    whole = len(rows) - len(rows) % 4
    for k in range(0, whole, 4):
        f0, f1, f2, f3 = factors[k], factors[k + 1], factors[k + 2], factors[k + 3]
        r0, r1, r2, r3 = table[rows[k]], table[rows[k + 1]], table[rows[k + 2]], table[rows[k + 3]]
        for j in range(len(out)):
            out[j] += f0 * r0[j] + f1 * r1[j] + f2 * r2[j] + f3 * r3[j]
    for k in range(whole, len(rows)):
        f, r = factors[k], table[rows[k]]
        for j in range(len(out)):
            out[j] += f * r[j]


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def pool_rows(
    ids: Array, offsets: Array, first: int, last: int, vectors: Array, weights: Array, means: Array, totals: Array
) -> None:
    """Texts ``first`` to ``last``: ``means[b] = sum_t w_t v_t / W_b`` and ``totals[b] = W_b = sum_t w_t``.

    Tokens ``ids`` (T,) with float32 ``weights`` (T,) look rows of ``vectors`` (V, D) up; an empty text gives zeros.
    """
    for b in range(first, last):
        row, counts = means[b], weights[offsets[b] : offsets[b + 1]]
        _weighted_sum(ids[offsets[b] : offsets[b + 1]], counts, vectors, row)
        total = np.float32(0)
        for w in counts:
            total += w
        totals[b] = total
        if total > 0:
            scale = np.float32(1) / total
            for j in range(len(row)):
                row[j] *= scale


def _distinct_rows(ids: Array, size: int) -> Array:
    """The distinct values of ``ids``, all below ``size``: ascending, int64."""
    used = np.zeros(size, np.bool_)
    used[ids] = True
    return np.flatnonzero(used)


@numba.njit(nogil=True, cache=True)
def number_rows(ids: Array, size: int) -> tuple[Array, Array]:
    """The distinct ids (R,) int64 < ``size``, the first to occur first, and which of them each token is, (T,) int32."""
    distinct, place, n = np.empty(len(ids), np.int64), np.empty(len(ids), np.int32), 0
    position = np.full(size, -1, np.int32)
    for t in range(len(ids)):
        i = ids[t]
        if position[i] < 0:
            position[i] = n
            distinct[n] = i
            n += 1
        place[t] = position[i]
    return distinct[:n], place


@numba.njit(nogil=True, cache=True)
def _group_by_row(ids: Array, offsets: Array, distinct: Array, size: int) -> tuple[Array, Array]:
    """Sort tokens by their row (a counting sort), keeping token order within a row.

    ``distinct`` (R,) holds the ids' distinct values, ascending and below ``size``. Returns (R + 1,) int64, where each
    row's tokens start, and (T,) int32, the text of each of them.
    """
    starts, position = np.zeros(len(distinct) + 1, np.int64), np.empty(size, np.int32)
    for k in range(len(distinct)):
        position[distinct[k]] = k
    for i in ids:
        starts[position[i] + 1] += 1
    for k in range(len(distinct)):
        starts[k + 1] += starts[k]
    texts = np.empty(len(ids), np.int32)
    fill = starts[:-1].copy()
    for b in range(len(offsets) - 1):
        for t in range(offsets[b], offsets[b + 1]):
            k = position[ids[t]]
            texts[fill[k]] = b
            fill[k] += 1
    return starts, texts


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _sum_rows(starts: Array, texts: Array, first: int, last: int, grads: Array, factors: Array, out: Array) -> None:
    """``out[r] = sum_k factors[k] * grads[texts[k]]`` over the tokens k of rows ``first`` to ``last``.

    ``starts`` and ``texts`` as `_group_by_row` gives them; grads (B, D), factors (T,) and out (R, D) are float32.
    """
    for r in range(first, last):
        tokens = slice(starts[r], starts[r + 1])
        _weighted_sum(texts[tokens], factors[tokens], grads, out[r])


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _pool_gradients(
    rows: Array, starts: Array, texts: Array, first: int, last: int,
    grads: Array, scale: Array, pull: Array, vectors: Array, weights: Array, grad_vectors: Array, grad_weights: Array,
) -> None:  # fmt: skip
    """The derivative of `pool_rows`, summed over the tokens of each row i; g_b is the gradient of mean m_b.

        d v_i      =  w_i sum_b g_b / W_b
        d log w_i  =  w_i sum_b g_b · (v_i - m_b) / W_b  =  v_i · d v_i - w_i sum_b (g_b · m_b) / W_b

    So the weights need no more than one dot product per row. ``grads`` (B, D) holds g_b, ``scale`` (T,) 1 / W_b of
    each token's text, ``pull`` (B,) g_b · m_b; ``vectors`` is the table (V, D), ``weights`` (R,) and both results
    have a row for each of ``rows`` (R,).
    """
    for r in range(first, last):
        tokens, row, vector, w = slice(starts[r], starts[r + 1]), grad_vectors[r], vectors[rows[r]], weights[r]
        _weighted_sum(texts[tokens], scale[tokens], grads, row)
        dot, pulled = np.float32(0), np.float32(0)
        for j in range(len(row)):
            row[j] *= w
            dot += row[j] * vector[j]
        for k in range(starts[r], starts[r + 1]):
            pulled += scale[k] * pull[texts[k]]
        grad_weights[r] = dot - w * pulled


def _arrays(*tensors: Tensor) -> tuple[Array, ...]:
    return tuple(t.detach().numpy() for t in tensors)


def _sparse(rows: Tensor, values: Tensor, size: tuple[int, ...]) -> Tensor:
    """A coalesced sparse gradient: ``rows`` (R,) ascending and distinct, ``values`` (R, …)."""
    return torch.sparse_coo_tensor(rows.unsqueeze(0), values, size, is_coalesced=True, check_invariants=False)


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, offsets: Tensor, vectors: Tensor, log_weights: Tensor) -> Tensor:  # noqa: ANN401
        means, totals = torch.empty(len(offsets) - 1, vectors.shape[1]), torch.empty(len(offsets) - 1)
        ctx.save_for_backward(ids, offsets, vectors, log_weights, means, totals)
        tokens, starts, table, logs, *out = _arrays(ids, offsets, vectors, log_weights, means, totals)
        # NumPy, and only the tokens' weights: torch would split the exponentials among its threads, and the
        # wait for a busy core took 8 ms; those of 400,000 words would take longer than to pool a query.
        weights = np.exp(logs.take(tokens))
        in_token_parts(lambda a, b: pool_rows(tokens, starts, a, b, table, weights, *out), starts)
        return means

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BD: Tensor) -> tuple:  # noqa: ANN401
        ids, offsets, vectors, log_weights, means, totals = _arrays(*ctx.saved_tensors)
        (grads,) = _arrays(grad_BD.contiguous())
        rows = _distinct_rows(ids, len(vectors))
        starts, texts = _group_by_row(ids, offsets, rows, len(vectors))
        scale = np.divide(1, totals, out=np.zeros_like(totals), where=totals > 0).take(texts)
        pull = np.einsum("bd,bd->b", means, grads)
        weights = np.exp(log_weights.take(rows))
        grad_vectors, grad_weights = np.empty((len(rows), vectors.shape[1]), np.float32), np.empty_like(weights)

        def work(a: int, b: int) -> None:
            _pool_gradients(rows, starts, texts, a, b, grads, scale, pull, vectors, weights, grad_vectors, grad_weights)

        in_token_parts(work, starts)
        used, of_vectors, of_weights = map(torch.from_numpy, (rows, grad_vectors, grad_weights))
        _, _, vectors_learn, weights_learn = ctx.needs_input_grad
        grad_table = _sparse(used, of_vectors, vectors.shape) if vectors_learn else None
        return None, None, grad_table, _sparse(used, of_weights, log_weights.shape) if weights_learn else None


class Lookup(torch.autograd.Function):
    """``apply(ids, table)``: the rows of the tokens ``ids`` (T,); sparse gradient with the used rows only."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, table: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(ids)
        ctx.size = table.shape
        return table[ids.long()]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:  # noqa: ANN401
        (ids,) = ctx.saved_tensors
        if grad.dim() == 2 and on_cpu(grad := grad.contiguous()):
            rows = _distinct_rows(ids.numpy(), ctx.size[0])
            summed = sum_by_row(ids.numpy(), grad.numpy(), rows, ctx.size[0])
            return None, _sparse(torch.from_numpy(rows), summed, ctx.size)
        used, place = torch.unique(ids.long(), return_inverse=True)
        summed = grad.new_zeros((len(used), *ctx.size[1:])).index_add_(0, place, grad)
        return None, _sparse(used, summed, ctx.size)


def sum_by_row(ids: Array, grads: Array, distinct: Array, size: int) -> Tensor:
    """The gradients ``grads`` (T, D) of the tokens ``ids`` (T,) < ``size``, summed for each of the ``distinct`` ids."""
    starts, tokens = _group_by_row(ids, np.arange(len(ids) + 1), distinct, size)  # each token is a text of its own
    out, ones = np.empty((len(distinct), grads.shape[1]), np.float32), np.ones(len(ids), np.float32)
    in_token_parts(lambda a, b: _sum_rows(starts, tokens, a, b, grads, ones, out), starts)
    return torch.from_numpy(out)


def on_cpu(vectors: Tensor) -> bool:
    """Whether the compiled loops can read this tensor."""
    return vectors.device.type == "cpu" and vectors.dtype == torch.float32 and vectors.is_contiguous()


def pool(tokens: Ragged, vectors: Tensor, log_weights: Tensor) -> Tensor:
    """Mean of each text's word vectors, weighted by ``exp(log_weights)``.

    ``vectors`` (V, D) and ``log_weights`` (V,) give (B, D), zeros for a text without tokens; on a CPU in float32
    bit-equal whatever the batch and the thread count. The gradients are sparse and hold the rows of the batch only:
    with 400,000 words a dense gradient alone would cost some ten times the rest of a training step.
    """
    if on_cpu(vectors):
        return _Pool.apply(tokens.ids, tokens.offsets, vectors, log_weights)
    ids, offsets = tokens.ids.long(), tokens.offsets
    weights = Lookup.apply(ids, log_weights).exp()
    scale = weights.to(vectors.dtype)
    summed = F.embedding_bag(ids, vectors, offsets[:-1], mode="sum", per_sample_weights=scale, sparse=True)
    text = torch.repeat_interleave(torch.arange(len(tokens), device=ids.device), tokens.lengths)
    total = torch.zeros(len(tokens), device=ids.device, dtype=weights.dtype).index_add(0, text, weights)
    return summed / total.clamp(min=torch.finfo(total.dtype).tiny).unsqueeze(1).to(summed.dtype)
