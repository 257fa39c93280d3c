"""Ragged batches against plain lists."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from two_tower.ragged import Ragged

texts = st.lists(st.lists(st.integers(0, 99), max_size=6), max_size=8)


@given(texts)
def test_lists_go_in_and_out(lists: list[list[int]]) -> None:
    batch = Ragged.from_lists(lists)
    assert batch.to_lists() == lists
    assert len(batch) == len(lists)
    assert batch.lengths.tolist() == [len(t) for t in lists]
    assert batch.ids.dtype == torch.int32
    assert batch.offsets.dtype == torch.int64


@given(texts.filter(len), st.data())
def test_select_is_indexing(lists: list[list[int]], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=10))
    assert Ragged.from_lists(lists).select(rows).to_lists() == [lists[r] for r in rows]
    assert Ragged.from_lists(lists).select(np.array(rows, np.int64)).to_lists() == [lists[r] for r in rows]


@pytest.mark.parametrize("rows", [[-1], [2], [0, 5]])
def test_a_row_that_does_not_exist_is_refused(rows: list[int]) -> None:
    with pytest.raises(IndexError, match="outside 0 … 1"):
        Ragged.from_lists([[1, 2], [3]]).select(rows)


@given(texts, st.integers(0, 8), st.integers(0, 8))
def test_slice_is_slicing(lists: list[list[int]], start: int, stop: int) -> None:
    start, stop = min(start, len(lists)), min(stop, len(lists))
    if start <= stop:
        assert Ragged.from_lists(lists).slice(start, stop).to_lists() == lists[start:stop]


@given(st.lists(texts, max_size=4))
def test_join_is_concatenation(batches: list[list[list[int]]]) -> None:
    joined = Ragged.join([Ragged.from_lists(b) for b in batches])
    assert joined.to_lists() == [t for b in batches for t in b]


def test_slices_of_slices_keep_their_texts() -> None:
    batch = Ragged.from_lists([[1], [2, 3], [], [4, 5, 6], [7]])
    assert batch.slice(1, 5).slice(1, 3).select([1, 0]).to_lists() == [[4, 5, 6], []]
    assert Ragged.join([batch.slice(1, 2), batch.slice(3, 5)]).to_lists() == [[2, 3], [4, 5, 6], [7]]
