"""Clipping against torch's on dense gradients, and against the dense form of sparse ones."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from two_tower.errors import UserError
from two_tower.optimizer.base import clip_gradients

V, D = 6, 3
TORCH: dict[str, Callable] = {"norm": nn.utils.clip_grad_norm_, "value": nn.utils.clip_grad_value_}


@st.composite
def gradients(draw: st.DrawFn) -> list[Tensor]:
    """Dense and sparse gradients, rows repeated and unordered, of very different sizes."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    some_rows = st.one_of(st.none(), st.lists(st.integers(0, V - 1), max_size=9))
    found = []
    for rows in draw(st.lists(some_rows, min_size=1, max_size=4)):
        scale = 10.0 ** draw(st.integers(-6, 6))
        values = scale * torch.randn(V if rows is None else len(rows), D, generator=generator)
        found.append(values if rows is None else sparse(rows, values))
    return found


def sparse(rows: list[int], values: Tensor) -> Tensor:
    return torch.sparse_coo_tensor(torch.tensor([rows], dtype=torch.int64), values, (V, D), check_invariants=True)


def with_gradients(grads: list[Tensor]) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros(V, D)) for _ in [*grads, None]]  # the last has no gradient
    for parameter, grad in zip(parameters, grads, strict=False):
        parameter.grad = grad.clone()
    return parameters


@pytest.mark.parametrize("algorithm", ["norm", "value"])
@settings(max_examples=50, deadline=None)
@given(grads=gradients(), exponent=st.floats(-4, 6))
def test_equals_torch_on_the_dense_form(algorithm: str, grads: list[Tensor], exponent: float) -> None:
    limit = 10.0**exponent
    ours, dense = with_gradients(grads), with_gradients([g.to_dense() for g in grads])
    norm_before = torch.nn.utils.get_total_norm([p.grad for p in dense if p.grad is not None])
    TORCH[algorithm](dense, limit)
    norm = clip_gradients(ours, limit, algorithm)
    assert norm.shape == ()
    torch.testing.assert_close(norm, norm_before, rtol=1e-5, atol=0)
    for mine, reference, grad in zip(ours, dense, grads, strict=False):
        assert mine.grad.is_sparse is grad.is_sparse
        torch.testing.assert_close(mine.grad.to_dense(), reference.grad, rtol=1e-5, atol=0)
    assert ours[-1].grad is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_norm_that_is_not_finite_leaves_the_gradients(bad: float) -> None:
    values = torch.ones(2, D)
    values[0, 0] = bad
    grads = [torch.full((V, D), 7.0), sparse([1, 3], values)]
    parameters = with_gradients(grads)
    norm = clip_gradients(parameters, 1.0)
    assert not norm.isfinite()
    assert torch.equal(parameters[0].grad, grads[0])
    torch.testing.assert_close(parameters[1].grad.to_dense(), grads[1].to_dense(), equal_nan=True, rtol=0, atol=0)


def test_no_gradient_at_all_and_wrong_settings() -> None:
    assert clip_gradients([nn.Parameter(torch.zeros(2))], 1.0) == 0
    for limit in (0.0, -1.0, math.nan):
        with pytest.raises(UserError, match="gradient_clip_val"):
            clip_gradients([], limit)
    with pytest.raises(UserError, match="did you mean 'norm'"):
        clip_gradients([], 1.0, "nrom")
