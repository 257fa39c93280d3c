"""The order of training data."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from two_tower.data.stream.batch import BlockShuffle


@given(st.integers(0, 500), st.integers(0, 9), st.integers(0, 3), st.integers(1, 40), st.integers(1, 5))
def test_every_example_comes_once(count: int, seed: int, epoch: int, block: int, window: int) -> None:
    order = BlockShuffle(count, seed, epoch, block, window)
    assert sorted(order.take(0, count).tolist()) == list(range(count))


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 5), st.data())
def test_any_part_can_be_named_by_itself(count: int, block: int, window: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(start, count))
    whole = BlockShuffle(count, 1, 2, block, window).take(0, count)
    np.testing.assert_array_equal(BlockShuffle(count, 1, 2, block, window).take(start, stop), whole[start:stop])


def test_epochs_and_seeds_differ_and_repeat() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return BlockShuffle(1000, seed, epoch, 64, 4).take(0, 1000).tolist()

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_small_data_is_fully_shuffled() -> None:
    """Neighbours of the file end up far apart: MS MARCO's training queries are sorted by topic."""
    order = BlockShuffle(10_000, 0, 0).take(0, 10_000)
    place = np.argsort(order)
    assert np.abs(np.diff(place)).mean() > 3000
