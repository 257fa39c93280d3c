"""A graph of neighbours: the fastest search."""

from __future__ import annotations

from typing import Any, Literal

from two_tower.errors import UserError
from two_tower.index._faiss import FaissIndex
from two_tower.index.base import at_least

__all__ = ["HnswIndex"]


class HnswIndex(FaissIndex):
    """A graph of near neighbours (Malkov and Yashunin 2018, arXiv:1603.09320): the fastest search, needs memory.

    Args:
        m: neighbours of each vector; 4 bytes each, twice.
        ef_construction: candidates while the graph is built; more is slower and better.
        ef_search: candidates while it is searched.
        dtype: what a number is kept as in the graph; float16 takes half the memory and two thirds of the time.
        gpu: see `FaissIndex`; FAISS has no such graph on a GPU.

    Raises:
        UserError: ``gpu``, or a size too small.
    """

    knob, name, grid = "efSearch", "ef_search", (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)

    def __init__(
        self,
        m: int = 32,
        ef_construction: int = 200,
        ef_search: int = 64,
        dtype: Literal["float16", "float32"] = "float16",
        gpu: bool = False,
    ) -> None:
        if gpu:
            raise UserError("index=hnsw has no GPU form in FAISS: use index=ivf or index=flat with index.gpu=true.")
        super().__init__()
        at_least(2, m=m)  # with fewer, FAISS ends the process
        at_least(1, ef_construction=ef_construction, ef_search=ef_search)
        self.m, self.ef_construction, self.ef_search = m, ef_construction, ef_search
        self.storage = {"float16": "SQfp16", "float32": "Flat"}[dtype]

    def factory(self, rows: int, dim: int) -> str:
        """See `FaissIndex.factory`."""
        return f"HNSW{self.m},{self.storage}"

    def _prepare(self, index: Any) -> None:  # noqa: ANN401
        index.hnsw.efConstruction = self.ef_construction
