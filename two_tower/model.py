"""The LightningModule: two towers, one similarity, one loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from two_tower.candidates import Compared, MoreCandidates
from two_tower.data.stream.batch import Batch
from two_tower.errors import UserError
from two_tower.gradient_cache import encode_in_chunks
from two_tower.loss.base import Loss, LossOutput, judge
from two_tower.optimizer._clipping import clip_gradients
from two_tower.optimizer._groups import learning_rate, parameter_groups
from two_tower.ragged import Ragged
from two_tower.similarity import Similarity
from two_tower.teacher.lessons import Lesson, Lessons
from two_tower.tower.base import Tower

__all__ = ["TwoTower", "total_steps"]

# Texts that are encoded together outside training: the token vectors of an RNN for them fit in cache-size
# memory, and a progress bar moves.
ENCODE_BATCH = 2048


class TwoTower(L.LightningModule):
    """Query tower, document tower (perhaps the same one), similarity and loss.

    Args:
        query_tower: tokens → (B, D).
        document_tower: tokens → (N, D); the same object for shared towers.
        similarity: how vectors are compared, everywhere.
        loss: reduces scores and candidates; None for a model that is only used.
        optimizer: called with the parameter groups.
        scheduler: has ``build(optimizer, total_steps)``, a Lightning scheduler config or None.
        seed: the run's seed; dropout of step k depends on (seed, k) only, so a continued run draws the same.
        facts: plain data kept in the checkpoint (config, tokenizer fingerprint).
        encode_chunk: texts that are encoded together in training; None for all. Fewer need less memory, the
            gradients are the same.
        more: adds candidates from beyond a batch, or None.
        lessons: the teacher's vectors of the training texts, for a loss that wants them.

    Attributes:
        last: what the loss of the last training step was, with its diagnostics; None before the first.
        observer: called in training with what a loss is about to be computed of, and its scores; None for nothing.

    Raises:
        UserError: an ``encode_chunk`` below 1.
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
        more: MoreCandidates | None = None,
        lessons: Lessons | None = None,
    ) -> None:
        super().__init__()
        if encode_chunk is not None and encode_chunk < 1:
            raise UserError(f"encode_chunk={encode_chunk} must be at least 1, or null for no chunks.")
        self.query_tower: Tower = query_tower
        self.document_tower: Tower = document_tower
        self.similarity = similarity
        self.loss = loss
        self._optimizer, self._scheduler = optimizer, scheduler
        self._seed, self._facts = seed, dict(facts or {})
        self._encode_chunk, self.more, self.lessons = encode_chunk, more, lessons
        self.last: LossOutput | None = None
        self.observer: Callable[[Compared, Tensor | list[Tensor]], None] | None = None

    @property
    def shared(self) -> bool:
        """Whether both sides are one tower."""
        return self.query_tower is self.document_tower

    def queries(self, tokens: Ragged) -> Tensor:
        """Vectors of queries, prepared for the similarity, (B, D)."""
        return self.similarity.prepare(encode_in_chunks(self.query_tower, tokens, self._encode_chunk))

    def documents(self, tokens: Ragged) -> Tensor:
        """Vectors of documents, prepared for the similarity, (N, D)."""
        return self.similarity.prepare(encode_in_chunks(self.document_tower, tokens, self._encode_chunk))

    @torch.inference_mode()
    def encode(self, side: str, tokens: Ragged, progress: Callable[[int], None] | None = None) -> Tensor:
        """Vectors of any number of texts as they are in use: no dropout, no gradients.

        The one encode path of validation, embedding and search.

        Args:
            side: ``queries`` or ``documents``.
            tokens: the texts.
            progress: called with the number of texts done, after each block.

        Returns:
            (B, D) float32, on the model's device.
        """
        was_training = self.training
        self.eval()
        try:
            encode = self.queries if side == "queries" else self.documents
            blocks = []
            for start in range(0, max(1, len(tokens)), ENCODE_BATCH):  # no texts: one block without any
                block = tokens.slice(start, min(start + ENCODE_BATCH, len(tokens)))
                blocks.append(encode(block.to(self.device)).float())
                if progress:
                    progress(len(block))
            return blocks[0] if len(blocks) == 1 else torch.cat(blocks)
        finally:
            self.train(was_training)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch; logs it with its diagnostics under ``train/``."""
        if self.loss is None:
            raise RuntimeError("This model was loaded for use and has no loss.")
        torch.manual_seed((self._seed << 32) ^ self.global_step)
        compared = Compared(self.queries(batch.queries), self.documents(batch.documents), batch.candidates)
        if self.more is not None:
            compared = self.more(compared, batch.query_rows, batch.document_rows, self.global_step)
        scores = self._scores(compared.queries, compared.documents, self.loss.dims)
        if self.observer is not None:
            self.observer(compared, scores)
        lesson = None
        if self.loss.taught:
            own = compared.queries, compared.documents
            rows = batch.query_rows, batch.document_rows
            lesson = self.lessons(*own, *rows) if self.lessons is not None else Lesson(*own)
            lesson = lesson._replace(margins=batch.margins)
        loss, diagnostics = self.last = judge(self.loss, scores, compared.candidates, lesson)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch))
        self.log_dict({f"train/{k}": v for k, v in diagnostics.items()}, batch_size=len(batch))
        return loss

    def _scores(self, q_BD: Tensor, d_ND: Tensor, dims: Sequence[int] | None) -> Tensor | list[Tensor]:
        """Scores (B, N) of whole vectors, or one matrix for each number of leading dimensions."""
        if dims is None:
            return self.similarity.scores(q_BD, d_ND)
        shortened = ([self.similarity.prepare(v[:, :dim]) for v in (q_BD, d_ND)] for dim in dims)
        return [self.similarity.scores(q, d) for q, d in shortened]

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """The one optimizer over dense parameters and word-table rows, with its schedule."""
        if self._optimizer is None:
            raise RuntimeError("This model was loaded for use and has no optimizer.")
        modules: dict[str, nn.Module] = {
            "query_tower": self.query_tower,
            "document_tower": self.document_tower,
        }
        if self.loss is not None:
            modules["loss"] = self.loss
        optimizer = self._optimizer(parameter_groups(modules))
        schedule = self._scheduler.build(optimizer, total_steps(self.trainer)) if self._scheduler else None
        return {"optimizer": optimizer, "lr_scheduler": schedule} if schedule else optimizer

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Log the step's learning rate, that of word tables without their scale."""
        self.log("train/learning_rate", learning_rate(optimizer.param_groups))

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip dense and sparse gradients together; the library's own clipping refuses sparse ones."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if gradient_clip_val:
            clip_gradients(parameters, float(gradient_clip_val), gradient_clip_algorithm or "norm")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the plain facts that tie a checkpoint to its configuration and tokenizer."""
        checkpoint["two_tower"] = self._facts


def total_steps(trainer: L.Trainer) -> int | None:
    """Optimizer steps of the whole training, None if unknown.

    Not ``trainer.estimated_stepping_batches``: that sets the loader up before a checkpoint is read, and
    its saved position is then never restored (Lightning 2.6).
    """
    limits = [trainer.max_steps] if trainer.max_steps > 0 else []
    batches = getattr(trainer.datamodule, "batches_per_epoch", None)  # type: ignore[attr-defined]
    if batches and trainer.max_epochs is not None and trainer.max_epochs > 0:
        limit = trainer.limit_train_batches
        used = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        limits.append(math.ceil(used / trainer.accumulate_grad_batches) * trainer.max_epochs)
    return min(limits) if limits else None
