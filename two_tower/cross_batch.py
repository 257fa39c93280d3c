"""Negatives from beyond a process's batch: documents of the other processes, and of earlier batches."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from two_tower.distributed import gather, processes
from two_tower.negatives.base import NegativeMask


@dataclass(frozen=True, eq=False)
class EncodedBatch:
    """A `two_tower.data.stream.batch.Batch` with vectors, (B, D) and (N, D), instead of texts."""

    queries: Tensor
    documents: Tensor
    negatives: Tensor
    query_rows: Tensor
    document_rows: Tensor
    margins: Tensor | None = None


class CrossBatchMemory(nn.Module):
    """The vectors of the last M documents that a model was trained on, as they were then: no encoding, no gradients.

    They help as far as the model changes slowly (Wang et al. 2020, arXiv:1912.06798, "cross-batch memory"). They are
    buffers, so a checkpoint holds them and a continued run has the same.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.vectors: Tensor  # (M, D) float32, the newest last
        self.rows: Tensor  # (M,) int64, rows of the documents; -1 for places not filled yet, which come first
        self.register_buffer("vectors", torch.zeros(size, dim))
        self.register_buffer("rows", torch.full((size,), -1))

    def filled(self) -> tuple[Tensor, Tensor]:
        """Vectors (m, D) and rows (m,) of the m ≤ M remembered documents, the newest last."""
        empty = int((self.rows < 0).sum())
        return self.vectors[empty:], self.rows[empty:]

    @torch.no_grad()
    def push(self, vectors: Tensor, rows: Tensor) -> None:
        """Add documents, vectors (N, D) float and rows (N,) int64, and drop the oldest ones."""
        # Not in place: the backward pass still needs what `filled` returned. Copying 4,096 vectors takes 0.3 ms.
        self.vectors = _shifted(self.vectors, vectors.to(self.vectors.dtype))
        self.rows = _shifted(self.rows, rows)


def _shifted(old: Tensor, new: Tensor) -> Tensor:
    return torch.cat([old[len(new) :], new[-len(old) :]])


class CrossBatchNegatives(nn.Module):
    """Adds negatives from other processes and earlier batches.

    The memory holds the documents of all processes, so that a checkpoint, which one of them writes, fits all. It adds
    nothing before ``start_step``: at first a model changes so fast that its vectors of a few steps ago mislead it
    (docs/large-batches.md). With ``cross_device`` each computes the loss of all batches, its own part gets gradients.
    """

    def __init__(
        self,
        mask: NegativeMask,
        cross_device: bool = False,
        memory: CrossBatchMemory | None = None,
        start_step: int = 0,
    ) -> None:
        super().__init__()
        self.mask, self.cross_device, self.memory, self.start_step = mask, cross_device, memory, start_step

    def forward(self, own: EncodedBatch, step: int) -> EncodedBatch:
        """The batch with the negatives added at ``step``; remembers its documents."""
        everyone = self._gathered(own) if processes() > 1 else own
        batch = everyone if self.cross_device else own
        if self.memory is not None:
            if step >= self.start_step:
                batch = self._with_memory(self.memory, batch)
            self.memory.push(everyone.documents, everyone.document_rows)
        return batch

    def _gathered(self, own: EncodedBatch) -> EncodedBatch:
        """The batches of all processes as one: all positives, then the extra negatives of each query in turn."""
        parts = [own.queries, own.documents, own.query_rows, own.document_rows]
        parts += [] if own.margins is None else [own.margins]
        queries, documents, its_rows, rows, *margins = gather(parts)
        counts = [len(part) for part in queries]

        def ordered(parts: tuple[Tensor, ...]) -> Tensor:
            pairs = [*zip(parts, counts, strict=True)]
            return torch.cat([part[:n] for part, n in pairs] + [part[n:] for part, n in pairs])

        query_rows, document_rows = torch.cat(its_rows), ordered(rows)
        negatives = torch.from_numpy(self.mask.in_batch(_array(query_rows), _array(document_rows)))
        negatives = negatives.to(own.negatives.device)
        triples = torch.cat(margins[0]) if margins else None
        return EncodedBatch(torch.cat(queries), ordered(documents), negatives, query_rows, document_rows, triples)

    def _with_memory(self, memory: CrossBatchMemory, batch: EncodedBatch) -> EncodedBatch:
        vectors, rows = memory.filled()
        if not len(rows):
            return batch
        positives = batch.document_rows[: len(batch.query_rows)]
        negatives = torch.from_numpy(self.mask.outside(_array(batch.query_rows), _array(positives), _array(rows)))
        return replace(
            batch,
            documents=torch.cat([batch.documents, vectors.to(batch.documents.dtype)]),
            negatives=torch.cat([batch.negatives, negatives.to(batch.negatives.device)], 1),
            document_rows=torch.cat([batch.document_rows, rows]),
        )


def _array(rows: Tensor) -> np.ndarray:
    return rows.cpu().numpy()
