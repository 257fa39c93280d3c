"""Keys that order documents, and the loops over a block of scores.

A **key** is an int64: the float32 score in the upper half, in bits that sort as the floats do, and in the
lower half the document's place among equal scores. "Comes before" is one integer comparison, so ties are
resolved exactly, also at the cut of a top-k. NaN counts as minus infinity, -0 as 0.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

__all__ = ["NONE", "key_of", "key_score", "key_scores", "scan", "torch_keys"]

NONE = np.iinfo(np.int64).min  # an empty place among the best: before every key
_LOWER = 0x7FFFFFFF
_MINUS_INFINITY = -8388608  # its bits as an int32
_CHUNK = 64  # documents that the top-k scan rejects together; 128 and 256 were slower


def key_scores(keys: np.ndarray) -> np.ndarray:
    """The float32 scores in int64 keys, any shape."""
    bits = (keys >> 32).astype(np.int32)
    return (bits ^ ((bits >> 31) & _LOWER)).view(np.float32)


def torch_keys(scores: Tensor, places: Tensor) -> Tensor:
    """(…, n) int64 keys of scores (…, n) float32 and places (n,) int32, on any device."""
    # Adding 0 turns -0 into 0.
    bits = (torch.where(scores.isnan(), -torch.inf, scores) + 0.0).view(torch.int32)
    return ((bits ^ ((bits >> 31) & _LOWER)).to(torch.int64) << 32) | places


@njit(nogil=True, cache=True)
def key_of(score: np.float32, place: int) -> np.int64:
    """The key of one document."""
    if score == 0:  # also -0, whose bits differ
        bits = np.int32(0)
    elif score > -np.inf:
        bits = np.float32(score).view(np.int32)
    else:
        bits = np.int32(_MINUS_INFINITY)
    return (np.int64(bits ^ ((bits >> 31) & _LOWER)) << 32) | np.int64(place)


@njit(nogil=True, cache=True)
def key_score(key: np.int64) -> np.float32:
    """The score in one key."""
    bits = np.int32(key >> 32)
    flipped = np.int32(bits ^ ((bits >> 31) & _LOWER))
    return flipped.view(np.float32)


# The next two loops have no branches, so that they become vector instructions: 0.2 ns a document.


@njit(nogil=True, cache=True)
def _count_above(scores: np.ndarray, places: np.ndarray, own: np.float32, own_place: int) -> int:
    """Documents of a row that come before the one with score ``own``."""
    count = 0
    if own > -np.inf:
        for j in range(len(scores)):
            count += (scores[j] > own) | ((scores[j] == own) & (places[j] > own_place))
    else:  # minus infinity and NaN are equal to each other
        for j in range(len(scores)):
            count += (scores[j] > -np.inf) | (places[j] > own_place)
    return count


@njit(nogil=True, cache=True)
def _any_from(scores: np.ndarray, least: np.float32) -> bool:
    count = 0
    for j in range(len(scores)):
        count += not (scores[j] < least)  # NaN as well
    return count > 0


@njit(nogil=True, cache=True)
def _replace_least(heap: np.ndarray, key: np.int64) -> None:
    i, k = 0, len(heap)
    while 2 * i + 1 < k:
        child = 2 * i + 1
        if child + 1 < k and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[i] = heap[child]
        i = child
    heap[i] = key


@njit(nogil=True, cache=True)
def _keep_best(scores: np.ndarray, places: np.ndarray, heap: np.ndarray, lowest: np.float32) -> None:
    """Offer a row's documents to a min-heap of keys; soon few chunks hold a candidate."""
    lowest_key = key_of(lowest, 0)
    least = lowest if heap[0] == NONE else key_score(heap[0])
    for start in range(0, len(scores), _CHUNK):
        stop = min(start + _CHUNK, len(scores))
        if not _any_from(scores[start:stop], least):
            continue
        for j in range(start, stop):
            if scores[j] < least:
                continue
            key = key_of(scores[j], places[j])
            if key >= lowest_key and key > heap[0]:
                _replace_least(heap, key)
                if heap[0] != NONE:
                    least = key_score(heap[0])


@njit(nogil=True, cache=True)
def scan(
    first: int,
    last: int,
    scores: np.ndarray,
    places: np.ndarray,
    starts: np.ndarray,
    own: np.ndarray,
    own_places: np.ndarray,
    lowest: np.float32,
    best: np.ndarray,
    above: np.ndarray,
) -> None:
    """Count before the pairs of rows ``first`` to ``last`` and keep the rows' best; reads each row once.

    Args:
        first: the first row, a query of the block.
        last: one past the last row.
        scores: (q, n) float32.
        places: (n,) int32, the documents' places.
        starts: (q + 1,) int64, row ``i`` has the pairs ``starts[i]`` to ``starts[i + 1]``.
        own: (p,) float32, the pairs' own scores.
        own_places: (p,) int32, the places of their documents.
        lowest: float32, the least score that is retrieved.
        best: (q, k) int64 keys, a min-heap a row; changed.
        above: (p,) int64, raised by the documents before each pair; changed.
    """
    for i in range(first, last):
        for p in range(starts[i], starts[i + 1]):
            above[p] += _count_above(scores[i], places, own[p], own_places[p])
        if best.shape[1]:
            _keep_best(scores[i], places, best[i], lowest)
