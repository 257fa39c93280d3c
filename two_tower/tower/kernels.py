"""The hot loops of word tables on the CPU: pooling rows forward, summing gradients per row backward.

Plain numba without ``prange``: its thread pool may not be entered from several Python threads at once,
and encoding does just that. Threads are made by `in_parts` instead; the kernels release the GIL. Every
output row is summed by one thread in token order, so results are the same bits at any thread count.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numba
import numpy as np
import torch

__all__ = ["distinct_rows", "group_by_row", "in_parts", "pool_rows", "sum_rows"]

# Below this many tokens a second thread costs more than it brings (a hand-over is about 30 µs).
PARALLEL_TOKENS = 20_000


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="words")


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
    list(_threads(parts).map(work, bounds[:-1], bounds[1:]))


@numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
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

    Four rows at a time: the sum is loaded and stored a quarter as often, and four rows of the table are on
    their way from memory together (60,000 texts of 62 tokens: 76 ms instead of 125; eight gain nothing more).

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
    dim = vectors.shape[1]
    for b in range(first, last):
        start, end, row = offsets[b], offsets[b + 1], out[b]
        text, counts = ids[start:end], weights[start:end]
        for j in range(dim):
            row[j] = 0
        weight_sum = np.float32(0)
        whole = len(text) - len(text) % 4
        for t in range(0, whole, 4):
            w0, w1, w2, w3 = counts[t], counts[t + 1], counts[t + 2], counts[t + 3]
            v0, v1 = vectors[text[t]], vectors[text[t + 1]]
            v2, v3 = vectors[text[t + 2]], vectors[text[t + 3]]
            weight_sum += w0 + w1 + w2 + w3
            for j in range(dim):
                row[j] += w0 * v0[j] + w1 * v1[j] + w2 * v2[j] + w3 * v3[j]
        for t in range(whole, len(text)):
            w, vector = counts[t], vectors[text[t]]
            weight_sum += w
            for j in range(dim):
                row[j] += w * vector[j]
        total[b] = weight_sum
        if weight_sum > 0:
            scale = np.float32(1) / weight_sum
            for j in range(dim):
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
def group_by_row(ids: np.ndarray, distinct: np.ndarray, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Token positions ordered by row (a counting sort), in token order within a row.

    Args:
        ids: (T,) integers.
        distinct: (R,) the distinct ids, ascending.
        position: (V,) int32 scratch, overwritten at ``distinct``.

    Returns:
        (R + 1,) where each row's tokens start, and (T,) the token positions.
    """
    starts = np.zeros(len(distinct) + 1, np.int64)
    for k in range(len(distinct)):
        position[distinct[k]] = k
    for i in ids:
        starts[position[i] + 1] += 1
    for k in range(len(distinct)):
        starts[k + 1] += starts[k]
    tokens = np.empty(len(ids), np.int64)
    fill = starts[:-1].copy()
    for t in range(len(ids)):
        k = position[ids[t]]
        tokens[fill[k]] = t
        fill[k] += 1
    return starts, tokens


@numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def sum_rows(
    starts: np.ndarray,
    tokens: np.ndarray,
    first: int,
    last: int,
    source: np.ndarray,
    grads: np.ndarray,
    scale: np.ndarray,
    out: np.ndarray,
) -> None:
    """``out[r] = sum over the row's tokens t of scale[s] * grads[s]`` with ``s = source[t]``.

    Args:
        starts: (R + 1,) from `group_by_row`.
        tokens: (T,) from `group_by_row`.
        first: first row to do.
        last: last row to do (exclusive).
        source: (T,) which row of ``grads`` a token's gradient comes from (its text, or itself).
        grads: (S, D) float32.
        scale: (S,) float32.
        out: (R, D) float32, written.
    """
    dim = grads.shape[1]
    for r in range(first, last):
        row = out[r]
        for j in range(dim):
            row[j] = 0
        for k in range(starts[r], starts[r + 1]):
            s = source[tokens[k]]
            factor = scale[s]
            grad = grads[s]
            for j in range(dim):
                row[j] += factor * grad[j]
