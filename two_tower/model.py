"""The LightningModule: two towers, one similarity, one loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from two_tower.cross_batch import CrossBatchNegatives, EncodedBatch
from two_tower.data.stream.batch import Batch
from two_tower.errors import UserError
from two_tower.loss.base import Loss, LossInput, LossOutput, TeacherBatch
from two_tower.optimizer.base import clip_gradients, coalesced, learning_rate, parameter_groups
from two_tower.similarity import Similarity
from two_tower.teacher._vectors import TeacherStore
from two_tower.tower._mapped import MappedWords, fold
from two_tower.tower.base import Tower, word_tables
from two_tower.vectors import Towers


class TwoTower(L.LightningModule, Towers):
    """Query tower, document tower (the same object for shared towers), similarity and loss.

    A model that is only used has no loss. The scheduler's ``build(optimizer, total_steps)`` returns a Lightning
    scheduler config or None. The dropout of step k depends on (seed, k) only, so that a continued run draws the same.
    ``facts`` are plain data for the checkpoint (configuration, tokenizer fingerprint, width of the word table), and
    ``encode_chunk`` texts are encoded together in training, see `encode_in_chunks`.
    """

    def __init__(
        self,
        query_tower: Tower,
        document_tower: Tower,
        similarity: Similarity,
        loss: Loss | None = None,
        optimizer: Callable[[list[dict[str, Any]]], Optimizer] | None = None,
        scheduler: Any = None,  # noqa: ANN401
        seed: int = 0,
        facts: Mapping[str, Any] | None = None,
        encode_chunk: int | None = None,
        cross_batch: CrossBatchNegatives | None = None,
        teacher: TeacherStore | None = None,
    ) -> None:
        super().__init__()
        if encode_chunk is not None and encode_chunk < 1:
            raise ValueError(f"encode_chunk={encode_chunk} must be at least 1, or null for no chunks")
        self.query_tower: Tower = query_tower
        self.document_tower: Tower = document_tower
        self.similarity = similarity
        self.loss = loss
        self._optimizer, self._scheduler = optimizer, scheduler
        self._seed, self._facts = seed, dict(facts or {})
        self.encode_chunk, self.cross_batch, self.teacher = encode_chunk, cross_batch, teacher
        self.figures: dict[str, Tensor] = {}  # of the latest step, to be logged
        self._folds = False
        self._pulled = [t for t in word_tables(self).values() if isinstance(t, MappedWords) and t.pull]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.loss is None:
            raise RuntimeError("This model was loaded for use and has no loss.")
        on_cpu = self.device.type == "cpu"  # where torch's function would write down the call stack at every step
        (torch.default_generator if on_cpu else torch).manual_seed((self._seed << 32) ^ self.global_step)
        vectors = self.queries(batch.queries), self.documents(batch.documents)
        encoded = EncodedBatch(*vectors, batch.negatives, batch.query_rows, batch.document_rows, batch.margins)
        if self.cross_batch is not None:
            encoded = self.cross_batch(encoded, self.global_step)
        output = self.loss(self._loss_input(encoded))
        if not isinstance(output, LossOutput) or output.loss.ndim:
            name = type(self.loss).__name__
            raise UserError(f"{name} must return a LossOutput: the value to minimize, a scalar, and a dict of numbers")
        loss, diagnostics = output
        figures = {**diagnostics, "loss": loss.detach()}
        self.figures = {f"train/{name}": torch.as_tensor(value) for name, value in figures.items()}
        alone = self.cross_batch is None or not self.cross_batch.cross_device  # else the loss is that of all processes
        return loss if batch.weight is None or not alone else loss * batch.weight

    def _loss_input(self, encoded: EncodedBatch) -> LossInput:
        teacher = TeacherBatch()
        if self.teacher is not None:
            teacher = self.teacher.take(encoded.query_rows, encoded.document_rows)
        teacher = teacher._replace(margins=encoded.margins)
        return LossInput(encoded.queries, encoded.documents, encoded.negatives, self.similarity, teacher)

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        if self._optimizer is None:
            raise RuntimeError("This model was loaded for use and has no optimizer.")
        modules: dict[str, nn.Module] = {"query_tower": self.query_tower, "document_tower": self.document_tower}
        if self.loss is not None:
            modules["loss"] = self.loss
        optimizer = self._optimizer(parameter_groups(modules))
        schedule = self._scheduler.build(optimizer, total_steps(self.trainer)) if self._scheduler else None
        return {"optimizer": optimizer, "lr_scheduler": schedule} if schedule else optimizer

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        # The rate of word tables is logged without their scale.
        self.figures["train/learning_rate"] = torch.tensor(learning_rate(optimizer.param_groups))
        pulls = []
        for table in self._pulled:
            if table.vectors.grad is not None:
                table.vectors.grad = coalesced(table.vectors.grad)
                pulls.append(table.add_pull(table.vectors.grad))
        if pulls:
            self.figures["train/pull"] = torch.stack(pulls).sum()

    def on_train_batch_end(self, *_: object) -> None:
        # Lightning takes 0.8 ms to log a value, an eighth of a step for all of them, and forgets those of other steps.
        if self.trainer.should_stop or self.trainer.is_last_batch or is_row_due(self.trainer):
            self.log_dict(self.figures)

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        # Lightning's own clipping refuses sparse gradients.
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if gradient_clip_val:
            clip_gradients(parameters, float(gradient_clip_val), gradient_clip_algorithm or "norm")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["two_tower"] = self._facts
        if self._folds and (maps := fold(self, checkpoint["state_dict"])):
            earlier = self._facts.get("maps", {})  # of the run that this one started from
            maps = {place: own @ earlier[place] if place in earlier else own for place, own in maps.items()}
            checkpoint["two_tower"] = {**self._facts, "maps": maps}

    @contextmanager
    def folded(self) -> Iterator[None]:
        """Within it, checkpoints hold ordinary word tables: to use, not to continue from."""
        self._folds = True
        try:
            yield
        finally:
            self._folds = False


def is_row_due(trainer: L.Trainer) -> bool:
    """Whether the step that just ended is one of those whose figures are written."""
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return bool(every) and trainer.global_step % every == 0


def total_steps(trainer: L.Trainer) -> int | None:
    """Optimizer steps of the whole training, None if unknown.

    Not ``trainer.estimated_stepping_batches``: it sets the loader up before a checkpoint is read, and the loader's
    saved position is then never restored (Lightning 2.6).
    """
    limits = [trainer.max_steps] if trainer.max_steps > 0 else []
    batches = getattr(trainer.datamodule, "batches_per_epoch", None)  # type: ignore[attr-defined]
    if batches and trainer.max_epochs is not None and trainer.max_epochs > 0:
        limit = trainer.limit_train_batches
        used = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        limits.append(math.ceil(used / trainer.accumulate_grad_batches) * trainer.max_epochs)
    return min(limits) if limits else None
