"""Inner products in bfloat16 with a bound on their error, and the loop that settles exactly what they leave open.

A product in bfloat16 takes half the time of one in float32. Most documents lie so far from a pair's score, and from
the k-th best, that a score with three digits decides; only the others get an exact score, the sum of one compiled
loop over the float32 vectors. So the result is that of exact scores, and depends neither on how the machine computes
the product nor on blocks, threads or processes.

The argument in four steps:

1. `slacks` bounds |product − exact score| of a query, before the product is rounded to bfloat16.
2. Rounding is monotonic. So an exact score s can only have products from round(s − slack) to round(s + slack):
   `_bounds` gives these two as integers that sort as the floats do.
3. A product above the upper bound of a pair's score belongs to a document that surely ranks above it, one below the
   lower bound to one that surely does not. Between the two, `_count` computes the exact score.
4. The k best are chosen likewise: `_candidates` takes every document whose product reaches the lower bound of the
   k-th best score so far, and their exact keys decide.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from two_tower.ranking.base import NONE, key_of, key_score, slices
from two_tower.threads import in_parts

_CHUNK = 256  # documents that are counted together
_SKIP = 64  # documents that are passed over together
_TOGETHER = 2048  # documents multiplied together in float32: 8,192 took a third more, their products leave the cache
_MIN_BITS, _MAX_BITS = -32768, 32767  # of an int16
_ZERO = 1e-25  # scores nearer to 0 count as 0
_SHORTEST = 1e-18  # shorter lengths are not measured: their squares are denormal
_HUGE = 1e37  # products of norms from here on may overflow: nothing is taken from the product then
_thread = threading.local()


class Rounded(NamedTuple):
    """Vectors in bfloat16, and how far rounding moved them."""

    vectors: Tensor  # (n, D) bfloat16, or the float32 vectors themselves where a product in bfloat16 is no faster
    norms: np.ndarray  # (n,) float64, lengths of the float32 vectors
    errors: np.ndarray  # (n,) float64, lengths of the rounding errors

    @classmethod
    def from_vectors(cls, vectors: Tensor) -> Rounded:
        """Round (n, D) float32 vectors on the CPU."""
        array = vectors.numpy()
        norms, errors = np.empty(len(array)), np.zeros(len(array))
        if not _fast_bfloat16():
            in_parts(lambda first, last: _measure(first, last, array, norms), len(array))
            return cls(vectors, norms, errors)
        bits = np.empty(array.shape, np.int16)
        in_parts(lambda first, last: _round(first, last, array.view(np.uint32), array, bits, norms, errors), len(array))
        return cls(torch.from_numpy(bits).view(torch.bfloat16), norms, errors)

    def rows(self, rows: slice) -> Rounded:
        return Rounded(self.vectors[rows], self.norms[rows], self.errors[rows])


def _fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 numbers itself; elsewhere that takes longer than float32."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def products(queries: Tensor, documents: Tensor) -> np.ndarray:
    """(q, n) int16, the bits of the bfloat16 products of (q, D) and (n, D) vectors in bfloat16 or float32.

    The array belongs to this thread and its next call overwrites it: fresh memory would cost a fifth of the time.
    """
    shape = (len(queries), len(documents))
    out = _kept(torch.bfloat16, shape)
    if queries.dtype == torch.bfloat16:
        torch.mm(queries, documents.T, out=out)
    else:
        for part in slices(shape[1], _TOGETHER):
            exact = _kept(torch.float32, (shape[0], part.stop - part.start))
            out[:, part] = torch.mm(queries, documents[part].T, out=exact)
    bits: np.ndarray = out.view(torch.int16).numpy()
    return bits


def _kept(dtype: torch.dtype, shape: tuple[int, int]) -> Tensor:
    """Memory of this thread for numbers of a kind."""
    size, kept = shape[0] * shape[1], getattr(_thread, str(dtype), None)
    if kept is None or kept.numel() < size:
        kept = torch.empty(size, dtype=dtype)
        setattr(_thread, str(dtype), kept)
    part: Tensor = kept[:size].view(shape)
    return part


def slacks(queries: Rounded, documents: Rounded) -> np.ndarray:
    """(q,) float64: the most by which a query's products, before they are rounded, differ from its exact scores.

    With q' = q + e and d' = d + f the rounded vectors, |q'·d' − q·d| ≤ |e| |d| + |q'| |f| (Cauchy-Schwarz, with
    measured lengths). The product and the exact score are sums of D terms, each rounded D times in float32. Infinite
    where numbers may overflow or are NaN.
    """
    norm, error = documents.norms.max(initial=0), documents.errors.max(initial=0)
    rounding = (queries.vectors.shape[1] + 16) * 2.0**-23
    with np.errstate(invalid="ignore", over="ignore"):
        longest = queries.norms + queries.errors  # of q'
        slack = queries.errors * norm + longest * error + rounding * longest * (norm + error) + 2 * _ZERO
        return np.where(longest * (norm + error) < _HUGE, slack, np.inf)  # NaN is not below


# fastmath lets the compiler reorder the sum, so that it becomes vector instructions: 14 ns for 256 dimensions
# instead of 126. Once compiled, it has one order.
@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _dot(a: np.ndarray, b: np.ndarray) -> np.float32:
    total = np.float32(0)
    for j in range(len(a)):
        total += a[j] * b[j]
    return total


@njit(nogil=True, cache=True)
def _length(vector: np.ndarray) -> float:
    """An upper bound of the length: a thousandth more covers the sum's own rounding."""
    return max(np.sqrt(np.float64(_dot(vector, vector))), _SHORTEST) * 1.001


