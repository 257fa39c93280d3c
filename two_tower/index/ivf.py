"""Lists of vectors by their nearest centre."""

from __future__ import annotations

import logging
import math
from typing import Any

from two_tower.errors import UserError
from two_tower.index._faiss import FaissIndex
from two_tower.index.base import at_least

__all__ = ["IvfIndex", "IvfPqIndex"]

log = logging.getLogger(__name__)

# Vectors that a centre must stand for: FAISS warns below it.
LEAST_PER_LIST = 39
FEW = 1000  # vectors that nothing is gained by shortening


class IvfIndex(FaissIndex):
    """Vectors in lists by their nearest centre; a search reads some of the lists. Builds fast, needs no more memory.

    Args:
        lists: how many; None: 4 times the root of the number of vectors.
        probes: lists that a search reads.
        gpu: see `FaissIndex`.

    Raises:
        UserError: a size below 1.
    """

    knob, name, grid = (
        "nprobe",
        "probes",
        (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192),
    )

    def __init__(self, lists: int | None = None, probes: int = 16, gpu: bool = False) -> None:
        super().__init__(gpu)
        at_least(1, lists=lists, probes=probes)
        self.lists, self.probes = lists, probes

    def factory(self, rows: int, dim: int) -> str:
        """See `FaissIndex.factory`."""
        return f"IVF{self._count(rows)},Flat"

    def _prepare(self, index: Any) -> None:  # noqa: ANN401
        lists = index.nlist
        self.grid = (*(probes for probes in type(self).grid if probes < lists), lists)

    def _count(self, rows: int) -> int:
        """Lists: as asked for, but no more than there are vectors to tell them apart."""
        most = max(1, rows // LEAST_PER_LIST)
        if self.lists is not None and self.lists > most:
            log.warning("index.lists=%d is too many for %s vectors: %d lists.", self.lists, f"{rows:,}", most)
        return min(self.lists or round(4 * math.sqrt(rows)), most)


class IvfPqIndex(IvfIndex):
    """As `IvfIndex`, each vector in some bytes (product quantisation, Jégou et al. 2011): for what exceeds memory.

    Args:
        lists: see `IvfIndex`.
        probes: see `IvfIndex`.
        pieces: bytes of a vector, each for a piece of it; None: one for about four dimensions. It must divide the
            dimensions.
        gpu: see `FaissIndex`.
    """

    def __init__(
        self, lists: int | None = None, probes: int = 32, pieces: int | None = None, gpu: bool = False
    ) -> None:
        super().__init__(lists, probes, gpu)
        at_least(1, pieces=pieces)
        self.pieces = pieces

    def factory(self, rows: int, dim: int) -> str:
        """See `FaissIndex.factory`; with too few vectors for 256 centres a piece, fewer bits each, or none.

        Raises:
            UserError: ``pieces`` does not divide the dimensions.
        """
        pieces = self.pieces or next(p for p in range(max(1, dim // 4), 0, -1) if dim % p == 0)
        if dim % pieces:
            raise UserError(f"index.pieces={pieces} must divide the {dim} dimensions of the vectors.")
        if rows < FEW:
            return super().factory(rows, dim)
        bits = max(1, min(8, int(math.log2(max(2, rows / LEAST_PER_LIST)))))
        return f"IVF{self._count(rows)},PQ{pieces}x{bits}"
