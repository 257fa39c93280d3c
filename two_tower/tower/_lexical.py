"""Fixed random dimensions of each word, so that texts that share words are near each other whatever they mean."""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from two_tower.ragged import Ragged
from two_tower.tower._lookup import Array, in_token_parts, on_cpu, pool_rows
from two_tower.tower.base import WordTable

BLOCK = 64  # dimensions of a pattern: the bits of a hash
PATTERNS = 1024  # they fit a core's cache (256 KB), where a table with a row for each word would not


class LexicalHalf(nn.Module):
    """Adds ``dims`` dimensions to a tower's vectors: the weighted mean of a fixed random vector of each word.

    Both halves are scaled, what the tower made of the text to length 1, the lexical half to ``scale``. A word's vector
    follows from its spelling alone: it is the same in every run, nothing of it is learned or stored, and a word that no
    run has seen has one. It consists of patterns of random signs, chosen by a hash of the word: nearly orthogonal to
    another word's, at the memory of a few integers a word. The unknown word has none.
    """

    def __init__(self, words: WordTable, dims: int, scale: float) -> None:
        super().__init__()
        if dims % BLOCK or dims < 0:
            raise ValueError(f"lexical_dims={dims} must be a multiple of {BLOCK}, or 0 for none")
        if scale <= 0:
            raise ValueError(f"lexical_scale={scale} must be above 0; lexical_dims=0 leaves the lexical half out")
        self.dims, self.scale = dims, scale
        self.codes: Tensor  # (blocks, V) int32, a row of ``patterns`` for each block of a word
        self.patterns: Tensor  # (P + 1, block), the last one zeros, for the unknown word
        self.register_buffer("codes", torch.from_numpy(_codes(words.spelling, dims // BLOCK)), persistent=False)
        self.register_buffer("patterns", torch.from_numpy(_patterns()), persistent=False)

    def forward(self, vectors: Tensor, tokens: Ragged, log_weights: Tensor) -> Tensor:
        """``vectors`` (B, D) of texts with their lexical half behind, (B, D + L)."""
        halves = F.normalize(vectors, dim=1), self.scale * F.normalize(self._means(tokens, log_weights), dim=1)
        return torch.cat(halves, dim=1)

    def rows(self) -> Tensor:
        """Every word's random vector, (V, L)."""
        return torch.cat([self.patterns[codes.long()] for codes in self.codes], dim=1)

    @torch.no_grad()
    def _means(self, tokens: Ragged, log_weights: Tensor) -> Tensor:
        """The mean of each text's words, weighted by ``exp(log_weights)``, (B, L) float32 up to a factor per text."""
        if on_cpu(log_weights):
            ids, offsets = tokens.ids.numpy(), tokens.offsets.numpy()
            weights = np.exp(log_weights.detach().numpy().take(ids))
            blocks = [_pooled(codes.take(ids), offsets, weights, self.patterns.numpy()) for codes in self.codes.numpy()]
            return torch.from_numpy(np.concatenate(blocks, axis=1))
        rows, starts = tokens.ids.long(), tokens.offsets[:-1]
        factors = log_weights[rows].exp().to(self.patterns.dtype)

        def sums(codes: Tensor) -> Tensor:
            return F.embedding_bag(codes, self.patterns, starts, mode="sum", per_sample_weights=factors)

        return torch.cat([sums(codes[rows].long()) for codes in self.codes], dim=1)


def _pooled(rows: Array, offsets: Array, weights: Array, table: Array) -> Array:
    means, totals = np.empty((len(offsets) - 1, table.shape[1]), np.float32), np.empty(len(offsets) - 1, np.float32)
    in_token_parts(lambda a, b: pool_rows(rows, offsets, a, b, table, weights, means, totals), offsets)
    return means


def _codes(words: Sequence[str], blocks: int) -> Array:
    """(blocks, V) int32 below `PATTERNS`, that of each block of each word; `PATTERNS` itself for an empty word."""
    _, starts, letters = pa.array(words, pa.large_string()).buffers()
    ends = np.frombuffer(starts or bytes(8), np.int64)[: len(words) + 1]
    hashes = _hashes(np.frombuffer(letters or b"\0", np.uint8), ends)
    steps = np.arange(1, blocks + 1, dtype=np.uint64)[:, None] * np.uint64(0x9E3779B97F4A7C15)
    codes = (_mixed(hashes + steps) >> np.uint64(64 - PATTERNS.bit_length() + 1)).astype(np.int32)
    codes[:, np.diff(ends) == 0] = PATTERNS
    return codes


def _patterns() -> Array:
    """(P + 1, block) float32, of -1 and 1; zeros last."""
    hashes = _mixed(np.arange(1, PATTERNS + 1, dtype=np.uint64)).astype("<u8")  # the same bytes on every machine
    bits = np.unpackbits(hashes.view(np.uint8).reshape(PATTERNS, -1), axis=1)
    return np.concatenate([2 * bits.astype(np.float32) - 1, np.zeros((1, BLOCK), np.float32)])


def _mixed(h: Array) -> Array:
    """A bijection of 64 bits in which every bit depends on every other (Stafford's mix 13, as in SplitMix64)."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@numba.njit(nogil=True, cache=True)
def _hashes(data: Array, ends: Array) -> Array:
    """(V,) uint64: FNV-1a of the bytes of each of V words that stand one after another."""
    hashes = np.empty(len(ends) - 1, np.uint64)
    for i in range(len(hashes)):
        h = np.uint64(0xCBF29CE484222325)
        for p in range(ends[i], ends[i + 1]):
            h = (h ^ np.uint64(data[p])) * np.uint64(0x100000001B3)
        hashes[i] = h
    return hashes
