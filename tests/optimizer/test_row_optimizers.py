"""Adam and Adagrad against torch's optimizers, plain loops in double precision, and their own promises."""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from training import reloaded

from two_tower.optimizer import adagrad, adam
from two_tower.optimizer.base import RowOptimizer, coalesced, parameter_groups

V, D = 12, 5
PLAIN = {"lr": 0.01, "embedding_lr_scale": 1.0, "weight_decay": 0.0, "embedding_weight_decay": 0.0, "row_wise": True}


def Adam(params: Any, **options: Any) -> adam.Adam:  # noqa: ANN401
    return adam.Adam(params, **{**PLAIN, "betas": (0.9, 0.999), "eps": 1e-8, **options})


def Adagrad(params: Any, **options: Any) -> adagrad.Adagrad:  # noqa: ANN401
    return adagrad.Adagrad(params, **{**PLAIN, "initial_accumulator": 0.0, "eps": 1e-10, **options})


BOTH = pytest.mark.parametrize("optimizer_class", [Adam, Adagrad])


@pytest.fixture(params=["compiled", "torch"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both implementations of the row update, the one for CPUs and the one for other devices."""
    monkeypatch.setattr(RowOptimizer, "_compiled", request.param == "compiled")
    return request.param


def sparse(rows: list[int], values: Tensor, size: tuple[int, ...] = (V, D)) -> Tensor:
    return torch.sparse_coo_tensor(torch.tensor([rows], dtype=torch.int64), values, size, check_invariants=True)


def table(*size: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    generator = torch.Generator().manual_seed(seed)
    return nn.Parameter(torch.randn(*(size or (V, D)), generator=generator, dtype=dtype))


def row_gradients(steps: int, size: tuple[int, ...] = (V, D), scale: float = 1.0) -> Iterator[tuple[list[int], Tensor]]:
    """Per step: some rows in ascending order (row 11 only in the last step), their gradients."""
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        rows = torch.randperm(V - 1, generator=generator)[:4].sort().values.tolist()
        if step == steps - 1:
            rows.append(V - 1)
        yield rows, scale * torch.randn(len(rows), *size[1:], generator=generator)


def follow(ours: RowOptimizer, theirs: torch.optim.Optimizer, grads: Iterator[Tensor]) -> None:
    """Give both optimizers' only parameter the same gradients; the parameters must stay equal."""
    (mine,), (reference,) = ours.param_groups[0]["params"], theirs.param_groups[0]["params"]
    start = mine.detach().clone()
    for grad in grads:
        mine.grad, reference.grad = grad.clone(), grad.clone()
        ours.step()
        theirs.step()
        torch.testing.assert_close(mine, reference, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(mine, start, atol=1e-3)


def dense_gradients(transposed: bool = False) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(2)
    for _ in range(6):
        grad = torch.randn(D, V, generator=generator).T
        yield grad if transposed else grad.contiguous()


def pair(name: str, sparse: bool, size: tuple[int, ...], **options: Any) -> tuple[RowOptimizer, torch.optim.Optimizer]:  # noqa: ANN401
    if name == "adagrad":
        theirs: torch.optim.Optimizer = torch.optim.Adagrad([table(*size)], **options, initial_accumulator_value=0.1)
        return Adagrad([table(*size)], **options, initial_accumulator=0.1, row_wise=False), theirs
    options["betas"] = (0.8, 0.95)
    theirs = (torch.optim.SparseAdam if sparse else torch.optim.AdamW)([table(*size)], **options)
    return Adam([table(*size)], **options, row_wise=False), theirs


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("name", ["adam", "adagrad"])
def test_dense_steps_equal_torchs(name: str, transposed: bool) -> None:
    for weight_decay in (0.0, 0.3):
        optimizers = pair(name, False, (V, D), lr=0.02, eps=1e-6, weight_decay=weight_decay)
        follow(*optimizers, dense_gradients(transposed))


@pytest.mark.parametrize(
    ("name", "scale", "size"),
    [("adam", 1.0, (V, D)), ("adam", 1e-6, (V, 2, 3)), ("adagrad", 1.0, (V, D)), ("adagrad", 1.0, (V,))],
)
def test_sparse_steps_equal_torchs(path: str, name: str, size: tuple[int, ...], scale: float) -> None:
    optimizers = pair(name, True, size, lr=0.02, eps=1e-7)
    follow(*optimizers, (sparse(r, g, size) for r, g in row_gradients(6, size, scale)))


def adam_by_row(rows_and_grads: list[tuple[list[int], list]], start: list, lr: float, decay: float) -> list:
    """Lazy Adam with one second moment per row, number by number in double precision."""
    words, means, squares = [list(r) for r in start], [[0.0] * D for _ in start], [0.0] * len(start)
    for step, (rows, grads) in enumerate(rows_and_grads, 1):
        rate = lr * math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        for row, grad in zip(rows, grads, strict=True):
            squares[row] = 0.999 * squares[row] + 0.001 * sum(g * g for g in grad) / D
            for j in range(D):
                means[row][j] = 0.9 * means[row][j] + 0.1 * grad[j]
                words[row][j] -= lr * decay * words[row][j]
                words[row][j] -= rate * means[row][j] / (math.sqrt(squares[row]) + 1e-8)
    return words


def adagrad_by_row(rows_and_grads: list[tuple[list[int], list]], start: list, lr: float, decay: float) -> list:
    """Adagrad with one sum per row, number by number in double precision."""
    words, squares = [list(r) for r in start], [0.0] * len(start)
    for rows, grads in rows_and_grads:
        for row, plain in zip(rows, grads, strict=True):
            grad = [g + decay * w for g, w in zip(plain, words[row], strict=True)]
            squares[row] += sum(g * g for g in grad) / D
            for j in range(D):
                words[row][j] -= lr * grad[j] / (math.sqrt(squares[row]) + 1e-10)
    return words


@pytest.mark.parametrize(("optimizer_class", "oracle"), [(Adam, adam_by_row), (Adagrad, adagrad_by_row)])
@pytest.mark.parametrize(
    ("dtype", "tolerance", "layout"), [(torch.float32, 1e-6, "sparse"), (torch.float64, 1e-12, "dense")]
)
def test_row_wise_equals_a_plain_loop(
    path: str, optimizer_class: Callable, oracle: Callable, dtype: torch.dtype, tolerance: float, layout: str
) -> None:
    words = table(dtype=dtype)
    start = words.double().tolist()
    steps = list(row_gradients(7))
    if layout == "dense":  # a word table's dense gradient touches every row
        steps = [(list(range(V)), sparse(*step).to_dense()) for step in steps]
    group = {"params": [words], "word_table": True}
    optimizer = optimizer_class([group], lr=0.02, embedding_weight_decay=0.3, row_wise=True)
    for rows, values in steps:
        words.grad = values.to(dtype) if layout == "dense" else sparse(rows, values.to(dtype))
        optimizer.step()
    expected = oracle([(r, g.double().tolist()) for r, g in steps], start, 0.02, 0.3)
    torch.testing.assert_close(words.double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=tolerance)


@BOTH
@pytest.mark.parametrize("row_wise", [False, True])
def test_untouched_rows_keep_their_bits_without_decay(path: str, optimizer_class: Callable, row_wise: bool) -> None:
    plain, decayed = table(), table()
    groups = [{"params": [plain], "word_table": True, "weight_decay": 0.0}, {"params": [decayed], "word_table": True}]
    optimizer = optimizer_class(groups, lr=0.1, embedding_weight_decay=0.5, row_wise=row_wise)
    before = plain.detach().clone()
    for _ in range(3):
        for words in (plain, decayed):
            words.grad = sparse([1, 4], torch.ones(2, D))
        optimizer.step()
    untouched = [row for row in range(V) if row not in (1, 4)]
    assert torch.equal(plain[untouched], before[untouched])
    assert torch.equal(decayed[untouched], before[untouched])
    assert (plain[[1, 4]] != before[[1, 4]]).all()
    assert (plain[[1, 4]] != decayed[[1, 4]]).all()


@BOTH
@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.integers(0, V - 1), max_size=20), row_wise=st.booleans(), compiled=st.booleans())
def test_repeated_rows_add_up(optimizer_class: Callable, rows: list[int], row_wise: bool, compiled: bool) -> None:
    """The uncoalesced gradients that autograd accumulates equal coalesced ones, also without any row."""
    values = torch.randn(len(rows), D, generator=torch.Generator().manual_seed(len(rows)))
    results = []
    for coalesce in (False, True):
        words = table()
        optimizer = optimizer_class([words], lr=0.1, row_wise=row_wise)
        optimizer._compiled = compiled
        for _ in range(2):
            grad = sparse(rows, values)
            words.grad = grad.coalesce() if coalesce else grad
            optimizer.step()
        results.append(words.detach())
    assert torch.equal(*results)


def test_sorted_rows_are_known_as_coalesced_without_copying() -> None:
    values = torch.randn(3, D)
    grad = sparse([0, 4, 9], values)
    assert not grad.is_coalesced()
    assert coalesced(grad).is_coalesced()
    assert coalesced(grad).values().data_ptr() == values.data_ptr()
    for rows in ([4, 0, 9], [0, 4, 4]):
        grad = sparse(rows, values)
        assert torch.equal(coalesced(grad).to_dense(), grad.to_dense())
        assert coalesced(grad).indices()[0].tolist() == sorted(set(rows))
    words = table()
    words.grad = torch.ones(V, D).to_sparse()
    with pytest.raises(ValueError, match="first dimension only, not in 2"):
        Adam([words]).step()


@BOTH
@pytest.mark.parametrize("row_wise", [False, True])
def test_a_gradient_that_is_not_a_number_is_not_hidden(path: str, optimizer_class: Callable, row_wise: bool) -> None:
    words, values = table(), torch.ones(2, D)
    values[0, 2] = math.nan
    words.grad = sparse([1, 4], values)
    optimizer_class([words], row_wise=row_wise).step()
    assert words[1, 2].isnan()
    assert words[4].isfinite().all()


@BOTH
def test_tables_of_any_strides(optimizer_class: Callable) -> None:
    size = (V, 2, 3)
    words = table(*size)
    permuted = nn.Parameter(words.detach().transpose(1, 2).contiguous().transpose(1, 2))
    assert not permuted.is_contiguous()
    for parameter in (words, permuted):
        optimizer = optimizer_class([parameter], lr=0.1)
        for rows, values in row_gradients(3, size):
            parameter.grad = sparse(rows, values, size)
            optimizer.step()
    torch.testing.assert_close(words, permuted, rtol=1e-6, atol=1e-6)


def test_sparse_and_dense_gradients_of_one_parameter_share_the_state() -> None:
    """Without row_wise a sparse gradient over all rows steps as the dense one would."""
    results = []
    for kinds in ("dddd", "dsds", "ssss"):
        words = table()
        optimizer = Adam([words], lr=0.02, weight_decay=0.1, row_wise=False)
        for kind, grad in zip(kinds, dense_gradients(), strict=False):
            words.grad = grad if kind == "d" else sparse(list(range(V)), grad)
            optimizer.step()
        results.append(words.detach())
    torch.testing.assert_close(results[1:], [results[0]] * 2, rtol=1e-6, atol=1e-6)


@BOTH
def test_word_tables_have_their_own_rate_and_decay_and_one_moment_per_row(optimizer_class: Callable) -> None:
    module = nn.Module()
    module.words, module.weights, module.matrix = table(), table(V), table()
    for parameter in (module.words, module.weights):
        parameter.is_word_table = True  # type: ignore[attr-defined]
    options = {"lr": 0.01, "embedding_lr_scale": 5, "weight_decay": 0.1, "embedding_weight_decay": 0.2}
    optimizer = copy.deepcopy(optimizer_class(parameter_groups({"query": module}), **options))
    found = {g["name"]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups}
    assert found == {"query/words": (pytest.approx(0.05), 0.2), "query/dense": (0.01, 0.1)}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert [optimizer.state[p][optimizer._moment].shape for p in parameters] == [(V, 1), (V,), (V, D)]


@BOTH
def test_values_out_of_range_name_the_key(optimizer_class: Callable) -> None:
    for option in ("lr", "embedding_lr_scale", "eps", "weight_decay", "embedding_weight_decay"):
        for value in (-0.1, math.nan, math.inf):
            with pytest.raises(ValueError, match=f"^{option}={value} must be"):
                optimizer_class([table()], **{option: value})
    for betas in ((1.0, 0.9), (0.9, -0.1)):
        with pytest.raises(ValueError, match=r"^betas\[[01]\]=.* below 1"):
            Adam([table()], betas=betas)


@BOTH
@pytest.mark.parametrize("row_wise", [False, True])
def test_steps_from_a_saved_state_equal_unbroken_ones(path: str, optimizer_class: Callable, row_wise: bool) -> None:
    def make() -> tuple[nn.ParameterDict, RowOptimizer]:
        made = nn.ParameterDict({"words": table(), "matrix": table(seed=1)})
        groups = [{"params": [made["words"]], "word_table": True}, {"params": [made["matrix"]]}]
        return made, optimizer_class(groups, lr=0.02, embedding_lr_scale=5.0, row_wise=row_wise)

    gradients = list(zip(row_gradients(6), dense_gradients(), strict=True))

    def step(parameters: nn.ParameterDict, optimizer: RowOptimizer, part: slice) -> None:
        for rows_and_values, grad in gradients[part]:
            parameters["words"].grad, parameters["matrix"].grad = sparse(*rows_and_values), grad
            optimizer.step()

    whole, resumed = make(), make()
    step(*whole, slice(0, 3))
    for ours, state in zip(resumed, reloaded([each.state_dict() for each in whole]), strict=True):
        ours.load_state_dict(state)
    for run in (whole, resumed):
        step(*run, slice(3, 6))
    assert all(torch.equal(whole[0][name], resumed[0][name]) for name in whole[0])
