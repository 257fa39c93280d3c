"""TensorBoard: event files in the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from lightning.pytorch import loggers
from lightning.pytorch.utilities import rank_zero_only

from two_tower.errors import UserError
from two_tower.logger.base import RunLogger
from two_tower.run import Run


class TensorBoardLogger(loggers.TensorBoardLogger, RunLogger):
    """Event files in the run folder's ``tensorboard``, a new one whenever the run is continued.

    An interrupted run has logged steps after its last checkpoint; the continued one logs these again.
    """

    def __init__(self, run: Run) -> None:
        try:
            super().__init__(run.path, name="", version="tensorboard", default_hp_metric=False)
        except ModuleNotFoundError as error:
            raise UserError('logger=tensorboard needs its package: pip install -e ".[tensorboard]"') from error

    @rank_zero_only
    def log_histogram(self, name: str, counts: Sequence[int], limits: tuple[float, float], step: int) -> None:
        edges = np.linspace(*limits, len(counts) + 1)
        middles, numbers = (edges[1:] + edges[:-1]) / 2, np.array(counts)
        self.experiment.add_histogram_raw(
            name, min=limits[0], max=limits[1], num=int(numbers.sum()), sum=float(numbers @ middles),
            sum_squares=float(numbers @ middles**2), bucket_limits=edges[1:].tolist(), bucket_counts=numbers.tolist(),
            global_step=step,
        )  # fmt: skip

    @rank_zero_only
    def log_table(self, key: str, columns: Sequence[str], data: Sequence[Sequence[Any]], step: int) -> None:
        """Log a table as Markdown, which TensorBoard renders."""
        rows = [columns, ["---"] * len(columns), *([_cell(value) for value in row] for row in data)]
        self.experiment.add_text(key, "\n".join(f"| {' | '.join(row)} |" for row in rows), step)


def _cell(value: Any) -> str:  # noqa: ANN401
    return "" if value is None else " ".join(str(value).split()).replace("|", "\\|")
