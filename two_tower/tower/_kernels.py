"""The hot loops of word tables on the CPU: pooling rows forward, summing gradients per row backward.

Plain numba without ``prange``: its thread pool may not be entered from several Python threads at once,
and encoding does just that. Threads are made by `in_parts` instead; the kernels release the GIL. Every
output row is summed by one thread in token order, so results are the same bits at any thread count.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numba
import numpy as np
import torch

from two_tower.threads import each

__all__ = ["distinct_rows", "group_by_row", "in_parts", "number_rows", "pool_gradients", "pool_rows", "sum_rows"]

# What the compiler may do to float32 sums so that they become vector instructions; NaN and infinity keep their
# meaning.
FAST = {"contract", "reassoc"}

# Below this many tokens a second thread costs more than it brings (a hand-over is about 30 µs).
PARALLEL_TOKENS = 20_000


def in_parts(work: Callable[[int, int], None], ends: np.ndarray) -> None:
    """Call ``work(first, last)`` on consecutive parts of the items, on as many threads as torch uses.

    Args:
        work: handles the items ``first`` to ``last`` (exclusive); must release the GIL to gain anything.
        ends: (I + 1,) ascending token positions of the items; the parts hold about equally many tokens.
    """
    items, tokens = len(ends) - 1, int(ends[-1] - ends[0])
    parts = min(torch.get_num_threads(), items)
    if parts <= 1 or tokens < PARALLEL_TOKENS:
        work(0, items)
        return
    cuts = np.searchsorted(ends, ends[0] + tokens * np.arange(1, parts) / parts)
    bounds = [0, *cuts.tolist(), items]
    each(lambda part: work(*part), pairwise(bounds))


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _weighted_sum(rows: np.ndarray, factors: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
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
    ids: np.ndarray,
    offsets: np.ndarray,
    first: int,
    last: int,
    vectors: np.ndarray,
    weights: np.ndarray,
    out: np.ndarray,
    total: np.ndarray,
) -> None:
    """Weighted mean of each text's rows: ``out[b] = sum_t w_t v_t / sum_t w_t``; zero for an empty text.

    Args:
        ids: (T,) integers, rows of the table.
        offsets: (B + 1,) where each text starts.
        first: first text to do.
        last: last text to do (exclusive).
        vectors: (V, D) float32, the table.
        weights: (T,) float32, positive, what each token counts.
        out: (B, D) float32, written.
        total: (B,) float32, written: the sum of the text's weights.
    """
    for b in range(first, last):
        row, counts = out[b], weights[offsets[b] : offsets[b + 1]]
        _weighted_sum(ids[offsets[b] : offsets[b + 1]], counts, vectors, row)
        weight_sum = np.float32(0)
        for w in counts:
            weight_sum += w
        total[b] = weight_sum
        if weight_sum > 0:
            scale = np.float32(1) / weight_sum
            for j in range(len(row)):
                row[j] *= scale


@numba.njit(nogil=True, cache=True)
def distinct_rows(ids: np.ndarray, used: np.ndarray) -> np.ndarray:
    """The distinct values of ``ids``, ascending, int64.

    Args:
        ids: (T,) integers.
        used: (V,) bool, all False; left all False.
    """
    n = 0
    for i in ids:
        if not used[i]:
            used[i] = True
            n += 1
    distinct = np.empty(n, np.int64)
    k = 0
    for i in range(len(used)):
        if used[i]:
            distinct[k] = i
            used[i] = False
            k += 1
    return distinct


@numba.njit(nogil=True, cache=True)
def number_rows(ids: np.ndarray, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct ids in the order of their first occurrence, and which of them each token is.

    Args:
        ids: (T,) integers.
        position: (V,) int32 scratch, all -1; overwritten.

    Returns:
        (R,) int64 and (T,) int32.
    """
    distinct, place, n = np.empty(len(ids), np.int64), np.empty(len(ids), np.int32), 0
    for t in range(len(ids)):
        i = ids[t]
        if position[i] < 0:
            position[i] = n
            distinct[n] = i
            n += 1
        place[t] = position[i]
    return distinct[:n], place


@numba.njit(nogil=True, cache=True)
def group_by_row(
    ids: np.ndarray, offsets: np.ndarray, distinct: np.ndarray, position: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The texts of each row's tokens (a counting sort), in token order within a row.

    Args:
        ids: (T,) integers.
        offsets: (B + 1,) where each text starts.
        distinct: (R,) the distinct ids, ascending.
        position: (V,) int32 scratch, overwritten at ``distinct``.

    Returns:
        (R + 1,) int64 where each row's tokens start, and (T,) int32 the text of each of them.
    """
    starts = np.zeros(len(distinct) + 1, np.int64)
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
def sum_rows(
    starts: np.ndarray,
    texts: np.ndarray,
    first: int,
    last: int,
    grads: np.ndarray,
    factors: np.ndarray,
    out: np.ndarray,
) -> None:
    """Gradients summed per row of the table: ``out[r] = sum_k factors[k] * grads[texts[k]]`` over its tokens k.

    Args:
        starts: (R + 1,) from `group_by_row`.
        texts: (T,) from `group_by_row`.
        first: first row to do.
        last: last row to do (exclusive).
        grads: (B, D) float32.
        factors: (T,) float32, in the order of ``texts``.
        out: (R, D) float32, written.
    """
    for r in range(first, last):
        tokens = slice(starts[r], starts[r + 1])
        _weighted_sum(texts[tokens], factors[tokens], grads, out[r])


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def pool_gradients(
    rows: np.ndarray,
    starts: np.ndarray,
    texts: np.ndarray,
    first: int,
    last: int,
    grads: np.ndarray,
    factors: np.ndarray,
    pull: np.ndarray,
    vectors: np.ndarray,
    weights: np.ndarray,
    grad_vectors: np.ndarray,
    grad_weights: np.ndarray,
) -> None:
    """The backward pass of `pool_rows`, for the vectors and the logarithms of the weights.

    With W_b the sum of a text's weights, ``d out_b / d v_i = w_i / W_b`` and
    ``d out_b / d log w_i = (w_i / W_b) (v_i - out_b)`` for each token i, each times what the token counts, so that
    all the second needs beside the first is one dot product per row.

    Args:
        rows: (R,) rows of the table.
        starts: (R + 1,) from `group_by_row`.
        texts: (T,) from `group_by_row`.
        first: first row to do.
        last: last row to do (exclusive).
        grads: (B, D) float32, gradient of the means.
        factors: (T,) float32, what each token counts beside its word's weight, times 1 / W_b of its text.
        pull: (B,) float32, ``grads[b] · out[b]``.
        vectors: (V, D) float32, the table.
        weights: (R,) float32, what a token of each row counts.
        grad_vectors: (R, D) float32, written.
        grad_weights: (R,) float32, written.
    """
    for r in range(first, last):
        tokens, row, vector, w = slice(starts[r], starts[r + 1]), grad_vectors[r], vectors[rows[r]], weights[r]
        _weighted_sum(texts[tokens], factors[tokens], grads, row)
        dot, pulled = np.float32(0), np.float32(0)
        for j in range(len(row)):
            row[j] *= w
            dot += row[j] * vector[j]
        for k in range(starts[r], starts[r + 1]):
            pulled += factors[k] * pull[texts[k]]
        grad_weights[r] = dot - w * pulled
