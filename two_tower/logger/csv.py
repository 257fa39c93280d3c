"""The history of a run as one CSV file that survives interruption."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from two_tower.files import atomic_path
from two_tower.logger.base import RunLogger

# The whole file is written each time (new metrics bring new columns), so not more often than this.
SECONDS_BETWEEN_WRITES = 5.0


class CsvLogger(RunLogger):
    """Writes ``metrics.csv``: a row per logged step, a column per metric, empty where not logged.

    Lightning's own deletes the file when a run continues; this one keeps the rows up to the step where it continues.
    """

    may_repeat = True
    name = "csv"
    version = ""  # Lightning's version of a run; there is only one

    def __init__(self, path: Path | str) -> None:
        super().__init__()
        self._path = Path(path)
        self._rows: list[dict[str, Any]] = []
        self._written = 0.0
        if self._path.exists():
            with self._path.open(newline="", encoding="utf-8") as file:
                self._rows = [{k: v for k, v in row.items() if v != ""} for row in csv.DictReader(file)]

    @property
    def save_dir(self) -> str:
        return str(self._path.parent)  # where Lightning's profilers write to

    @property
    @rank_zero_experiment
    def experiment(self) -> None:
        """No underlying object."""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Nothing: the run folder holds the configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add values at a step; several calls for one step share a row."""
        if self._rows and int(self._rows[-1]["step"]) == step:
            self._rows[-1].update(metrics)
        else:
            self._rows.append({"step": step or 0, **metrics})

    @rank_zero_only
    def rewind(self, step: int) -> None:
        self._rows = [row for row in self._rows if int(row["step"]) < step]

    @rank_zero_only
    def save(self) -> None:  # which Lightning calls at every logged step
        if time.monotonic() - self._written >= SECONDS_BETWEEN_WRITES:
            self.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.flush()

    @rank_zero_only
    def flush(self) -> None:
        columns = list(dict.fromkeys(["step", "epoch", *(k for row in self._rows for k in row)]))
        with atomic_path(self._path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self._rows)
        self._written = time.monotonic()
