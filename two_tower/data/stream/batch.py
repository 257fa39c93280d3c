"""One training batch, and the map from a position (epoch, k) to its batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from two_tower.data.stream.triplets import TrainingSet
from two_tower.negatives.base import DrawContext, NegativeMask, Negatives
from two_tower.ragged import Ragged


@dataclass(frozen=True, eq=False)
class Batch:
    """What a training step gets."""

    queries: Ragged  # B texts
    documents: Ragged  # N ≥ B texts: the positive of each query, then the extra negatives of each query in turn
    negatives: Tensor  # (B, N) bool, the documents that each query is pushed away from
    query_rows: Tensor  # (B,) int64 rows of the training queries
    document_rows: Tensor  # (N,) int64 rows of the documents
    margins: Tensor | None = None  # (B, G) float32, a teacher's score of each positive minus those of its negatives
    weight: Tensor | None = None  # () float32, B against an equal share of the step, where processes have unequal ones

    def __len__(self) -> int:
        return len(self.queries)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        return self._map(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        return self._map(lambda part: part.pin_memory())

    def _map(self, move: Callable[[Any], Any]) -> Batch:
        parts: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: move(part) for name, part in parts.items() if part is not None})


class BlockShuffle:
    """The examples 0 … count - 1 in the order of one epoch (from 0), a pure function of (seed, epoch).

    Blocks of consecutive examples are permuted, and then the examples within each window of blocks, so data of up to
    ``block * window`` examples is fully shuffled. Reading stays nearly sequential, memory does not grow with the data,
    and the examples at any position can be computed directly.
    """

    def __init__(self, count: int, seed: int, epoch: int, block: int = 1024, window: int = 256) -> None:
        self._count, self._seed, self._epoch = count, seed, epoch
        self._block, self._window = block, window
        blocks = -(-count // block)
        self._blocks = np.random.default_rng((seed, epoch)).permutation(blocks)
        sizes = np.minimum(block, count - self._blocks * block)
        windows = -(-blocks // window)
        starts = np.arange(windows) * window
        self._ends = np.cumsum(np.add.reduceat(sizes, starts)) if blocks else np.zeros(0, np.int64)
        self._cached: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def take(self, start: int, stop: int) -> np.ndarray:
        """int64 examples at the positions ``start`` to ``stop`` (exclusive)."""
        parts = []
        while start < stop:
            window = int(np.searchsorted(self._ends, start, side="right"))
            begin = int(self._ends[window - 1]) if window else 0
            end = min(stop, int(self._ends[window]))
            parts.append(self._examples(window)[start - begin : end - begin])
            start = end
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _examples(self, window: int) -> np.ndarray:
        if self._cached[0] != window:
            first = window * self._window
            starts = self._block * self._blocks[first : first + self._window]
            examples = np.concatenate([np.arange(s, min(s + self._block, self._count)) for s in starts])
            np.random.default_rng((self._seed, self._epoch, window)).shuffle(examples)
            self._cached = (window, examples)
        return self._cached[1]


@dataclass(eq=False)
class Batches(Dataset[Batch]):
    """Batch ``(epoch, k)`` of one rank: a pure function of the seed. All ranks share ``batch_size`` examples."""

    data: TrainingSet
    negatives: Negatives
    mask: NegativeMask
    batch_size: int
    seed: int
    rank: int = 0
    ranks: int = 1
    _order: tuple[int, BlockShuffle] | None = None

    def __len__(self) -> int:
        # The last incomplete batch is dropped.
        return len(self.data.examples) // self.batch_size

    def __getitem__(self, position: tuple[int, int]) -> Batch:
        epoch, k = position
        if self._order is None or self._order[0] != epoch:
            self.negatives.start_epoch(epoch)
            self._order = (epoch, BlockShuffle(len(self.data.examples), self.seed, epoch))
        # A strategy that draws does so for the whole global batch in every rank, so that together they train on what
        # one process would. For 8 x 1,024 queries that costs 1 ms a batch with random documents, 3 ms with a mixture.
        own, start = self.share, k * self.batch_size
        if self.negatives.stochastic:
            rows = self._order[1].take(start, start + self.batch_size)
        else:
            rows, own = self._order[1].take(start + own.start, start + own.stop), slice(None)
        batch = self.assemble(rows, np.random.default_rng((self.seed, epoch, k)), own)
        if self.batch_size % self.ranks == 0:
            return batch
        return replace(batch, weight=torch.tensor(len(batch) * self.ranks / self.batch_size))

    @property
    def share(self) -> slice:
        """The examples of a batch that are this rank's."""
        first, last = (rank * self.batch_size // self.ranks for rank in (self.rank, self.rank + 1))
        return slice(first, last)

    def assemble(self, rows: np.ndarray, rng: np.random.Generator, own: slice) -> Batch:
        """The batch of the part ``own`` of the examples ``rows``."""
        data = self.data
        examples = data.examples.take(rows)
        context = DrawContext(examples.query_rows, examples.negative_rows, data.positives, rng)
        extra = self.negatives.extra_negatives(context)[own]
        queries, margins = examples.query_rows[own], examples.margins
        documents = np.concatenate([examples.positive_rows[own], extra.ravel()])
        if margins is not None and margins[own].shape != extra.shape:  # a mixture, where not all have a score
            margins = None
        negatives = torch.from_numpy(self.mask.in_batch(queries, documents))
        scores = None if margins is None else torch.from_numpy(np.ascontiguousarray(margins[own]))
        texts = data.queries.select(queries), data.documents.select(documents)
        return Batch(*texts, negatives, torch.from_numpy(queries), torch.from_numpy(documents), scores)


class BatchLoader(DataLoader[Batch]):
    """A loader whose state is the position (epoch, batch); Lightning keeps it in the checkpoint.

    It counts its batches in the main process, so the position is exact with any number of workers. Its length is that
    of a whole epoch, even when it continues in the middle of one.
    """

    def __init__(self, batches: Batches, num_workers: int = 0, pin_memory: bool = False) -> None:
        self._epoch, self._batch, self._count = 0, 0, len(batches)
        self._positions: list[tuple[int, int]] = []
        workers: dict[str, Any] = {"num_workers": num_workers, "persistent_workers": num_workers > 0}
        super().__init__(batches, batch_size=None, sampler=self._positions, pin_memory=pin_memory, **workers)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self._positions[:] = [(self._epoch, k) for k in range(self._batch, len(self))]  # it is the sampler
        for batch in super().__iter__():
            # Before the yield: Lightning never exhausts a sized loader, so nothing after the last yield would run.
            self._batch += 1
            if self._batch == len(self):
                self._epoch, self._batch = self._epoch + 1, 0
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._epoch, self._batch = state["epoch"], state["batch"]
