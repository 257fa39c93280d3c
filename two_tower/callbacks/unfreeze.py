"""When the word vectors begin to train, and what is trained at which rate, in the log."""

from __future__ import annotations

import logging
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from two_tower.tower.base import word_tables

log = logging.getLogger(__name__)


class Unfreeze(Callback):
    """Trains the word vectors from a given epoch on; logs the parameter groups when training starts.

    A frozen table takes no gradient, so it costs nothing, and stays in its parameter group, so the groups are the
    same before and after. Whether it is frozen follows from the epoch alone: a continued run needs no state, which
    Lightning's `BaseFinetuning` would keep, and replace the optimizer's groups by.
    """

    def __init__(self, freeze: bool | int = False) -> None:
        self.epoch = 1 if freeze is False else None if freeze is True else freeze

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        tables = word_tables(pl_module).values()
        vectors = {id(p) for table in tables for p in table.parameters() if p is not table.log_weights}
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                log.info("%s", self._describe(group, vectors))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._unfreeze_if_due(trainer, pl_module)  # an epoch that is continued is not started again
        if self.epoch is not None and trainer.max_epochs is not None and 0 < trainer.max_epochs < self.epoch:
            late = f"embedding.freeze={self.epoch} is after the last epoch (trainer.max_epochs={trainer.max_epochs})"
            log.warning(f"{late}: the word vectors stay frozen.")

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._unfreeze_if_due(trainer, pl_module):
            log.info("Epoch %d: the word vectors are trained from here on.", trainer.current_epoch + 1)

    def _unfreeze_if_due(self, trainer: L.Trainer, pl_module: L.LightningModule) -> bool:
        """Whether anything was unfrozen."""
        if self.epoch is None or trainer.current_epoch + 1 < self.epoch:
            return False
        frozen = [table for table in word_tables(pl_module).values() if not table.vectors.requires_grad]
        for table in frozen:
            table.freeze(False)
        return bool(frozen)

    def _describe(self, group: dict[str, Any], vectors: set[int]) -> str:
        """One line on a parameter group: size, rates, what of it is frozen."""
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
