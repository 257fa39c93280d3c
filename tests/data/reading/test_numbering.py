"""Numbering against a dictionary."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from two_tower.data.reading.numbering import Numbering

# Few keys, so that they repeat, some of them equal in the bits that choose a slot; 0 is a key like any other.
keys = st.one_of(st.integers(0, 20), st.integers(0, 5).map(lambda k: k << 32), st.integers(2**64 - 3, 2**64 - 1))


@settings(deadline=None)
@given(st.lists(st.lists(keys, max_size=15), max_size=20), st.lists(keys))
def test_keys_are_numbered_in_the_order_in_which_they_come(batches: list[list[int]], asked: list[int]) -> None:
    numbering = Numbering()
    expected: dict[int, int] = {}
    for batch in batches:
        first = [key not in expected and key not in batch[:at] for at, key in enumerate(batch)]
        for key in batch:
            expected.setdefault(key, len(expected))
        numbers, new = numbering.add(np.array(batch, np.uint64))
        assert numbers.tolist() == [expected[key] for key in batch]
        assert new.tolist() == first
    assert len(numbering) == len(expected)
    assert numbering.find(np.array(asked, np.uint64)).tolist() == [expected.get(key, -1) for key in asked]


def test_it_grows() -> None:
    numbering = Numbering()
    many = np.unique(np.random.default_rng(0).integers(2**64, size=50_000, dtype=np.uint64))
    for part in np.array_split(many, 7):
        numbering.add(part)
    assert numbering.find(many).tolist() == list(range(len(many)))
    assert not numbering.add(many[::-1])[1].any()
