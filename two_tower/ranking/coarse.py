"""Scores that are only nearly right, with a bound on their error, and the loop that settles what they leave open.

A product in bfloat16 takes half the time of one in float32. Most documents lie so far from a pair's score, and from
the k-th best one, that a score with three digits decides; only the others get an exact one, the sum of one compiled
loop over the float32 vectors. So the result is that of exact scores, and it depends neither on the machine's way of
computing the product nor on blocks, threads or processes.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from two_tower.ranking.kernels import NONE, key_of, key_score
from two_tower.threads import in_parts

__all__ = ["Rounded", "dots", "products", "scan_coarse", "slacks"]

_CHUNK = 256  # documents that are counted together
_PEEK = 64  # documents that are passed over together
_LEAST, _MOST = -32768, 32767
_NOTHING = 1e-25  # scores nearer to 0 count as 0
_SHORT = 1e-18  # lengths below are not measured: their squares are denormal
_mine = threading.local()
_HUGE = 1e37  # products of norms from here on may overflow: nothing is taken from the product then


class Rounded(NamedTuple):
    """Vectors in bfloat16, and what rounding did to them.

    Attributes:
        vectors: (n, D) bfloat16, or the float32 vectors themselves where a product in bfloat16 is no faster.
        norms: (n,) float64, lengths of the float32 vectors.
        errors: (n,) float64, lengths of what rounding took away.
    """

    vectors: Tensor
    norms: np.ndarray
    errors: np.ndarray

    @classmethod
    def of(cls, vectors: Tensor) -> Rounded:
        """Round (n, D) float32 vectors in memory."""
        array = vectors.numpy()
        norms, errors = np.empty(len(array)), np.zeros(len(array))
        if not _fast_bfloat16():
            in_parts(lambda first, last: _measure(first, last, array, norms), len(array))
            return cls(vectors, norms, errors)
        bits = np.empty(array.shape, np.int16)
        in_parts(lambda first, last: _round(first, last, array.view(np.uint32), array, bits, norms, errors), len(array))
        return cls(torch.from_numpy(bits).view(torch.bfloat16), norms, errors)

    def rows(self, rows: slice) -> Rounded:
        """Some of them."""
        return Rounded(self.vectors[rows], self.norms[rows], self.errors[rows])


def _fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 numbers itself; elsewhere it takes longer than float32."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def products(queries: Tensor, documents: Tensor) -> np.ndarray:
    """(q, n) int16, the bits of the bfloat16 scores of (q, D) and (n, D) vectors in bfloat16 or float32.

    The array is this thread's own and overwritten by its next call: fresh memory would cost a tenth of the time.
    """
    shape = (len(queries), len(documents))
    if getattr(_mine, "scores", None) is None or _mine.scores.numel() < shape[0] * shape[1]:
        _mine.scores = torch.empty(shape[0] * shape[1], dtype=torch.bfloat16)
    out = _mine.scores[: shape[0] * shape[1]].view(shape)
    if queries.dtype == torch.bfloat16:
        torch.mm(queries, documents.T, out=out)
    else:
        out.copy_(queries @ documents.T)
    bits: np.ndarray = out.view(torch.int16).numpy()
    return bits


def slacks(queries: Rounded, documents: Rounded) -> np.ndarray:
    """(q,) float64: the most by which a query's products differ from its exact scores, before they are rounded.

    Rounding the vectors is bounded by Cauchy and Schwarz with the lengths measured, the sums of the product and
    of the exact score by D roundings each. Infinite where numbers may overflow or are none.
    """
    norm, error = documents.norms.max(initial=0), documents.errors.max(initial=0)
    rounding = (queries.vectors.shape[1] + 16) * 2.0**-23
    with np.errstate(invalid="ignore", over="ignore"):
        longest = queries.norms + queries.errors
        slack = queries.errors * norm + longest * error + rounding * longest * (norm + error) + 2 * _NOTHING
        return np.where(longest * (norm + error) < _HUGE, slack, np.inf)  # NaN is not below


# Any order of summation, so that it becomes vector instructions: 14 ns for 256 dimensions instead of 126. Compiled
# once, it has one order.
@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _dot(a: np.ndarray, b: np.ndarray) -> np.float32:
    total = np.float32(0)
    for j in range(len(a)):
        total += a[j] * b[j]
    return total


@njit(nogil=True, cache=True)
def _length(vector: np.ndarray) -> float:
    """At least its length: a thousandth more covers the sum's own rounding."""
    length: float = max(np.sqrt(np.float64(_dot(vector, vector))), _SHORT) * 1.001
    return length


