"""Token batches without padding: all ids one after another, and where each text starts.

This is the only form in which tokens cross a module border, so no pad token can be averaged in or be
the last state of an RNN. Shape legend used in the whole package:

    B  texts (or queries) of a batch     N  documents of a batch or corpus     T  tokens, all texts together
    D  dimensions of a vector            V  rows of a word table
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numba
import numpy as np
import torch
from torch import Tensor


@numba.njit(nogil=True, cache=True)
def _select(ids: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Copy the texts one by one, three times as fast as an index for every token."""
    out_offsets = np.zeros(len(rows) + 1, np.int64)
    for i in range(len(rows)):
        out_offsets[i + 1] = out_offsets[i] + offsets[rows[i] + 1] - offsets[rows[i]]
    out = np.empty(out_offsets[-1], ids.dtype)
    for i in range(len(rows)):
        text, place = ids[offsets[rows[i]] : offsets[rows[i] + 1]], out[out_offsets[i] : out_offsets[i + 1]]
        for t in range(len(place)):  # from 0, which the compiler makes vector instructions of
            place[t] = text[t]
    return out, out_offsets


@numba.njit(nogil=True, cache=True)
def _frequencies(ids: np.ndarray, offsets: np.ndarray, size: int) -> np.ndarray:
    counts, last = np.zeros(size, np.int64), np.full(size, -1, np.int64)
    for text in range(len(offsets) - 1):
        for t in range(offsets[text], offsets[text + 1]):
            word = ids[t]
            if last[word] != text:
                last[word] = text
                counts[word] += 1
    return counts


@dataclass(frozen=True, eq=False)
class Ragged:
    """A batch of token sequences."""

    ids: Tensor  # (T,) int32, the tokens of all texts, one text after another
    offsets: Tensor  # (B + 1,) int64, from 0 to T; text ``i``, perhaps empty, is ``ids[offsets[i]:offsets[i + 1]]``

    @classmethod
    def from_numpy(cls, ids: np.ndarray, offsets: np.ndarray) -> Ragged:
        return cls(torch.from_numpy(ids), torch.from_numpy(offsets))

    @classmethod
    def from_lists(cls, texts: Sequence[Sequence[int]]) -> Ragged:
        offsets = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([len(t) for t in texts], out=offsets[1:])
        ids = np.fromiter((i for t in texts for i in t), np.int32, count=int(offsets[-1]))
        return cls.from_numpy(ids, offsets)

    @classmethod
    def join(cls, batches: Sequence[Ragged]) -> Ragged:
        """The texts of several batches as one batch, in order."""
        if not batches:
            return cls.from_lists([])
        offsets, end = [batches[0].offsets[:1]], 0
        for batch in batches:
            offsets.append(batch.offsets[1:] + end)
            end += int(batch.offsets[-1])
        return cls(torch.cat([b.ids for b in batches]), torch.cat(offsets))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:  # (B,) int64, tokens per text
        return self.offsets.diff()

    @property
    def device(self) -> torch.device:
        return self.ids.device

    def select(self, rows: Tensor | np.ndarray | Sequence[int]) -> Ragged:
        """The texts ``rows`` (R,), in that order, perhaps repeated. On a CPU a missing row raises an IndexError."""
        rows = torch.as_tensor(rows, dtype=torch.int64, device=self.offsets.device)
        if self.device.type == "cpu":
            if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(self):
                raise IndexError(f"a row is outside 0 … {len(self) - 1}")
            return Ragged.from_numpy(*_select(self.ids.numpy(), self.offsets.numpy(), rows.numpy()))
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        offsets = torch.zeros(len(rows) + 1, dtype=torch.int64, device=rows.device)
        torch.cumsum(lengths, 0, out=offsets[1:])
        # Token t of the result stands at t + (start in the source - start in the result) in the source.
        shift = torch.repeat_interleave(starts - offsets[:-1], lengths)
        return Ragged(self.ids[shift + torch.arange(len(shift), device=rows.device)], offsets)

    def slice(self, start: int, stop: int) -> Ragged:
        """The texts ``start`` to ``stop`` (exclusive); the ids are a view, nothing is copied."""
        offsets = self.offsets[start : stop + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        return Ragged(self.ids[first:last], offsets - first)

    def frequencies(self, size: int) -> np.ndarray:
        """In how many texts each id below ``size`` occurs, (size,) int64; memory does not grow with the texts."""
        return _frequencies(self.ids.numpy(), self.offsets.numpy(), size)

    def any(self, mask: np.ndarray) -> np.ndarray:
        """(B,) bool: which texts have a token where ``mask`` (T,) bool is true; on a CPU."""
        ends = np.concatenate([[0], np.cumsum(mask)])
        return np.diff(ends[self.offsets.numpy()]) > 0

    def keep(self, mask: Tensor) -> Ragged:
        """Only the tokens where ``mask`` (T,) bool is true; a text may become empty."""
        ends = torch.zeros(len(mask) + 1, dtype=torch.int64, device=mask.device)
        torch.cumsum(mask, 0, out=ends[1:])
        return Ragged(self.ids[mask], ends[self.offsets])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Ragged:
        return Ragged(*(t.to(device, non_blocking=non_blocking) for t in (self.ids, self.offsets)))

    def pin_memory(self) -> Ragged:
        """The batch in page-locked memory, from which copies to a GPU run beside the computation."""
        return Ragged(self.ids.pin_memory(), self.offsets.pin_memory())

    def to_lists(self) -> list[list[int]]:
        ids = self.ids.tolist()
        return [ids[a:b] for a, b in pairwise(self.offsets.tolist())]


def expand_ranges(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All numbers of R ranges: for each number which range it is of, and the number itself, two arrays (T,) int64.

    ``starts`` and ``ends`` are (R,) integers; ends are exclusive, none before its start.
    """
    counts = ends - starts
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
