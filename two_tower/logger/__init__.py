"""Loggers. The CSV history is always written."""

from __future__ import annotations

from collections.abc import Mapping

import lightning as L

__all__ = ["log_epoch"]


def log_epoch(trainer: L.Trainer, metrics: Mapping[str, float]) -> None:
    """Hand the figures of an epoch to all loggers at once.

    ``LightningModule.log`` hands them on only after the epoch's checkpoint is written: a run killed in
    between would lack them when it continues.
    """
    for logger in trainer.loggers:
        logger.log_metrics({"epoch": trainer.current_epoch, **metrics}, step=trainer.global_step - 1)
