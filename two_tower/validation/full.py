"""Validation as a callback: before training and after every epoch, beside BM25, against the whole corpus."""

from __future__ import annotations

import time
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import Callback

from two_tower.data.module import TripletData
from two_tower.data.stream.corpus import Corpus, Split
from two_tower.logger import log_epoch
from two_tower.metrics import DEFAULT_METRICS, parse
from two_tower.model import TwoTower
from two_tower.ranking import write_run
from two_tower.report import per_query
from two_tower.report.console import EpochTable
from two_tower.report.run import Run
from two_tower.validation.evaluate import Evaluation, evaluate_bm25, evaluate_dense

__all__ = ["FullValidation"]

# The attributes that are kept in checkpoints.
_KEPT = ("untrained", "bm25", "history", "split", "queries", "documents", "all_documents")


class FullValidation(Callback):
    """Ranks every passage of the corpus for every validation query.

    Logs ``val/METRIC`` after each epoch, ``untrained/METRIC`` and ``bm25/METRIC`` once. The epoch with
    the best ``monitor`` gets its ranking written to ``run.trec``, and what each query scores to
    ``per_query.csv``. Epoch 0, the untrained model, is a baseline and never the best.

    Args:
        run: the run folder.
        metrics: what to compute, see `two_tower.metrics`.
        monitor: the metric that says which epoch is best (larger is better).
        depth: how many documents per query the run file keeps.
        bm25: compute the lexical baseline.

    Attributes:
        split: name of the validation split.
        queries: how many it has.
        documents: how many passages each is ranked against.
        all_documents: how many the corpus has.
        untrained: metric → value before training.
        bm25: metric → value of the lexical baseline; empty without it.
        history: the epochs: ``epoch``, ``seconds``, ``loss`` (of the last step) and metric → value.

    Raises:
        UserError: there is no such metric.
    """

    def __init__(
        self,
        run: Run,
        metrics: list[str] | None = None,
        monitor: str = "mrr@10",
        depth: int = 100,
        bm25: bool = True,
    ) -> None:
        self.run, self.monitor, self.depth, self.with_bm25 = run, monitor, depth, bm25
        self.metrics = list(metrics or DEFAULT_METRICS)
        if monitor not in self.metrics:
            self.metrics.append(monitor)
        for name in self.metrics:
            parse(name)
        self.untrained: dict[str, float] = {}
        self.bm25: dict[str, float] = {}
        self.history: list[dict[str, float]] = []
        self.split, self.queries, self.documents, self.all_documents = "", 0, 0, 0
        self._corpus: Corpus
        self._split: Split
        self._bm25: Evaluation | None = None
        self._table: EpochTable | None = None

    @property
    def best(self) -> dict[str, float] | None:
        """The best trained epoch so far (the earliest of equals), or None before the first."""
        return max(self.history, key=lambda row: row[self.monitor], default=None)

    def collection(self, data: TripletData) -> tuple[Corpus, Split]:
        """What is ranked: passages, and queries with their judgements in rows of these passages.

        Asked for once, when training starts. A subclass may choose fewer passages.
        """
        return data.corpus, data.validation

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure BM25 and the untrained towers, unless a continued run knows them already."""
        data = cast(TripletData, trainer.datamodule)  # type: ignore[attr-defined]
        self._corpus, self._split = self.collection(data)
        self.split, self.queries = self._split.name, len(self._split)
        self.documents, self.all_documents = len(self._corpus), len(data.corpus)
        if trainer.is_global_zero:
            self._table = EpochTable(self.metrics, self.queries, self.documents, self.split, self.all_documents)
        start = time.perf_counter()
        if self.with_bm25:
            self._bm25 = evaluate_bm25(self._corpus, self._split, data.tokenizer, self.depth, self.metrics)
            self.bm25 = self._bm25.means
        self._show("BM25", self.bm25, time.perf_counter() - start)
        seconds = 0.0
        if not self.untrained:
            evaluation = self._evaluate(pl_module)
            self.untrained, seconds = evaluation.means, evaluation.seconds
            baselines = {f"untrained/{k}": v for k, v in self.untrained.items()}
            baselines |= {f"bm25/{k}": v for k, v in self.bm25.items()}
            for logger in trainer.loggers:
                logger.log_metrics(baselines, step=0)
        self._show("untrained", self.untrained, seconds)
        for row in self.history:
            self._show_epoch(row)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure the epoch; Lightning calls checkpoints and schedulers after this."""
        evaluation = self._evaluate(pl_module)
        row = {"epoch": float(trainer.current_epoch + 1), "seconds": evaluation.seconds, **evaluation.means}
        if "train/loss" in trainer.callback_metrics:
            row["loss"] = float(trainer.callback_metrics["train/loss"])
        self.history.append(row)
        metrics = {f"val/{k}": v for k, v in evaluation.means.items()}
        pl_module.log_dict(metrics, logger=False)  # for checkpoints, schedules and early stopping
        log_epoch(trainer, metrics)
        if row is self.best and trainer.is_global_zero:
            self._keep(evaluation)
        self._show_epoch(row)

    def _evaluate(self, pl_module: L.LightningModule) -> Evaluation:
        return evaluate_dense(cast(TwoTower, pl_module), self._corpus, self._split, self.depth, self.metrics)

    def _keep(self, evaluation: Evaluation) -> None:
        """Write the ranking of the best epoch, and what every query scores, beside BM25."""
        folder, ids = self.run.path, self._split.ids
        write_run(folder / "run.trec", ids, self._corpus.ids, evaluation.ranking, tag=folder.name)
        values = dict(evaluation.per_query)
        if self._bm25 is not None:
            values |= {f"bm25/{metric}": v for metric, v in self._bm25.per_query.items()}
        per_query.write(folder / "per_query.csv", ids.to_pylist(), values, self._split.texts.to_pylist())

    def _show_epoch(self, row: dict[str, float]) -> None:
        self._show(f"epoch {int(row['epoch'])}", row, row["seconds"], row is self.best, row.get("loss"))

    def _show(
        self,
        name: str,
        means: dict[str, float],
        seconds: float,
        best: bool = False,
        loss: float | None = None,
    ) -> None:
        if self._table is not None and means:
            self._table.row(name, means, seconds, best, loss)

    def state_dict(self) -> dict[str, Any]:
        """What a continued run must not measure again (the towers are trained by then), and what was ranked.

        The latter for a run that was interrupted after its last epoch: `on_train_start` is not called then.
        """
        return {name: getattr(self, name) for name in _KEPT}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the measurements of the interrupted run."""
        vars(self).update(state_dict)
