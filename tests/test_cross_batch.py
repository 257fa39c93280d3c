"""A memory holds the last documents, oldest first, whatever the sizes of the batches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from two_tower.memory import Memory

from two_tower.errors import UserError


@given(st.integers(1, 12), st.lists(st.integers(0, 15), max_size=8))
@settings(max_examples=60, deadline=None)
def test_it_holds_the_last_documents(size: int, batches: list[int]) -> None:
    memory, rows, vectors = Memory(size, 3), list[int](), list[torch.Tensor]()
    for count in batches:
        new = torch.arange(len(rows), len(rows) + count), torch.randn(count, 3)
        memory.remember(new[1], new[0])
        rows += new[0].tolist()
        vectors += new[1]
        held, held_rows = memory.held()
        assert held_rows.tolist() == rows[-size:]
        assert torch.equal(held, torch.stack(vectors)[-size:] if vectors else torch.empty(0, 3))
    state = memory.state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {"vectors": (size, 3), "rows": (size,)}
    other = Memory(size, 3)
    other.load_state_dict(state)
    assert torch.equal(other.held()[0], memory.held()[0])


def test_what_is_held_stays_as_it_was() -> None:
    """The backward pass of a step runs after its documents have been remembered."""
    memory, query = Memory(4, 2), torch.ones(1, 2, requires_grad=True)
    memory.remember(torch.arange(8.0).view(4, 2).requires_grad_(), torch.arange(4))
    scores = query @ memory.held()[0].T
    memory.remember(torch.zeros(4, 2), torch.arange(4))
    scores.sum().backward()
    assert query.grad is not None
    assert query.grad.tolist() == [[12, 16]]
    assert not memory.vectors.requires_grad


def test_vectors_of_lower_precision_are_kept_in_float32() -> None:
    memory = Memory(2, 2)
    memory.remember(torch.ones(1, 2, dtype=torch.bfloat16), torch.tensor([5]))
    vectors, rows = memory.held()
    assert (vectors.dtype, vectors.tolist(), rows.tolist()) == (torch.float32, [[1, 1]], [5])


def test_a_memory_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"cross_batch_memory=-1 must be at least 1, or 0 for none\."):
        Memory(-1, 4)
