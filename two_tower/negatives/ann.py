"""Documents that the model itself ranks high and nobody judged relevant, mined again as it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from two_tower.errors import UserError, at_least
from two_tower.negatives._mined import FilterCounts, MinedNegatives, SearchResult, filter_candidates
from two_tower.negatives.base import Collection


class ANNNegatives(MinedNegatives):
    """Documents of the ranks ``first_rank`` to ``last_rank`` of the current model (ANCE, Xiong et al. 2021).

    The callback `two_tower.callbacks.mining.Mining` writes a table at the beginning of an epoch, and every process
    that makes batches of this epoch reads it. The search is exact, the paper's (arXiv:2007.00808) approximate.
    """

    def __init__(
        self,
        count: int = 1,
        first_rank: int = 1,
        last_rank: int = 100,
        relative_margin: float | None = 0.05,
        first_epoch: int = 2,
        every_n_epochs: int = 1,
        in_batch_negatives: bool | None = None,
        mask_known_positives: bool = True,
    ) -> None:
        super().__init__(count, first_rank, last_rank, relative_margin, in_batch_negatives, mask_known_positives)
        at_least(1, first_epoch=first_epoch, every_n_epochs=every_n_epochs)
        self.first_epoch, self.every_n_epochs = first_epoch, every_n_epochs
        self._folder: Path | None = None

    def prepare(self, collection: Collection) -> None:
        self._folder = collection.folder

    def table_path(self, epoch: int) -> Path | None:
        """The table of an epoch (from 0), named after the first epoch (from 1) that uses it; None before the first."""
        after = epoch + 1 - self.first_epoch
        if after < 0:
            return None
        assert self._folder is not None, "prepare was not called"
        return self._folder / f"epoch-{epoch + 1 - after % self.every_n_epochs:04d}.npy"

    def start_epoch(self, epoch: int) -> None:
        path = self.table_path(epoch)
        if path is not None and not path.exists():
            raise UserError(f"{path} does not exist: negatives=ann needs the callback mining (callbacks=default).")
        self.table = None if path is None else np.load(path, mmap_mode="r")

    def choose(self, found: SearchResult, collection: Collection) -> tuple[np.ndarray, FilterCounts]:
        """The (Q, C) int32 table from the first ``last_rank`` candidates of all training queries, and the counts."""
        found = found.ranks(self.first_rank, self.last_rank)
        rows = np.arange(len(found.rows))
        return filter_candidates(found, rows, collection, self.relative_margin, self.mask_known_positives)