@njit(nogil=True, cache=True)
def _measure(first: int, last: int, vectors: np.ndarray, norms: np.ndarray) -> None:
    for i in range(first, last):
        norms[i] = _length(vectors[i])


@njit(nogil=True, cache=True)
def _round(
    first: int, last: int, words: np.ndarray, vectors: np.ndarray,
    bits: np.ndarray, norms: np.ndarray, errors: np.ndarray,
) -> None:  # fmt: skip
    """Round rows to the nearest bfloat16 and measure them; ``words`` are the vectors' bits as uint32."""
    rounded = np.empty(vectors.shape[1], np.uint32)
    values = rounded.view(np.float32)
    for i in range(first, last):
        for j in range(vectors.shape[1]):
            word = words[i, j]
            # A bfloat16 is the upper half of a float32. Adding half a unit of it, less one where the upper half is
            # even, carries into the upper half exactly where the number must be rounded up (ties to even).
            high = np.uint32((word + np.uint32(0x7FFF) + ((word >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))
            bits[i, j] = np.int16(high)
            rounded[j] = high << np.uint32(16)
        for j in range(vectors.shape[1]):
            values[j] -= vectors[i, j]
        norms[i] = _length(vectors[i])
        errors[i] = _length(values)


@njit(nogil=True, cache=True)
def _score(query: np.ndarray, document: np.ndarray) -> np.float32:
    """The exact score; 0 where it is so small that it would depend on how a thread treats denormal numbers."""
    total = _dot(query, document)
    return np.float32(0) if abs(total) < _ZERO else total


@njit(nogil=True, cache=True)
def dots(queries: np.ndarray, documents: np.ndarray, q: np.ndarray, d: np.ndarray, out: np.ndarray) -> None:
    """``out[p]`` = the exact score of query ``q[p]`` and document ``d[p]``; NaN becomes minus infinity."""
    for p in range(len(q)):
        score = _score(queries[q[p]], documents[d[p]])
        out[p] = score if score == score else -np.inf


@njit(nogil=True, cache=True)
def _order(bits: np.int16) -> np.int16:
    """The bits of a bfloat16 as an integer that sorts as the number does; see `two_tower.ranking.base`."""
    return np.int16(bits ^ ((bits >> 15) & np.int16(0x7FFF)))


@njit(nogil=True, cache=True)
def _sortable(score: np.float32) -> int:
    """The same for a float32, in 32 bits."""
    bits = int(np.float32(score).view(np.int32))
    return bits if bits >= 0 else bits ^ 0x7FFFFFFF


@njit(nogil=True, cache=True)
def _bounds(score: np.float32, slack: float) -> tuple[int, int]:
    """The smallest and the largest product, as `_order` numbers, of a document with this exact score."""
    if not (slack < np.inf and -np.inf < score < np.inf):
        return _MIN_BITS, _MAX_BITS
    wide = slack + 1e-6 * abs(np.float64(score))  # the two sums below are rounded too
    low, high = _sortable(np.float32(score - wide)), _sortable(np.float32(score + wide))
    # The upper half of the bits is the number rounded towards zero: down if it is positive, up if it is negative.
    # Where that is the wrong way, take one step outwards: no number above `low` is rounded to less than that.
    low_bits = (low >> 16) - (1 if low < 0 else 0)
    high_bits = (high >> 16) + (1 if high >= 0 else 0)
    # -1 is -0, which equals 0: where a bound is one of the two, both lie within.
    return (-1 if low_bits == 0 else low_bits), (0 if high_bits == -1 else high_bits)


@njit(nogil=True, cache=True)
def _count_from(coarse: np.ndarray, bound: int) -> int:
    """Documents of a chunk from ``bound`` on; no branches, so that it becomes vector instructions."""
    count, minimum = np.int16(0), np.int16(bound)
    for j in range(len(coarse)):
        count = np.int16(count + np.int16(_order(coarse[j]) >= minimum))
    return int(count)


@njit(nogil=True, cache=True)
def _count(
    coarse: np.ndarray, start: int, low: int, high: int, pair_key: int,
    query: np.ndarray, documents: np.ndarray, places: np.ndarray,
) -> int:  # fmt: skip
    """Documents of the chunk that begins at ``start`` whose keys are above ``pair_key``."""
    possible = _count_from(coarse, low)
    sure: int = _count_from(coarse, high + 1) if possible and high < _MAX_BITS else 0
    if sure == possible:
        return sure
    for j in range(len(coarse)):
        if low <= _order(coarse[j]) <= high:
            sure += int(key_of(_score(query, documents[start + j]), places[start + j]) > pair_key)
    return sure


@njit(nogil=True, cache=True)
def scan_coarse(
    coarse: np.ndarray, slack: np.ndarray, queries: np.ndarray, documents: np.ndarray, places: np.ndarray,
    starts: np.ndarray, pair_scores: np.ndarray, pair_places: np.ndarray, best: np.ndarray, above: np.ndarray,
) -> None:  # fmt: skip
    """Count the documents above the pairs of a block of queries, and keep the best; changes ``best`` and ``above``.

    ``coarse`` (q, n) int16 are the bits of the products of ``queries`` (q, D) and ``documents`` (n, D), ``slack`` (q,)
    float64 their bounds. Query i has the pairs ``starts[i]`` to ``starts[i + 1]``, with exact scores (p,) float32.
    ``places`` (n,) and ``pair_places`` (p,) are int32. ``best`` (q, k) int64 has the smallest key of each row first.
    """
    candidates = np.empty(coarse.shape[1], np.int32)
    keys = np.empty(coarse.shape[1] + best.shape[1], np.int64)
    for i in range(len(coarse)):
        for p in range(starts[i], starts[i + 1]):
            low, high = _bounds(pair_scores[p], slack[i])
            pair_key = int(key_of(pair_scores[p], pair_places[p]))
            for start in range(0, coarse.shape[1], _CHUNK):
                chunk = coarse[i, start : start + _CHUNK]
                above[p] += _count(chunk, start, low, high, pair_key, queries[i], documents, places)
        if best.shape[1]:
            count = _candidates(coarse[i], slack[i], best[i], candidates)
            for c in range(count):
                j = candidates[c]
                keys[c] = key_of(_score(queries[i], documents[j]), places[j])
            _keep_best(keys, count, best[i])


@njit(nogil=True, cache=True)
def _candidates(coarse: np.ndarray, slack: float, best: np.ndarray, out: np.ndarray) -> int:
    """Write the documents of a row that may be among the best to ``out``; returns their number."""
    full = best[0] > NONE
    low = _bounds(key_score(best[0]), slack)[0] if full else _bound_of_best(coarse, slack, len(best))
    count = 0
    for start in range(0, len(coarse), _SKIP):
        chunk = coarse[start : start + _SKIP]
        if _count_from(chunk, low):
            for j in range(len(chunk)):
                if _order(chunk[j]) >= low:
                    out[count] = start + j
                    count += 1
    return count


@njit(nogil=True, cache=True)
def _bound_of_best(coarse: np.ndarray, slack: float, k: int) -> int:
    """The smallest product that a document among a row's best ``k`` can have, from a histogram of the row."""
    counts = np.zeros(1 << 12, np.int32)  # by the upper 12 bits
    for j in range(len(coarse)):
        counts[(_order(coarse[j]) >> 4) + (1 << 11)] += 1
    bin, total = len(counts), 0
    while bin > 0 and total < k:
        bin -= 1
        total += counts[bin]
    if total < k:
        return _MIN_BITS
    bits = (bin - (1 << 11)) << 4
    score = key_score(np.int64(bits << 16) << 32)  # k documents have at least this product
    # Their exact scores may lie lower by the slack and by one rounding, at most 1/128 of the product; a document
    # that beats them has a product at most another slack below its exact score.
    return _bounds(score, 2 * slack + abs(np.float64(score)) / 128)[0]


@njit(nogil=True, cache=True)
def _keep_best(keys: np.ndarray, count: int, best: np.ndarray) -> None:
    """Let the first ``count`` keys compete with the best; the smallest of the new best stands first."""
    k = len(best)
    for i in range(k):
        keys[count + i] = best[i]
    _select(keys[: count + k], count)
    for i in range(k):
        best[i] = keys[count + i]


@njit(nogil=True, cache=True)
def _select(keys: np.ndarray, n: int) -> None:
    """Bring the key that has ``n`` smaller ones to place ``n``, and those before it (Hoare's quickselect).

    numba's np.partition does the same and takes 7 s to compile, copying a slice another one.
    """
    first, last = 0, len(keys) - 1
    while first < last:
        pivot, i, j = keys[(first + last) // 2], first, last
        while i <= j:
            while keys[i] < pivot:
                i += 1
            while keys[j] > pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i, j = i + 1, j - 1
        if n <= j:
            last = j
        elif n >= i:
            first = i
        else:
            return
