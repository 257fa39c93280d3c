"""Several strategies at once, and which of them how often, from epoch to epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from two_tower.errors import UserError, one_of
from two_tower.negatives.base import Collection, DrawnNegatives, Negatives, Positives

__all__ = ["MixedNegatives"]

# What the strategies within leave to the mixture, with the value that says nothing.
_OF_THE_WHOLE = {"count": 1, "share_batch": None, "mask_known": True}


class MixedNegatives(DrawnNegatives):
    """``count`` documents per query, each from one of several strategies.

    The strategy of each document is drawn by the weights of the epoch. So easy and hard negatives come in any
    proportion, and a schedule begins with easy ones (Zhan et al. 2021, arXiv:2104.08051, on why both are needed).

    Args:
        count: extra documents per query.
        weights: name → how often, relative to the others: a number, or a list with one for each epoch, of which the
            last one stays. 1 for a strategy that is not named.
        share_batch: see `Negatives`.
        mask_known: see `Negatives`.
        strategies: the strategies under their names; the keys above are not theirs.

    Raises:
        UserError: no strategy or one without documents of its own, a weight that is none or has no strategy, an
            epoch in which all weights are 0, or a strategy's own value for a key of the whole.
    """

    def __init__(
        self,
        count: int = 1,
        weights: Mapping[str, float | list[float]] | None = None,
        share_batch: bool | None = None,
        mask_known: bool = True,
        **strategies: Negatives,
    ) -> None:
        super().__init__(count, share_batch, mask_known)
        self.strategies = {name: _checked(name, strategy) for name, strategy in strategies.items()}
        for strategy in self.strategies.values():
            strategy.mask_known = mask_known
        self.needs_triplets = any(s.needs_triplets for s in self.strategies.values())
        self.needs_collection = any(s.needs_collection for s in self.strategies.values())
        self._weights = _schedules(weights or {}, self.strategies)
        for epoch in range(max(map(len, self._weights.values()))):
            if not self._shares(epoch).any():
                raise UserError(f"negatives.weights are all 0 in epoch {epoch + 1}: give one of them a weight above 0.")
        self._epoch = 0

    def _shares(self, epoch: int) -> np.ndarray:
        """(S,) float64, the weight of each strategy in an epoch (from 0)."""
        return np.array([w[min(epoch, len(w) - 1)] for w in self._weights.values()], np.float64)

    def _used(self, epoch: int) -> Iterator[tuple[DrawnNegatives, float]]:
        """The strategies of an epoch and their shares, which sum to 1."""
        shares = self._shares(epoch)
        return ((s, p) for s, p in zip(self.strategies.values(), shares / shares.sum(), strict=True) if p)

    def prepare(self, collection: Collection) -> None:
        """Prepare all; each has a folder of its own."""
        for name, strategy in self.strategies.items():
            strategy.prepare(replace(collection, folder=collection.folder / name))

    def start_epoch(self, epoch: int) -> None:
        """Start the epoch of those that are used in it."""
        self._epoch = epoch
        for strategy, _ in self._used(epoch):
            strategy.start_epoch(epoch)

    def parts(self, epoch: int) -> list[Negatives]:
        """The strategies with a weight above 0."""
        return [part for strategy, _ in self._used(epoch) for part in strategy.parts(epoch)]

    def draw(
        self,
        count: int,
        query_rows: np.ndarray,
        given: np.ndarray | None,
        positives: Positives,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """(B, count)."""
        strategies, shares = zip(*self._used(self._epoch), strict=True)
        which = rng.choice(len(shares), (len(query_rows), count), p=shares)
        rows = np.empty(which.shape, np.int64)
        for number, strategy in enumerate(strategies):
            drawn = strategy.draw(count, query_rows, given, positives, rng)
            np.copyto(rows, drawn, where=which == number)
        return rows


def _checked(name: str, strategy: Negatives) -> DrawnNegatives:
    if not isinstance(strategy, Negatives):
        raise UserError(
            f"negatives.{name} is neither a strategy nor a key of the mixture: "
            f"add a strategy with +negatives@negatives.{name}=CHOICE."
        )
    if not isinstance(strategy, DrawnNegatives):
        raise UserError(
            f"negatives.{name} has no documents of its own to mix in: leave it out; negatives.share_batch=true uses "
            "the other documents of the batch."
        )
    for key, neutral in _OF_THE_WHOLE.items():
        if getattr(strategy, key) != neutral:
            raise UserError(f"negatives.{name}.{key} says nothing in a mixture: set negatives.{key} instead.")
    return strategy


def _schedules(
    weights: Mapping[str, float | list[float]], strategies: Mapping[str, DrawnNegatives]
) -> dict[str, list[float]]:
    """Name → weight of each epoch, in the order of the strategies.

    Raises:
        UserError: see `MixedNegatives`.
    """
    if not strategies:
        raise UserError("negatives=mixed has no strategy left: add one with +negatives@negatives.random=random.")
    for name, weight in weights.items():
        if name not in strategies:
            raise UserError(f"negatives.weights.{name} belongs to no strategy; {one_of(name, strategies)}.")
        for value in weight if isinstance(weight, list) and weight else [weight]:
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise UserError(
                    f"negatives.weights.{name}={weight} must be a number of at least 0, or a list with one for each "
                    "epoch."
                )
    listed = {name: weights.get(name, 1.0) for name in strategies}
    return {name: list(weight) if isinstance(weight, list) else [weight] for name, weight in listed.items()}
