"""When the word vectors begin to train, and what is trained at which rate, in the log."""

from __future__ import annotations

import logging
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from two_tower.tower.base import WordTable, word_tables

__all__ = ["Unfreeze"]

log = logging.getLogger(__name__)


class Unfreeze(Callback):
    """Trains the word vectors from a given epoch on; logs the parameter groups when training starts.

    A frozen table takes no gradient, so it costs nothing, and stays in its parameter group, so the groups are
    the same before and after. Whether it is frozen follows from the epoch alone: a continued run needs no state.

    Args:
        freeze: `embedding.freeze`: always, never, or until the epoch with this number, counted from 1.
    """

    def __init__(self, freeze: bool | int = False) -> None:
        self.epoch = 1 if freeze is False else None if freeze is True else freeze

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the parameter groups."""
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                log.info("%s", self._described(group, list(word_tables(pl_module).values())))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Freeze as the epoch says, also in the middle of one that is continued."""
        self._apply(trainer, pl_module)
        if self.epoch is not None and trainer.max_epochs is not None and 0 < trainer.max_epochs < self.epoch:
            log.warning(
                "embedding.freeze=%d is after the last epoch (trainer.max_epochs=%d): the word vectors stay frozen.",
                self.epoch, trainer.max_epochs,
            )  # fmt: skip

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Unfreeze when the epoch has come."""
        if self._apply(trainer, pl_module):
            log.info("Epoch %d: the word vectors are trained from here on.", trainer.current_epoch + 1)

    def _apply(self, trainer: L.Trainer, pl_module: L.LightningModule) -> bool:
        """Unfreeze if it is time; returns whether that changed anything."""
        frozen = [table for table in list(word_tables(pl_module).values()) if not table.vectors.requires_grad]
        if self.epoch is None or trainer.current_epoch + 1 < self.epoch:
            return False
        for table in frozen:
            table.freeze(False)
        return bool(frozen)

    def _described(self, group: dict[str, Any], tables: list[WordTable]) -> str:
        """One line on a parameter group: size, rates, what of it is frozen."""
        vectors = {id(table.vectors) for table in tables}
        frozen = [p for p in group["params"] if not p.requires_grad]
        later = sum(p.numel() for p in frozen if id(p) in vectors) if self.epoch is not None else 0
        never = sum(p.numel() for p in frozen) - later
        parts = [
            f"{sum(p.numel() for p in group['params']):,} parameters",
            f"learning rate {group.get('initial_lr', group['lr']):g}",
            f"weight decay {group['weight_decay']:g}",
            *([f"{later:,} of them frozen until epoch {self.epoch}"] if later else []),
            *([f"{never:,} of them frozen"] if never else []),
        ]
        return f"Parameter group {group['name']}: {', '.join(parts)}."
