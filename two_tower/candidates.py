"""Candidates from beyond a process' batch: documents of the other processes, and of earlier batches."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from two_tower.distributed import gather, processes
from two_tower.memory import Memory

__all__ = ["Compared", "Known", "MoreCandidates"]


class Known(Protocol):
    """What decides which documents may be candidates, see `two_tower.data.stream.module.TripletData`."""

    def candidates(self, query_rows: np.ndarray, document_rows: np.ndarray) -> np.ndarray:
        """(B, N) bool: which documents of a batch each query is pushed away from."""

    def marked(self, query_rows: np.ndarray, document_rows: np.ndarray, positive_rows: np.ndarray) -> np.ndarray:
        """(B, M) bool: which documents from outside the batch each query must not be pushed away from."""


class Compared(NamedTuple):
    """What a loss is computed of.

    Attributes:
        queries: (B, D).
        documents: (N, D), document i is the positive of query i.
        candidates: (B, N) bool.
    """

    queries: Tensor
    documents: Tensor
    candidates: Tensor


class MoreCandidates(nn.Module):
    """Adds to a batch what its queries are compared with besides.

    With several processes the memory holds the documents of all of them, in each the same: a checkpoint, which one
    of them writes, then fits all.

    Args:
        known: decides which documents may be candidates.
        cross_device: put the batches of all processes together: every process computes the loss of the whole, to
            which its own part then gets the gradients.
        memory: documents of earlier batches, or None.
        memory_start: steps before these become candidates. At first a model changes so fast that its vectors of a
            few steps ago mislead it: from the first step on, 4,096 of them take an MRR@10 of .36 to .29 (pydocs,
            tower=gru, six epochs of 15 steps); from step 30 on they cost nothing.
    """

    def __init__(
        self, known: Known, cross_device: bool = False, memory: Memory | None = None, memory_start: int = 0
    ) -> None:
        super().__init__()
        self.known, self.cross_device, self.memory, self.memory_start = known, cross_device, memory, memory_start

    def forward(self, batch: Compared, query_rows: Tensor, document_rows: Tensor, step: int) -> Compared:
        """A batch with everything that is added; its documents are remembered for later ones.

        Args:
            batch: of this process; documents: the positive of each query, then each query's extras in turn.
            query_rows: (B,) int64 rows of the queries.
            document_rows: (N,) int64 rows of the documents.
            step: how many steps the model has been trained.

        Raises:
            UserError: the processes' batches have unequal shapes.
        """
        own = batch, query_rows, document_rows
        everyone = self._everyone(*own) if processes() > 1 else own
        batch, query_rows, document_rows = everyone if self.cross_device else own
        if self.memory is not None:
            if step >= self.memory_start:
                batch = self._remembered(self.memory, batch, query_rows, document_rows)
            self.memory.remember(everyone[0].documents, everyone[2])
        return batch

    def _everyone(self, batch: Compared, query_rows: Tensor, document_rows: Tensor) -> tuple[Compared, Tensor, Tensor]:
        """The batches of all processes as one: all positives, then every query's extra documents in turn."""
        queries, documents, query_rows, rows = gather([batch.queries, batch.documents, query_rows, document_rows])
        count = len(batch.queries)

        def ordered(parts: Tensor) -> Tensor:
            return torch.cat([parts[:, :count].flatten(0, 1), parts[:, count:].flatten(0, 1)])

        query_rows, document_rows = query_rows.flatten(), ordered(rows)
        mask = torch.from_numpy(self.known.candidates(_array(query_rows), _array(document_rows)))
        together = Compared(queries.flatten(0, 1), ordered(documents), mask.to(batch.candidates.device))
        return together, query_rows, document_rows

    def _remembered(self, memory: Memory, batch: Compared, query_rows: Tensor, document_rows: Tensor) -> Compared:
        """The batch with the documents of the memory behind its own."""
        vectors, rows = memory.held()
        if not len(rows):
            return batch
        own = _array(document_rows[: len(query_rows)])
        mask = torch.from_numpy(~self.known.marked(_array(query_rows), rows, own))
        return Compared(
            batch.queries,
            torch.cat([batch.documents, vectors.to(batch.documents.dtype)]),
            torch.cat([batch.candidates, mask.to(batch.candidates.device)], 1),
        )


def _array(rows: Tensor) -> np.ndarray:
    return rows.cpu().numpy()
