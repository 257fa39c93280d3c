"""A callback for runs that are to be killed while they mine negatives."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from two_tower.callbacks import mining


class MiningKiller(Callback):
    """Kills all processes of a run in the middle of its first mining, once.

    Args:
        folder: where it is noted that this has happened.
    """

    def __init__(self, folder: str) -> None:
        self._mark = Path(folder) / "killed"

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Let the search of the first process be the last thing that happens."""
        if not trainer.is_global_zero or self._mark.exists():
            return

        def search(*arguments: Any) -> mining.Found:  # noqa: ANN401
            original(*arguments)
            self._mark.touch()
            os.killpg(0, signal.SIGKILL)
            raise AssertionError

        original, mining.search = mining.search, search
