"""Ragged batches against plain lists."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from two_tower.ragged import Ragged

texts = st.lists(st.lists(st.integers(0, 99), max_size=6), max_size=8)


@given(texts, st.data())
def test_slices_rows_and_joins_are_those_of_lists(lists: list[list[int]], data: st.DataObject) -> None:
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(lists))] * 2)))
    whole = Ragged.from_lists(lists)
    assert whole.to_lists() == lists
    assert (whole.ids.dtype, whole.offsets.dtype) == (torch.int32, torch.int64)
    part, batch = lists[start:stop], whole.slice(start, stop)
    assert batch.to_lists() == part
    assert (len(batch), batch.lengths.tolist()) == (len(part), [*map(len, part)])
    rows = data.draw(st.lists(st.integers(0, len(part) - 1), max_size=10)) if part else []
    chosen = [part[row] for row in rows]
    assert batch.select(rows).to_lists() == batch.select(np.array(rows, np.int64)).to_lists() == chosen
    middle = data.draw(st.integers(0, len(part)))
    assert batch.slice(middle, len(part)).to_lists() == part[middle:]
    joined = Ragged.join([batch.select(rows), batch.slice(middle, len(part)), whole])
    assert joined.to_lists() == [*chosen, *part[middle:], *lists]


@pytest.mark.parametrize("rows", [[-1], [2], [0, 5]])
def test_a_row_that_does_not_exist_is_refused(rows: list[int]) -> None:
    with pytest.raises(IndexError, match="outside 0 … 1"):
        Ragged.from_lists([[1, 2], [3]]).select(rows)
