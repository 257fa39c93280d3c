"""Validation as a callback: before training, after every epoch and in between, beside BM25, on the whole corpus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import Callback

from two_tower.console import CheckTable, name_of_check
from two_tower.data.stream.corpus import Corpus, Split
from two_tower.data.stream.module import TripletData
from two_tower.errors import UserError
from two_tower.fusion import DEPTH
from two_tower.logger import log_epoch
from two_tower.metrics import DEFAULT_METRICS, parse, per_query
from two_tower.model import TwoTower
from two_tower.ranking import Ranking, write_run
from two_tower.run import Run
from two_tower.validation._evaluate import Evaluation, evaluate_bm25, evaluate_dense
from two_tower.validation._hybrid import evaluate_hybrid

__all__ = ["FullValidation"]

# The attributes that are kept in checkpoints.
_KEPT = ("untrained", "bm25", "history", "split", "queries", "documents", "all_documents", "spent")


class FullValidation(Callback):
    """Ranks every passage of the corpus for every validation query.

    A check is made at the end of every epoch, and every so many steps where that is asked for. Each logs
    ``val/METRIC``; ``untrained/METRIC`` and ``bm25/METRIC`` are logged once. The check with the best ``monitor`` gets
    its ranking written to ``run.trec``, and what each query scores to ``per_query.csv``. The untrained model is a
    baseline and never the best.

    Other callbacks that ask for ``validation`` in their constructor get this one. It comes first in the trainer's
    list, so in their ``on_train_batch_end`` and ``on_train_epoch_end`` they find a check that was just made.

    Args:
        run: the run folder.
        metrics: what to compute, see `two_tower.metrics`.
        monitor: the metric that says which check is best (larger is better).
        depth: how many documents per query the run file keeps.
        bm25: compute the lexical baseline.
        every_n_steps: optimizer steps between two checks within an epoch; None = only at the end of epochs.
        hybrid: also measure the fusion with BM25 at each check, see `two_tower.validation._hybrid`.

    Attributes:
        split: name of the validation split.
        queries: how many it has.
        documents: how many passages each is ranked against.
        all_documents: how many the corpus has.
        untrained: metric → value before training.
        bm25: metric → value of the lexical baseline; empty without it.
        history: the checks: ``epoch`` (1.5 is in the middle of the second), ``step``, ``seconds``, ``loss`` (of the
            last step), metric → value and, where asked for, ``hybrid/METRIC`` → value and ``hybrid_seconds``.
        spent: seconds that all this took so far.
        corpus: the passages that are ranked; set when training starts.
        queries_split: the queries and their judgements, in rows of these passages; set when training starts.
        latest: the newest check's evaluation; None before the first of this process.
        baseline: the untrained model's; None in a run that is continued.
        bm25_evaluation: BM25's; None without it.
        checked_at: the trainer's ``global_step`` of the newest check of this process, or None.
        just_checked: whether a check was made in the hook that now runs. Unlike ``checked_at`` this is never true
            twice for one check, as when an epoch ends early, or while gradients accumulate.

    Raises:
        UserError: there is no such metric, ``every_n_steps`` is less than 1, or ``hybrid`` lacks ``bm25``.
    """

    def __init__(
        self,
        run: Run,
        metrics: list[str] | None = None,
        monitor: str = "mrr@10",
        depth: int = 100,
        bm25: bool = True,
        every_n_steps: int | None = None,
        hybrid: bool = False,
    ) -> None:
        if depth < 1:
            raise ValueError(f"depth={depth} must be at least 1")
        if every_n_steps is not None and every_n_steps < 1:
            raise UserError(f"validation.every_n_steps={every_n_steps} must be at least 1, or null.")
        if hybrid and not bm25:
            raise UserError("validation.hybrid=true fuses the towers with BM25: set validation.bm25=true as well.")
        self.run, self.monitor, self.depth, self.with_bm25 = run, monitor, depth, bm25
        self.every_n_steps, self.hybrid = every_n_steps, hybrid
        self.metrics = list(metrics or DEFAULT_METRICS)
        if monitor not in self.metrics:
            self.metrics.append(monitor)
        for name in self.metrics:
            parse(name)
        self.untrained: dict[str, float] = {}
        self.bm25: dict[str, float] = {}
        self.history: list[dict[str, float]] = []
        self.split, self.queries, self.documents, self.all_documents = "", 0, 0, 0
        self.spent = 0.0
        self.corpus: Corpus
        self.queries_split: Split
        self.latest: Evaluation | None = None
        self.baseline: Evaluation | None = None
        self.bm25_evaluation: Evaluation | None = None
        self.checked_at: int | None = None
        self.just_checked = False
        self._table: CheckTable | None = None

    @property
    def best(self) -> dict[str, float] | None:
        """The best check so far (the earliest of equals), or None before the first."""
        return max(self.history, key=lambda row: row[self.monitor], default=None)

    @property
    def name_of_check(self) -> str:
        """What the newest check is called in the table: ``untrained``, ``epoch 2``, ``step 1,500``."""
        return name_of_check(self.history[-1]) if self.history else "untrained"

    @property
    def logged(self) -> list[str]:
        """The names under which each check is logged."""
        return [f"{kind}/{name}" for kind in ("val", *(["hybrid"] if self.hybrid else [])) for name in self.metrics]

    def collection(self, data: TripletData) -> tuple[Corpus, Split]:
        """What is ranked: passages, and queries with their judgements in rows of these passages.

        Asked for once, when training starts. A subclass may choose fewer passages.
        """
        return data.corpus, data.validation

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure BM25 and the untrained towers, unless a continued run knows them already."""
        with self._spending():
            data = cast(TripletData, trainer.datamodule)  # type: ignore[attr-defined]
            self.corpus, self.queries_split = self.collection(data)
            self.split, self.queries = self.queries_split.name, len(self.queries_split)
            self.documents, self.all_documents = len(self.corpus), len(data.corpus)
            if trainer.is_global_zero:
                self._table = CheckTable(self.metrics, self.queries, self.documents, self.split, self.all_documents)
            self._measure_bm25(data)
            if not self.untrained:
                self._measure_untrained(trainer, pl_module)
            else:
                self._show("untrained", self.untrained)
            for row in self.history:
                self._show_check(row)

    def _measure_bm25(self, data: TripletData) -> None:
        if not self.with_bm25:
            return
        start = time.perf_counter()
        self.bm25_evaluation = evaluate_bm25(
            self.corpus, self.queries_split, data.tokenizer, self._candidates, self.metrics
        )
        self.bm25 = self.bm25_evaluation.means
        self._show("BM25", self.bm25, time.perf_counter() - start)

    def _measure_untrained(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.baseline = self._evaluate(pl_module)
        self.untrained = self.baseline.means
        figures = {f"untrained/{k}": v for k, v in self.untrained.items()}
        figures |= {f"bm25/{k}": v for k, v in self.bm25.items()}
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=0)
        self._show("untrained", self.untrained, self.baseline.seconds)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:  # noqa: ANN401
        """What was checked before is old."""
        self.just_checked = False

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Check when it is time."""
        due = self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0
        if due and not self._known(trainer):
            done = (batch_idx + 1) / trainer.num_training_batches
            self._check(trainer, pl_module, trainer.current_epoch + done)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the epoch, unless its last step was checked; Lightning calls checkpoints and schedulers after this."""
        self.just_checked = False
        if not self._known(trainer):
            self._check(trainer, pl_module, trainer.current_epoch + 1.0)

    def _known(self, trainer: L.Trainer) -> bool:
        """Whether these weights were checked; with accumulated gradients, several batches have the same weights."""
        return trainer.global_step == (self.history[-1]["step"] if self.history else 0)

    def _check(self, trainer: L.Trainer, pl_module: L.LightningModule, epoch: float) -> None:
        with self._spending():
            evaluation = self.latest = self._evaluate(pl_module)
            row = {"epoch": epoch, "step": trainer.global_step, "seconds": evaluation.seconds, **evaluation.means}
            metrics = {f"val/{k}": v for k, v in evaluation.means.items()}
            if self.hybrid:
                metrics |= self._measure_hybrid(evaluation, row)
            if "train/loss" in trainer.callback_metrics:
                row["loss"] = float(trainer.callback_metrics["train/loss"])
            self.history.append(row)
            pl_module.log_dict(metrics, logger=False)  # for schedulers and early stopping
            log_epoch(trainer, metrics)
            if row is self.best and trainer.is_global_zero:
                self._keep(evaluation)
            self._show_check(row)
        self.checked_at, self.just_checked = trainer.global_step, True

    def _evaluate(self, pl_module: L.LightningModule) -> Evaluation:
        model = cast(TwoTower, pl_module)
        return evaluate_dense(model, self.corpus, self.queries_split, self._candidates, self.metrics)

    def _measure_hybrid(self, evaluation: Evaluation, row: dict[str, float]) -> dict[str, float]:
        """Add the figures of the fusion to a row; returns them."""
        assert self.bm25_evaluation is not None
        order, bm25 = self.corpus.order, self.bm25_evaluation
        hybrid = evaluate_hybrid(evaluation, bm25, self.queries_split, order, self.monitor)
        metrics = {f"hybrid/{k}": v for k, v in hybrid.means.items()}
        row |= {**metrics, "hybrid_seconds": hybrid.seconds}
        return metrics

    @property
    def _candidates(self) -> int:
        """Documents per query that are ranked: what the run file keeps is not to decide on what is fused."""
        return max(self.depth, DEPTH) if self.hybrid else self.depth

    def _keep(self, evaluation: Evaluation) -> None:
        """Write the ranking of the best check, and what every query scores, beside BM25."""
        folder, ids, found = self.run.path, self.queries_split.ids, evaluation.ranking
        kept = Ranking(found.rows[:, : self.depth], found.scores[:, : self.depth], found.ranks)
        write_run(folder / "run.trec", ids, self.corpus.ids, kept, tag=folder.name)
        values = dict(evaluation.per_query)
        if self.bm25_evaluation is not None:
            values |= {f"bm25/{metric}": v for metric, v in self.bm25_evaluation.per_query.items()}
        per_query.write(folder / "per_query.csv", ids.to_pylist(), values, self.queries_split.texts.to_pylist())

    def _show_check(self, row: dict[str, float]) -> None:
        self._show(name_of_check(row), row, row["seconds"], row is self.best, row.get("loss"))
        if "hybrid_seconds" in row:
            hybrid = {name: row[f"hybrid/{name}"] for name in self.metrics}
            self._show("  with BM25", hybrid, row["hybrid_seconds"])

    def _show(
        self,
        name: str,
        means: dict[str, float],
        seconds: float = 0.0,
        best: bool = False,
        loss: float | None = None,
    ) -> None:
        if self._table is not None:
            self._table.row(name, means, seconds, best, loss)

    @contextmanager
    def _spending(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.spent += time.perf_counter() - start

    def state_dict(self) -> dict[str, Any]:
        """What a continued run must not measure again (the towers are trained by then), and what was ranked.

        The latter for a run that was interrupted after its last epoch: `on_train_start` is not called then.
        """
        return {name: getattr(self, name) for name in _KEPT}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the measurements of the interrupted run."""
        vars(self).update(state_dict)
