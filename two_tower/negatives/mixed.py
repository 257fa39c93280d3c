"""Several strategies at once, with weights that may change from epoch to epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from two_tower.negatives.base import Collection, DrawContext, DrawnNegatives, Negatives

# Keys that only the mixture may set, with their defaults.
_MIXTURE_KEYS = {"count": 1, "in_batch_negatives": None, "mask_known_positives": True}


class MixedNegatives(DrawnNegatives):
    """``count`` documents per query, each from one of several strategies.

    The strategy of each document is drawn by the weights of the epoch (1 for a strategy without one). So easy and hard
    negatives, which are both needed (Zhan et al. 2021, arXiv:2104.08051), mix in any proportion that a schedule gives.
    """

    def __init__(
        self,
        count: int = 1,
        weights: Mapping[str, float | list[float]] | None = None,
        in_batch_negatives: bool | None = None,
        mask_known_positives: bool = True,
        **strategies: Negatives,
    ) -> None:
        super().__init__(count, in_batch_negatives, mask_known_positives)
        self.strategies = {name: _checked(name, strategy) for name, strategy in strategies.items()}
        for strategy in self.strategies.values():
            strategy.mask_known_positives = mask_known_positives
        self.needs_triplets = any(s.needs_triplets for s in self.strategies.values())
        self.needs_collection = any(s.needs_collection for s in self.strategies.values())
        self._weights = _schedules(weights or {}, self.strategies)
        for epoch in range(max(map(len, self._weights.values()))):
            if not self._shares(epoch).any():
                raise ValueError(f"weights are all 0 in epoch {epoch + 1}: give one of them a weight above 0")
        self._epoch = 0

    def _shares(self, epoch: int) -> np.ndarray:
        # (S,) float64, the weight of each strategy in an epoch (from 0).
        return np.array([w[min(epoch, len(w) - 1)] for w in self._weights.values()], np.float64)

    def _used(self, epoch: int) -> Iterator[tuple[DrawnNegatives, float]]:
        shares = self._shares(epoch)
        return ((s, p) for s, p in zip(self.strategies.values(), shares / shares.sum(), strict=True) if p)

    def prepare(self, collection: Collection) -> None:
        for name, strategy in self.strategies.items():
            strategy.prepare(replace(collection, folder=collection.folder / name))

    def start_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        for strategy, _ in self._used(epoch):
            strategy.start_epoch(epoch)

    def parts(self, epoch: int) -> list[Negatives]:
        return [part for strategy, _ in self._used(epoch) for part in strategy.parts(epoch)]

    def draw(self, count: int, context: DrawContext) -> np.ndarray:
        strategies, shares = zip(*self._used(self._epoch), strict=True)
        which = context.rng.choice(len(shares), (len(context.query_rows), count), p=shares)
        rows = np.empty(which.shape, np.int64)
        for number, strategy in enumerate(strategies):
            np.copyto(rows, strategy.draw(count, context), where=which == number)
        return rows


def _checked(name: str, strategy: Negatives) -> DrawnNegatives:
    if not isinstance(strategy, Negatives):
        raise ValueError(
            f"{name} is neither a strategy nor a key of the mixture: "
            f"add a strategy with +negatives@negatives.{name}=CHOICE"
        )
    if not isinstance(strategy, DrawnNegatives):
        raise ValueError(
            f"{name} has no documents of its own to mix in: leave it out, and set in_batch_negatives=true to use the "
            "other documents of the batch"
        )
    for key, default in _MIXTURE_KEYS.items():
        if getattr(strategy, key) != default:
            raise ValueError(f"{name}.{key} has no effect in a mixture: set {key} of the mixture instead")
    return strategy


def _schedules(
    weights: Mapping[str, float | list[float]], strategies: Mapping[str, DrawnNegatives]
) -> dict[str, list[float]]:
    # Name → weight of each epoch, in the order of the strategies.
    if not strategies:
        raise ValueError("random or another strategy is missing: add one with +negatives@negatives.random=random")
    for name, weight in weights.items():
        if name not in strategies:
            raise ValueError(f"weights.{name} belongs to no strategy; valid: {', '.join(sorted(strategies))}")
        for value in weight if isinstance(weight, list) and weight else [weight]:
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(
                    f"weights.{name}={weight} must be a number of at least 0, or a list with one for each epoch"
                )
    listed = {name: weights.get(name, 1.0) for name in strategies}
    return {name: list(weight) if isinstance(weight, list) else [weight] for name, weight in listed.items()}
