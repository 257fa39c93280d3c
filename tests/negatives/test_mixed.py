"""A mixture: whose documents how often in which epoch, and mistakes in its configuration."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from two_tower.negatives.ann import ANNNegatives
from two_tower.negatives.base import Collection, DrawContext, DrawnNegatives, KnownPositives
from two_tower.negatives.given import GivenNegatives
from two_tower.negatives.in_batch import InBatchNegatives
from two_tower.negatives.mixed import MixedNegatives
from two_tower.negatives.random import RandomNegatives


class Only(DrawnNegatives):
    """Draws one document; keeps what it is called with."""

    def __init__(self, row: int) -> None:
        super().__init__()
        self.row, self.epochs, self.collections = row, [], []

    def prepare(self, collection: Collection) -> None:
        self.collections.append(collection)

    def start_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def draw(self, count: int, context: DrawContext) -> np.ndarray:
        return np.full((len(context.query_rows), count), self.row)


NOTHING = KnownPositives(np.zeros(0, int), np.zeros(0, int), np.arange(9), np.arange(9))


def context(size: int, seed: int = 0, given: np.ndarray | None = None) -> DrawContext:
    return DrawContext(np.zeros(size, int), given, NOTHING, np.random.default_rng(seed))


def shares(mixed: MixedNegatives, epoch: int, size: int = 6000) -> list[float]:
    mixed.start_epoch(epoch)
    drawn = mixed.extra_negatives(context(size, epoch))
    assert drawn.shape == (size, mixed.count)
    return (np.bincount(drawn.ravel(), minlength=3) / drawn.size).tolist()


def test_weights_follow_the_schedule_and_the_last_one_stays() -> None:
    mixed = MixedNegatives(2, {"a": 1, "b": [0, 0.5, 3], "c": [2, 0]}, a=Only(0), b=Only(1), c=Only(2))
    for epoch, expected in enumerate([[1 / 3, 0, 2 / 3], [2 / 3, 1 / 3, 0], [1 / 4, 3 / 4, 0], [1 / 4, 3 / 4, 0]]):
        assert shares(mixed, epoch) == pytest.approx(expected, abs=0.03)
    assert [strategy.epochs for strategy in mixed.strategies.values()] == [[0, 1, 2, 3], [1, 2, 3], [0]]
    assert [[part.row for part in mixed.parts(epoch)] for epoch in range(3)] == [[0, 2], [0, 1], [0, 1]]


def test_the_documents_of_a_query_mix_and_follow_from_the_generator() -> None:
    mixed = MixedNegatives(4, a=Only(0), b=Only(1))
    drawn = [mixed.extra_negatives(context(50, seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()
    assert len({tuple(row) for row in drawn[0].tolist()}) > 8


def test_what_the_strategies_need_the_mixture_needs() -> None:
    mixed = MixedNegatives(a=RandomNegatives(), b=GivenNegatives())
    assert (mixed.needs_triplets, mixed.needs_collection, mixed.stochastic) == (True, False, True)
    mixed = MixedNegatives(mask_known_positives=False, a=RandomNegatives(), b=ANNNegatives())
    assert (mixed.needs_triplets, mixed.needs_collection) == (False, True)
    assert not any(strategy.mask_known_positives for strategy in mixed.strategies.values())
    given = np.array([[5, 6, 7]] * 300)
    only = MixedNegatives(2, {"random": 0}, random=RandomNegatives(), given=GivenNegatives())
    drawn = only.extra_negatives(context(300, given=given))
    assert (np.sort(drawn, 1)[:, 0] < np.sort(drawn, 1)[:, 1]).all()
    assert set(drawn.ravel().tolist()) == {5, 6, 7}


def test_each_has_a_folder_of_its_own(tmp_path: Path) -> None:
    inner = MixedNegatives(c=Only(0))
    collection = Collection(None, None, None, None, NOTHING, False, "", tmp_path)  # type: ignore[arg-type]
    MixedNegatives(a=Only(1), b=inner).prepare(collection)
    assert inner.strategies["c"].collections[0].folder == tmp_path / "b" / "c"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"in_batch": InBatchNegatives()}, r"in_batch has no documents of its own .* in_batch_negatives=true"),
        ({"hard": 3}, r"hard is neither .* \+negatives@negatives\.hard=CHOICE"),
        ({}, r"random or another strategy is missing.* \+negatives@negatives\.random=random"),
        ({"a": Only(0), "b": Only(1), "weights": {"a": [1, 0], "b": [0, 0, 1]}}, "weights are all 0 in epoch 2"),
        ({"a": Only(0), "weights": {"a": [1, -1]}}, r"weights\.a=\[1, -1\] must be a number"),
        ({"random": Only(0), "weights": {"radnom": 1}}, r"weights\.radnom .* valid: random"),
        ({"a": RandomNegatives(2)}, r"a\.count has no effect in a mixture: set count"),
        ({"count": 0, "a": Only(0)}, "count=0 must be at least 1"),
    ],
)
def test_a_mixture_that_cannot_work_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        MixedNegatives(**settings)
