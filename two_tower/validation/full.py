"""Validation as a callback: before training, after every epoch and in between, beside BM25, on the whole corpus."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import Callback

from two_tower.console import CheckTable, name_of_check
from two_tower.data.stream.corpus import Corpus, Split
from two_tower.data.stream.module import TripletData
from two_tower.errors import at_least
from two_tower.fusion import DEPTH
from two_tower.logger import log_epoch
from two_tower.metrics import DEFAULT_METRICS, parse, write_per_query
from two_tower.model import TwoTower
from two_tower.ranking import Ranking, write_run
from two_tower.run import Run
from two_tower.validation._evaluate import Evaluation, fuse_cross_fitted, rank_split, rank_split_by_bm25
from two_tower.validation._groups import GROUPS, NAMES, NEW, QueryGroups, means_by_group

# The attributes that are kept in checkpoints: what a continued run cannot measure again, as the towers are trained by
# then, and what was ranked, for a run that was interrupted after its last epoch (`on_train_start` is not called then).
_STATE = (
    "untrained", "bm25", "groups", "history", "split", "queries", "documents", "all_documents", "new_documents",
    "overhead_seconds",
)  # fmt: skip


class FullValidation(Callback):
    """Ranks every passage of the corpus for every validation query.

    Evaluates at the end of every epoch, and within epochs every ``every_n_steps`` optimizer steps. Each evaluation logs
    ``val/METRIC``; ``untrained/METRIC`` and ``bm25/METRIC`` are logged once. The one with the best ``monitor``, never
    the untrained, writes its ranking to ``run.trec`` and each query's figures to ``per_query.csv``. Where passages are
    kept out of training, all three are logged for each group of queries too, as ``val_unseen/METRIC`` (`QueryGroups`).

    Other callbacks that ask for ``validation`` in their constructor get this one. It comes first in the trainer's
    list, so their ``on_train_batch_end`` and ``on_train_epoch_end`` see an evaluation that was just made.
    """

    def __init__(
        self, run: Run, metrics: list[str] | None = None, monitor: str = "mrr@10", depth: int = 100, bm25: bool = True,
        every_n_steps: int | None = None, hybrid: bool = False,
    ) -> None:  # fmt: skip
        at_least(1, depth=depth)
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps} must be at least 1, or null")
        if hybrid and not bm25:
            raise ValueError("hybrid=true fuses the towers with BM25: set validation.bm25=true as well")
        self.run, self.monitor, self.depth, self.with_bm25 = run, monitor, depth, bm25
        self.every_n_steps, self.hybrid = every_n_steps, hybrid
        self.metrics = list(metrics or DEFAULT_METRICS)
        if monitor not in self.metrics:
            self.metrics.append(monitor)
        for name in self.metrics:
            parse(name)
        self.untrained: dict[str, float] = {}  # metric → value before training
        self.bm25: dict[str, float] = {}  # metric → value of the lexical baseline; empty without it
        # Of both for each group of queries, ``untrained_GROUP/METRIC`` and ``bm25_GROUP/METRIC`` → value.
        self.groups: dict[str, float] = {}
        # ``epoch`` (1.5 is in the middle of the second), ``step``, ``seconds``, ``loss`` (of the last step), metric →
        # value, ``val_GROUP/METRIC`` → value and, with ``hybrid``, ``hybrid/METRIC`` → value and ``hybrid_seconds``.
        self.history: list[dict[str, float]] = []
        # The split's name, its queries, the passages that each is ranked against, and those of the corpus.
        self.split, self.queries, self.documents, self.all_documents = "", 0, 0, 0
        self.new_documents = 0  # of those that are ranked, the ones that are kept out of training
        self.overhead_seconds = 0.0  # that all this took from training
        self.corpus: Corpus  # this and the next are set by `open`
        self.queries_split: Split  # with judgements in rows of ``corpus``
        self.latest: Evaluation | None = None  # None before the first of this process
        self.baseline: Evaluation | None = None  # of the untrained model; None in a continued run
        self.bm25_evaluation: Evaluation | None = None
        # Whether the hook that now runs made an evaluation. Never true twice for one evaluation, even when an epoch
        # ends early or gradients accumulate.
        self.just_evaluated = False
        self.query_groups: QueryGroups | None = None  # None where all passages are learned
        self._table: CheckTable | None = None

    @property
    def best(self) -> dict[str, float] | None:
        """The best evaluation so far (the earliest of equals), or None before the first."""
        return max(self.history, key=lambda row: row[self.monitor], default=None)

    @property
    def latest_name(self) -> str:
        """What the table calls the newest evaluation: ``untrained``, ``epoch 2``, ``step 1,500``."""
        return name_of_check(self.history[-1]) if self.history else "untrained"

    @property
    def logged(self) -> list[str]:
        """The names under which each evaluation is logged."""
        kinds = ["val", *(["hybrid"] if self.hybrid else []), *(f"val_{group}" for group in GROUPS)]
        return [f"{kind}/{name}" for kind in kinds for name in self.metrics]

    def collection(self, data: TripletData) -> tuple[Corpus, Split]:
        """The passages that are ranked, and the queries with judgements in rows of these; a subclass may take fewer."""
        return data.searched, data.validation

    def open(self, data: TripletData) -> None:
        """Know what is ranked, if it is not known yet: `on_train_start` may not have been called, see `_STATE`."""
        if hasattr(self, "corpus"):
            return
        self.corpus, self.queries_split = self.collection(data)
        self.split, self.queries = self.queries_split.name, len(self.queries_split)
        self.documents, self.all_documents = len(self.corpus), len(data.searched)
        if data.learned is not data.source:
            new = self.corpus.is_new(data.corpus.written)
            self.query_groups = QueryGroups.find(self.corpus, self.queries_split, new)
            self.new_documents = len(self.query_groups.corpus) if self.query_groups else 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure BM25 and the untrained towers, unless a continued run knows them already."""
        with self._counting_seconds():
            data = cast(TripletData, trainer.datamodule)  # type: ignore[attr-defined]
            self.open(data)
            if trainer.is_global_zero:
                self._table = CheckTable(self.metrics, self.queries, self.documents, self.split, self.all_documents)
            if self.with_bm25:
                self._measure_bm25(data, pl_module)
            if not self.untrained:
                self._measure_untrained(trainer, pl_module)
            else:
                self._show("untrained", self.untrained)
                self._show_groups("untrained", self.groups)
            for row in self.history:
                self._show_row(row)

    def _measure_bm25(self, data: TripletData, pl_module: L.LightningModule) -> None:
        def rank(corpus: Corpus, split: Split) -> Evaluation:
            return rank_split_by_bm25(corpus, split, data.tokenizer, self._top_k, self.metrics, pl_module.device)

        self.bm25_evaluation = self._with_groups(rank)
        self.bm25 = self.bm25_evaluation.means
        self.groups |= _prefixed("bm25", self.bm25_evaluation.groups)
        self._show("BM25", self.bm25, self.bm25_evaluation.seconds)
        self._show_groups("bm25", self.groups)

    def _with_groups(self, rank: Callable[[Corpus, Split], Evaluation]) -> Evaluation:
        """What ``rank`` makes of all passages and queries, with the figures of their groups."""
        whole = rank(self.corpus, self.queries_split)
        return whole if self.query_groups is None else self.query_groups.measure(rank, whole)

    def _measure_untrained(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.baseline = self._rank(pl_module)
        self.untrained = self.baseline.means
        figures = {f"untrained/{k}": v for k, v in self.untrained.items()}
        figures |= {f"bm25/{k}": v for k, v in self.bm25.items()}
        self.groups |= _prefixed("untrained", self.baseline.groups)
        figures |= self.groups
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=0)
        self._show("untrained", self.untrained, self.baseline.seconds)
        self._show_groups("untrained", self.groups)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:  # noqa: ANN401
        self.just_evaluated = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        due = self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0
        if due and not self._is_known(trainer):
            done = (batch_idx + 1) / trainer.num_training_batches
            self._evaluate(trainer, pl_module, trainer.current_epoch + done)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluate the epoch, unless its last step was; Lightning calls checkpoints and schedulers after this."""
        self.just_evaluated = False
        if not self._is_known(trainer):
            self._evaluate(trainer, pl_module, trainer.current_epoch + 1.0)

    def _is_known(self, trainer: L.Trainer) -> bool:
        """Whether these weights were evaluated; while gradients accumulate, several batches have the same weights."""
        return trainer.global_step == (self.history[-1]["step"] if self.history else 0)

    def _evaluate(self, trainer: L.Trainer, pl_module: L.LightningModule, epoch: float) -> None:
        with self._counting_seconds():
            self.latest = self._rank(pl_module)
            row = {"epoch": epoch, "step": trainer.global_step, "seconds": self.latest.seconds, **self.latest.means}
            groups = _prefixed("val", self.latest.groups)
            row |= groups
            metrics = {f"val/{k}": v for k, v in self.latest.means.items()} | groups
            fused = self._fuse(self.latest, pl_module) if self.hybrid else None
            if fused is not None:
                hybrid = {f"hybrid/{k}": v for k, v in fused.means.items()}
                row |= {**hybrid, "hybrid_seconds": fused.seconds}
                metrics |= hybrid
            figures = cast(TwoTower, pl_module).figures
            if "train/loss" in figures:  # not before the first step
                row["loss"] = float(figures["train/loss"])
            self.history.append(row)
            pl_module.log_dict(metrics, logger=False)  # for schedulers and early stopping
            log_epoch(trainer, metrics)
            if row is self.best and trainer.is_global_zero:
                self._write(self.latest, fused)
            self._show_row(row)
        self.just_evaluated = True

    def _rank(self, pl_module: L.LightningModule) -> Evaluation:
        model = cast(TwoTower, pl_module)
        return self._with_groups(lambda corpus, split: rank_split(model, corpus, split, self._top_k, self.metrics))

    def _fuse(self, dense: Evaluation, pl_module: L.LightningModule) -> Evaluation:
        assert self.bm25_evaluation is not None
        split, order = self.queries_split, self.corpus.order
        return fuse_cross_fitted(dense, self.bm25_evaluation, split, order, self.monitor, pl_module.device)

    @property
    def _top_k(self) -> int:
        """Documents ranked per query: the length of the run file must not decide on what is fused."""
        return max(self.depth, DEPTH) if self.hybrid else self.depth

    def _write(self, best: Evaluation, fused: Evaluation | None) -> None:
        """Write the ranking of the best evaluation, and the figures of every query, beside BM25's and the hybrid's."""
        folder, ids, ranking = self.run.path, self.queries_split.ids, best.ranking
        cut = Ranking(ranking.rows[:, : self.depth], ranking.scores[:, : self.depth], ranking.ranks)
        write_run(folder / "run.trec", ids, self.corpus.ids, cut, tag=folder.name)
        values = dict(best.per_query)
        for system, other in (("bm25", self.bm25_evaluation), ("hybrid", fused)):
            if other is not None:
                values |= {f"{system}/{metric}": v for metric, v in other.per_query.items()}
        write_per_query(folder / "per_query.csv", ids.to_pylist(), values, self.queries_split.texts.to_pylist())

    def _show_row(self, row: dict[str, float]) -> None:
        self._show(name_of_check(row), row, row["seconds"], row is self.best, row.get("loss"))
        self._show_groups("val", row)
        if "hybrid_seconds" in row:
            hybrid = {name: row[f"hybrid/{name}"] for name in self.metrics}
            self._show("  with BM25", hybrid, row["hybrid_seconds"])

    def _show_groups(self, system: str, figures: Mapping[str, float]) -> None:
        for group, means in means_by_group(system, figures, self.metrics).items():
            self._show(f"  {NAMES[group]}", means, documents=self.ranked(group))

    def ranked(self, group: str) -> int:
        """How many passages the queries of a group are ranked against."""
        return self.new_documents if group == NEW else self.documents

    def _show(self, name: str, means: dict[str, float], *rest: Any, **more: Any) -> None:  # noqa: ANN401
        if self._table is not None:
            self._table.row(name, means, *rest, **more)

    @contextmanager
    def _counting_seconds(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.overhead_seconds += time.perf_counter() - start

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)


def _prefixed(system: str, groups: dict[str, float]) -> dict[str, float]:
    """``GROUP/METRIC`` as ``SYSTEM_GROUP/METRIC``."""
    return {f"{system}_{name}": value for name, value in groups.items()}
