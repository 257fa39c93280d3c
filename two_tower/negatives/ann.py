"""Documents that the model itself ranks high for a query and nobody judged relevant, mined again as it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from two_tower.errors import UserError
from two_tower.negatives._mined import MinedNegatives
from two_tower.negatives._table import Found, Kept, keep_candidates
from two_tower.negatives.base import Collection

__all__ = ["ANNNegatives"]


class ANNNegatives(MinedNegatives):
    """Documents of the ranks ``first_rank`` to ``last_rank`` of the current model (ANCE, Xiong et al. 2021).

    The callback `two_tower.callbacks.mining.Mining` writes a table at the beginning of an epoch; every process that
    makes batches of this epoch reads it. The search is exact, although the strategy is called after the approximate
    one of its paper (arXiv:2007.00808). Before ``first_epoch`` the documents are random: what is nearest to a query
    before training is so by chance.

    Args:
        count: see `MinedNegatives`.
        first_rank: see `MinedNegatives`.
        last_rank: see `MinedNegatives`.
        relative_margin: see `MinedNegatives`; compares the model's scores.
        first_epoch: the epoch, from 1, that first uses mined documents.
        every_n_epochs: epochs that use the same table.
        share_batch: see `Negatives`.
        mask_known: see `Negatives`.

    Raises:
        UserError: an epoch or a number of epochs below 1.
    """

    def __init__(
        self,
        count: int = 1,
        first_rank: int = 1,
        last_rank: int = 100,
        relative_margin: float | None = 0.05,
        first_epoch: int = 2,
        every_n_epochs: int = 1,
        share_batch: bool | None = None,
        mask_known: bool = True,
    ) -> None:
        super().__init__(count, first_rank, last_rank, relative_margin, share_batch, mask_known)
        for key, value in (("first_epoch", first_epoch), ("every_n_epochs", every_n_epochs)):
            if value < 1:
                raise UserError(f"negatives.{key}={value} must be at least 1.")
        self.first_epoch, self.every_n_epochs = first_epoch, every_n_epochs
        self._folder: Path | None = None

    def prepare(self, collection: Collection) -> None:
        """Remember where the tables are."""
        self._folder = collection.folder

    def table_of(self, epoch: int) -> Path | None:
        """The file of the table that an epoch (from 0) uses, named after the first epoch (from 1) that does.

        None before the first.
        """
        after = epoch + 1 - self.first_epoch
        if after < 0:
            return None
        assert self._folder is not None, "prepare was not called"
        return self._folder / f"epoch-{epoch + 1 - after % self.every_n_epochs:04d}.npy"

    def start_epoch(self, epoch: int) -> None:
        """Read the epoch's table.

        Raises:
            UserError: nobody has written it.
        """
        path = self.table_of(epoch)
        if path is not None and not path.exists():
            raise UserError(f"{path} does not exist: negatives=ann needs the callback mining (callbacks=default).")
        self.table = None if path is None else np.load(path, mmap_mode="r")

    def choose(self, found: Found, collection: Collection) -> tuple[np.ndarray, Kept]:
        """The table, (Q, C) int32, of what the model finds for all training queries, and what the filter did.

        Args:
            found: at least the ranks 1 to ``last_rank``, as far as there are documents.
            collection: knows the positives.
        """
        taken = slice(self.first_rank - 1, self.last_rank)
        part = Found(found.rows[:, taken], found.scores[:, taken], found.least)
        rows = np.arange(len(found.rows))
        return keep_candidates(part, rows, collection, self.relative_margin, self.mask_known)
