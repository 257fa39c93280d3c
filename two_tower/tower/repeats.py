"""What a word counts that a text repeats: less each time, as in BM25."""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from two_tower.ragged import Ragged
from two_tower.tower._kernels import in_parts

__all__ = ["damped"]


def damped(tokens: Ragged) -> Tensor:
    """What each token counts, so that a word which stands n times in its text counts ``log2(1 + n)`` altogether.

    Source:
        Logarithmic term frequency, Salton and Buckley 1988, doi:10.1016/0306-4573(88)90021-0.

    Args:
        tokens: B texts with T tokens.

    Returns:
        (T,) float32 on the device of the tokens: ``log2(1 + n) / n``, so 1 for a word that stands once. Depends on
        the token's own text only.
    """
    if tokens.device.type != "cpu":
        return _on_any_device(tokens)
    ids, offsets = tokens.ids.numpy(), tokens.offsets.numpy()
    out = np.empty(len(ids), np.float32)
    in_parts(lambda first, last: _damp(ids, offsets, first, last, out), offsets)
    return torch.from_numpy(out)


def _on_any_device(tokens: Ragged) -> Tensor:
    texts = torch.repeat_interleave(torch.arange(len(tokens), device=tokens.device), tokens.lengths)
    ids = tokens.ids.long()
    words = texts * (ids.max() + 1 if len(ids) else 1) + ids
    _, place, counts = torch.unique(words, return_inverse=True, return_counts=True)
    times = counts.double()
    return ((1 + times).log2() / times).float()[place]


@numba.njit(nogil=True, cache=True)
def _damp(ids: np.ndarray, offsets: np.ndarray, first: int, last: int, out: np.ndarray) -> None:
    """The factors (T,) of the texts ``first`` to ``last``, by counting each one's words in a small hash table."""
    longest, bits = 1, 3
    for b in range(first, last):
        longest = max(longest, offsets[b + 1] - offsets[b])
    while 2**bits < 2 * longest:
        bits += 1
    words, times = np.full(2**bits, -1, np.int32), np.zeros(2**bits, np.int32)
    places, factors = np.empty(longest, np.int64), np.empty(longest + 1, np.float32)
    for n in range(1, longest + 1):
        factors[n] = np.log2(1.0 + n) / n
    mask = 2**bits - 1
    for b in range(first, last):
        start, length = offsets[b], offsets[b + 1] - offsets[b]
        for t in range(length):
            word = ids[start + t]
            # Fibonacci hashing; the high bits are the mixed ones.
            place = ((np.int64(word) * 0x9E3779B1) >> 12) & mask
            while words[place] != word and words[place] >= 0:
                place = (place + 1) & mask
            words[place] = word
            times[place] += 1
            places[t] = place
        for t in range(length):
            out[start + t] = factors[times[places[t]]]
        for t in range(length):
            words[places[t]] = -1
            times[places[t]] = 0
