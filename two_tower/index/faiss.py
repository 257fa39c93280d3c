"""Any index that FAISS can describe in a string."""

from __future__ import annotations

from typing import Any

from two_tower.errors import UserError
from two_tower.index._faiss import FaissIndex, reason

__all__ = ["FactoryIndex"]


class FactoryIndex(FaissIndex):
    """Whatever FAISS's factory strings describe, for example ``OPQ32,IVF1024,PQ32``.

    Args:
        factory_string: see FAISS's wiki, "The index factory".
        parameters: FAISS's search parameters, for example ``nprobe=32``; several with commas between.
        gpu: see `FaissIndex`.
    """

    def __init__(self, factory_string: str = "Flat", parameters: str = "", gpu: bool = False) -> None:
        super().__init__(gpu)
        self.factory_string, self.parameters = factory_string, parameters

    def factory(self, rows: int, dim: int) -> str:
        """See `FaissIndex.factory`."""
        return self.factory_string

    def _apply(self) -> None:
        import faiss

        if not self.parameters:
            return
        try:
            space: Any = faiss.ParameterSpace()
            space.set_index_parameters(self._index, self.parameters)
        except RuntimeError as error:
            raise UserError(f"index.parameters={self.parameters} is refused by FAISS: {reason(error)}.") from error