@njit(nogil=True, cache=True)
def _measure(first: int, last: int, vectors: np.ndarray, norms: np.ndarray) -> None:
    for i in range(first, last):
        norms[i] = _length(vectors[i])


@njit(nogil=True, cache=True)
def _round(
    first: int,
    last: int,
    words: np.ndarray,
    vectors: np.ndarray,
    bits: np.ndarray,
    norms: np.ndarray,
    errors: np.ndarray,
) -> None:
    """Round rows to the nearest bfloat16, and measure them."""
    rounded = np.empty(vectors.shape[1], np.uint32)
    values = rounded.view(np.float32)
    for i in range(first, last):
        for j in range(vectors.shape[1]):
            word = words[i, j]
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
    return np.float32(0) if abs(total) < _NOTHING else total


@njit(nogil=True, cache=True)
def dots(queries: np.ndarray, documents: np.ndarray, q: np.ndarray, d: np.ndarray, out: np.ndarray) -> None:
    """``out[p]`` = the exact score of query ``q[p]`` and document ``d[p]``; NaN becomes minus infinity."""
    for p in range(len(q)):
        score = _score(queries[q[p]], documents[d[p]])
        out[p] = score if score == score else -np.inf


@njit(nogil=True, cache=True)
def _bounds(score: np.float32, slack: float) -> tuple[int, int]:
    """The least and the greatest bits, in an order as the floats', of a coarse score whose exact one may be this.

    Rounding keeps order: a sum above a number is never rounded below the bfloat16 next below that number.
    """
    if not (slack < np.inf and -np.inf < score < np.inf):
        return _LEAST, _MOST
    wide = slack + 1e-6 * abs(np.float64(score))  # the two sums below are rounded too
    low, high = np.float32(score - wide), np.float32(score + wide)
    below, above = _sortable(low), _sortable(high)
    # The upper half of a positive number's bits is that number rounded down, of a negative one's rounded up.
    least = (below >> 16) - (1 if below < 0 else 0)
    most = (above >> 16) + (1 if above >= 0 else 0)
    return (-1 if least == 0 else least), (0 if most == -1 else most)  # -1 is -0, which equals 0


@njit(nogil=True, cache=True)
def _sortable(score: np.float32) -> int:
    bits = int(np.float32(score).view(np.int32))
    return bits if bits >= 0 else bits ^ 0x7FFFFFFF


@njit(nogil=True, cache=True)
def _order(bits: np.int16) -> np.int16:
    return np.int16(bits ^ ((bits >> 15) & np.int16(0x7FFF)))


@njit(nogil=True, cache=True)
def _above(coarse: np.ndarray, least: int) -> int:
    """Documents of a chunk from ``least`` on; no branches, so that it becomes vector instructions."""
    count, bound = np.int16(0), np.int16(least)
    for j in range(len(coarse)):
        count = np.int16(count + np.int16(_order(coarse[j]) >= bound))
    return int(count)


@njit(nogil=True, cache=True)
def _count(
    coarse: np.ndarray,
    start: int,
    least: int,
    most: int,
    own_key: int,
    query: np.ndarray,
    documents: np.ndarray,
    places: np.ndarray,
) -> int:
    """Documents of a chunk, beginning with ``start``, whose keys are greater than ``own_key``."""
    possible = _above(coarse, least)
    sure: int = _above(coarse, most + 1) if possible and most < _MOST else 0
    if sure == possible:
        return sure
    for j in range(len(coarse)):
        if least <= _order(coarse[j]) <= most:
            sure += int(key_of(_score(query, documents[start + j]), places[start + j]) > own_key)
    return sure


