"""Pairs of neighbouring words, hashed into a table of their own: what the average of words cannot see."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from two_tower.ragged import Ragged
from two_tower.tower._words import Repeats, WordTable

__all__ = ["Bigrams", "hashed_bigrams"]

# Odd 64-bit constants (Steele and Vigna 2021, arXiv:2001.05304) as signed integers; products wrap around.
FIRST, SECOND = 0x4F4A1B5C9D3E7A35, 0x2545F4914F6CDD1D


def hashed_bigrams(tokens: Ragged, buckets: int) -> Ragged:
    """Each text's pairs of neighbouring tokens, as numbers 0 … ``buckets`` - 1; none for a text of one token.

    The number depends on the two tokens and their order only, on any device.
    """
    ids = tokens.ids.long()
    mixed = (ids[:-1] * FIRST + ids[1:] + 1) * SECOND
    pairs = ((mixed >> 32) & 0xFFFFFFFF) % buckets
    starts, lengths = tokens.offsets[:-1], tokens.lengths
    within = torch.ones(len(ids), dtype=torch.bool, device=tokens.device)
    within[(starts + lengths - 1)[lengths > 0]] = False
    offsets = torch.zeros_like(tokens.offsets)
    torch.cumsum((lengths - 1).clamp(min=0), 0, out=offsets[1:])
    return Ragged(pairs[within[:-1]].int(), offsets)


class Bigrams(nn.Module):
    """Vectors of hashed bigrams, which start at zero, so that a tower starts as it is without them.

    Source:
        The hashing trick of fastText's classifier, Joulin et al. 2016, arXiv:1607.01759.

    Args:
        buckets: how many vectors the pairs share.
        dim: D.
    """

    def __init__(self, buckets: int, dim: int) -> None:
        super().__init__()
        self.table = WordTable(buckets, dim, of_words=False)

    def forward(self, tokens: Ragged, repeats: Repeats = "all") -> Tensor:
        """Weighted mean of the vectors of each text's bigrams, (B, D); zero for a text of one word."""
        pairs = hashed_bigrams(tokens, len(self.table.vectors))
        return self.table.pool(pairs, repeats)
