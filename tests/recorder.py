"""A callback for runs that are to be interrupted: writes each batch down, sends signals at set steps."""

import hashlib
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from two_tower.callbacks import checkpoint, mining
from two_tower.data.stream.batch import Batch

MINING, SEARCH = "mining", mining.search
LAST = "SIGKILL of the last"


def digest(weights: Mapping[str, Tensor]) -> str:
    """A hash of every number's bits."""
    found = hashlib.sha256()
    for name in sorted(weights):
        found.update(weights[name].cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


class Recorder(Callback):
    """Writes ``RANK.jsonl``, a line per step with the ids of its queries, and ``RANK.weights`` at the end.

    A step after which the run is interrupted is done but in no checkpoint: Lightning calls the callbacks that
    write these last. Each interruption happens once: not in a process that finds its step written down.

    ``interruptions`` are ``STEPS_DONE:SIGNAL``. SIGKILL goes to all processes of the run, any other signal to the
    first of them only. ``STEPS_DONE:mining`` kills all in the middle of the first mining of negatives, due then, and
    ``STEPS_DONE:SIGKILL of the last`` the last process alone.
    """

    def __init__(self, folder: str, interruptions: list[str]) -> None:
        self._folder = Path(folder)
        pairs = [pair.split(":") for pair in interruptions]
        self._signals = {int(step): name for step, name in pairs if name != MINING}
        self._in_mining = any(name == MINING for _, name in pairs)
        self._mark = self._folder / "killed-in-mining"
        self._known: set[int] = set()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Read what earlier processes wrote; let checkpoints take the steps of this process for seconds.

        The clock of the second rank goes at half the speed, for the clocks of two machines never agree.
        """
        self._path = self._folder / f"{trainer.global_rank}.jsonl"
        if self._path.exists():
            self._known = {json.loads(line)["step"] for line in self._path.read_text().splitlines()}
        speed = 1 / (1 + trainer.global_rank)
        checkpoint.time = SimpleNamespace(monotonic=lambda: trainer.global_step * speed)  # type: ignore[assignment]
        if trainer.is_global_zero and self._in_mining and not self._mark.exists():
            mining.search = self._last_search  # type: ignore[assignment]

    def _last_search(self, *arguments: Any) -> None:  # noqa: ANN401
        SEARCH(*arguments)
        self._mark.touch()
        os.killpg(0, signal.SIGKILL)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        ids = trainer.datamodule.train.ids  # type: ignore[attr-defined]
        line = {"step": trainer.global_step, "queries": [ids[row].as_py() for row in batch.query_rows.tolist()]}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def on_train_batch_end(self, trainer: L.Trainer, *args: object) -> None:
        name = self._signals.get(trainer.global_step)
        who = trainer.world_size - 1 if name == LAST else 0
        if name is None or trainer.global_step - 1 in self._known or trainer.global_rank != who:
            return
        if name == "SIGKILL":
            os.killpg(0, signal.SIGKILL)
        else:
            os.kill(os.getpid(), signal.SIGKILL if name == LAST else signal.Signals[name])

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._path.with_suffix(".weights").write_text(digest(pl_module.state_dict()))