@njit(nogil=True, cache=True)
def scan_coarse(
    coarse: np.ndarray,
    slack: np.ndarray,
    queries: np.ndarray,
    documents: np.ndarray,
    places: np.ndarray,
    starts: np.ndarray,
    own: np.ndarray,
    own_places: np.ndarray,
    best: np.ndarray,
    above: np.ndarray,
) -> None:
    """Count before the pairs of all rows, queries of a block, and keep the rows' best.

    Args:
        coarse: (q, n) int16, bits of bfloat16 scores.
        slack: (q,) float64, see `slacks`.
        queries: (q, D) float32.
        documents: (n, D) float32.
        places: (n,) int32, the documents' places among equals.
        starts: (q + 1,) int64, row ``i`` has the pairs ``starts[i]`` to ``starts[i + 1]``.
        own: (p,) float32, the pairs' own scores, of `dots`.
        own_places: (p,) int32, the places of their documents.
        best: (q, k) int64 keys, the least of each row first; changed.
        above: (p,) int64, raised by the documents before each pair; changed.
    """
    candidates = np.empty(coarse.shape[1], np.int32)
    keys = np.empty(coarse.shape[1] + best.shape[1], np.int64)
    for i in range(len(coarse)):
        for p in range(starts[i], starts[i + 1]):
            least, most = _bounds(own[p], slack[i])
            own_key = int(key_of(own[p], own_places[p]))
            for start in range(0, coarse.shape[1], _CHUNK):
                chunk = coarse[i, start : start + _CHUNK]
                above[p] += _count(chunk, start, least, most, own_key, queries[i], documents, places)
        if best.shape[1]:
            few = _candidates(coarse[i], slack[i], best[i], candidates)
            for c in range(few):
                j = candidates[c]
                keys[c] = key_of(_score(queries[i], documents[j]), places[j])
            _keep_best(keys, few, best[i])


@njit(nogil=True, cache=True)
def _candidates(coarse: np.ndarray, slack: float, best: np.ndarray, found: np.ndarray) -> int:
    """Write the documents of a row that may be among the best to ``found``; returns how many."""
    full = best[0] > NONE
    least = _bounds(key_score(best[0]), slack)[0] if full else _enough(coarse, slack, len(best))
    count = 0
    for start in range(0, len(coarse), _PEEK):
        chunk = coarse[start : start + _PEEK]
        if _above(chunk, least):
            for j in range(len(chunk)):
                if _order(chunk[j]) >= least:
                    found[count] = start + j
                    count += 1
    return count


@njit(nogil=True, cache=True)
def _enough(coarse: np.ndarray, slack: float, k: int) -> int:
    """The least bits of a row that can be among its best ``k``: not far below as many others."""
    counts = np.zeros(1 << 12, np.int32)  # by the upper 12 bits
    for j in range(len(coarse)):
        counts[(_order(coarse[j]) >> 4) + (1 << 11)] += 1
    bin, total = len(counts), 0
    while bin > 0 and total < k:
        bin -= 1
        total += counts[bin]
    if total < k:
        return _LEAST
    bits = (bin - (1 << 11)) << 4
    score = key_score(np.int64(bits << 16) << 32)  # k documents have this coarse score or more
    # Theirs may have been rounded up by its last digit and lie a slack above the exact ones, this one's below.
    return _bounds(score, 2 * slack + abs(np.float64(score)) / 128)[0]


@njit(nogil=True, cache=True)
def _keep_best(keys: np.ndarray, count: int, best: np.ndarray) -> None:
    """Let the first ``count`` keys compete with the best ones; the least of the new best ones stands first."""
    k = len(best)
    keys[count : count + k] = best
    best[:] = np.partition(keys[: count + k], count)[count:]
