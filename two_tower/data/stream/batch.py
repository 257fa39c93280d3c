"""One training batch, and the map from its position (epoch, k) to its content."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from two_tower.data.stream.order import BlockShuffle
from two_tower.data.stream.triplets import TrainingSet
from two_tower.negatives.base import DrawContext, NegativeMask, Negatives
from two_tower.ragged import Ragged


@dataclass(frozen=True, eq=False)
class Batch:
    """What a training step gets.

    Attributes:
        queries: B texts.
        documents: N ≥ B texts: the positive of each query, then each query's extra negatives in turn.
        negatives: (B, N) bool, the documents that each query is pushed away from.
        query_rows: (B,) int64 rows of the training queries; identifies the batch.
        document_rows: (N,) int64 rows of the documents.
        margins: (B, G) float32, a teacher's score of each positive less those of the query's extra negatives; None
            where the data brings no scores.
    """

    queries: Ragged
    documents: Ragged
    negatives: Tensor
    query_rows: Tensor
    document_rows: Tensor
    margins: Tensor | None = None

    def __len__(self) -> int:
        return len(self.queries)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The batch on another device."""
        return self._map(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory."""
        return self._map(lambda part: part.pin_memory())

    def _map(self, move: Callable[[Any], Any]) -> Batch:
        parts: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: move(part) for name, part in parts.items() if part is not None})


class Batches(Dataset[Batch]):
    """Batch ``(epoch, k)`` of one rank: a pure function of the seed, so any batch can be made at any time.

    Args:
        data: the examples and their texts.
        negatives: chooses the extra negatives.
        mask: decides which documents are negatives.
        batch_size: examples per rank and batch.
        seed: the run's seed.
        rank: this process's rank.
        ranks: number of processes.
    """

    def __init__(
        self,
        data: TrainingSet,
        negatives: Negatives,
        mask: NegativeMask,
        batch_size: int,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.data, self.negatives, self.mask = data, negatives, mask
        self.batch_size, self.seed = batch_size, seed
        self.rank, self.ranks = rank, ranks
        self._order: tuple[int, BlockShuffle] | None = None

    def __len__(self) -> int:
        """Whole global batches of an epoch; the last incomplete one is dropped."""
        return len(self.data.examples) // (self.batch_size * self.ranks)

    def __getitem__(self, position: tuple[int, int]) -> Batch:
        """The batch of this rank at (epoch, k)."""
        epoch, k = position
        if self._order is None or self._order[0] != epoch:
            self.negatives.start_epoch(epoch)
            self._order = (epoch, BlockShuffle(len(self.data.examples), self.seed, epoch))
        # For a strategy that draws, every rank draws for the whole global batch, so that together they train on what
        # one process would. For 8 x 1,024 queries that costs 1 ms a batch with random documents, 3 ms with a mixture.
        first, last = (0, self.ranks) if self.negatives.stochastic else (self.rank, self.rank + 1)
        start = k * self.ranks
        rows = self._order[1].take((start + first) * self.batch_size, (start + last) * self.batch_size)
        own = slice((self.rank - first) * self.batch_size, (self.rank - first + 1) * self.batch_size)
        return self.assemble(rows, np.random.default_rng((self.seed, epoch, k)), own)

    def assemble(self, rows: np.ndarray, rng: np.random.Generator, own: slice) -> Batch:
        """The batch of those of the examples ``rows`` that are this rank's ``own``."""
        data = self.data
        queries, positives, given = data.examples.take(rows)
        extra = self.negatives.extra_negatives(DrawContext(queries, given, data.positives, rng))[own]
        queries, positives = queries[own], positives[own]
        documents = np.concatenate([positives, extra.ravel()])
        margins = data.examples.margins(rows[own]) if self.negatives.needs_triplets else None
        if margins is not None and margins.shape != extra.shape:  # a mixture: some have no score
            margins = None
        return Batch(
            data.queries.select(queries),
            data.documents.select(documents),
            torch.from_numpy(self.mask.in_batch(queries, documents)),
            torch.from_numpy(queries),
            torch.from_numpy(documents),
            None if margins is None else torch.from_numpy(np.ascontiguousarray(margins)),
        )


class _Positions(Sampler[tuple[int, int]]):
    """The positions from (epoch, batch) to the end of the epoch."""

    def __init__(self) -> None:
        self.epoch, self.batch, self.stop = 0, 0, 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([(self.epoch, k) for k in range(self.batch, self.stop)])

    def __len__(self) -> int:
        return self.stop


class BatchLoader(DataLoader[Batch]):
    """A loader whose state is the position (epoch, batch); Lightning keeps it in the checkpoint.

    It counts in the main process what it has handed out, so the position is exact for any number of
    workers. Its length is that of a whole epoch, even when it continues in the middle of one.
    """

    def __init__(self, batches: Batches, num_workers: int = 0, pin_memory: bool = False) -> None:
        self._positions = _Positions()
        self._positions.stop = len(batches)
        super().__init__(
            batches,
            batch_size=None,
            sampler=self._positions,
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
        )
        self._epoch, self._batch = 0, 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self._positions.epoch, self._positions.batch = self._epoch, self._batch
        for batch in super().__iter__():
            # Before the yield: Lightning never runs a sized loader to exhaustion, so nothing after the
            # last yield would happen.
            self._batch += 1
            if self._batch == len(self):
                self._epoch, self._batch = self._epoch + 1, 0
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The position of the next batch."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at a saved position."""
        self._epoch, self._batch = state["epoch"], state["batch"]
