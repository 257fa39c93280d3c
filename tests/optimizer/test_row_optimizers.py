"""Adam and Adagrad against torch's optimizers, plain loops in double precision, and their own promises."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor, nn

from two_tower.optimizer import adagrad, adam
from two_tower.optimizer.base import RowOptimizer, coalesced, parameter_groups

V, D = 12, 5
CONF = Path(__file__).parents[2] / "conf" / "optimizer"
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
    """Ours and torch's, each with a parameter of its own."""
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


@pytest.mark.parametrize("size", [(V, D), (V,), (V, 2, 3)])
@pytest.mark.parametrize(("name", "scale"), [("adam", 1.0), ("adam", 1e-6), ("adagrad", 1.0)])
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
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("layout", ["sparse", "dense"])
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
def test_untouched_rows_keep_their_bits_and_decay_is_for_touched_rows(
    path: str, optimizer_class: Callable, row_wise: bool
) -> None:
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
def test_repeated_rows_count_as_their_sum(
    optimizer_class: Callable, rows: list[int], row_wise: bool, compiled: bool
) -> None:
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
    optimizer.add_param_group({"params": [table()], "word_table": True})
    assert optimizer.param_groups[-1]["lr"] == pytest.approx(0.05)
    optimizer.add_param_group({"params": [table()], "word_table": True, "lr": 0.3})
    assert (optimizer.param_groups[-1]["lr"], optimizer.param_groups[-1]["weight_decay"]) == (0.3, 0.2)


@BOTH
def test_values_out_of_range_name_the_key(optimizer_class: Callable) -> None:
    for option in ("lr", "embedding_lr_scale", "eps", "weight_decay", "embedding_weight_decay"):
        for value in (-0.1, math.nan, math.inf):
            with pytest.raises(ValueError, match=f"^{option}={value} must be"):
                optimizer_class([table()], **{option: value})
    for betas in ((1.0, 0.9), (0.9, -0.1)):
        with pytest.raises(ValueError, match=r"^betas\[[01]\]=.* below 1"):
            Adam([table()], betas=betas)


def saved_and_loaded(state: Any) -> Any:  # noqa: ANN401
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@BOTH
@pytest.mark.parametrize("row_wise", [False, True])
def test_steps_from_a_saved_state_equal_uninterrupted_ones_bit_for_bit(
    path: str, optimizer_class: Callable, row_wise: bool
) -> None:
    def make() -> tuple[list[nn.Parameter], RowOptimizer]:
        words, matrix = table(), table(seed=1)
        groups = [{"params": [words], "word_table": True}, {"params": [matrix]}]
        return [words, matrix], optimizer_class(groups, lr=0.02, embedding_lr_scale=5.0, row_wise=row_wise)

    def step(parameters: list[nn.Parameter], optimizer: RowOptimizer, first: int, last: int) -> None:
        for rows_and_values, grad in list(zip(row_gradients(6), dense_gradients(), strict=True))[first:last]:
            parameters[0].grad, parameters[1].grad = sparse(*rows_and_values), grad
            optimizer.step()

    whole, resumed = make(), make()
    step(*whole, 0, 3)
    parameters, state = saved_and_loaded([[p.detach() for p in whole[0]], whole[1].state_dict()])
    resumed[1].load_state_dict(state)
    for ours, saved in zip(resumed[0], parameters, strict=True):
        ours.detach().copy_(saved)
    for run in (whole, resumed):
        step(*run, 3, 6)
    assert all(torch.equal(*pair) for pair in zip(whole[0], resumed[0], strict=True))


@pytest.mark.parametrize("name", ["adam", "adagrad"])
def test_config_builds_the_optimizer(name: str) -> None:
    config = OmegaConf.load(CONF / f"{name}.yaml")
    optimizer = instantiate(config)([{"params": [words := table()], "word_table": True}, {"params": [table()]}])
    lr = optimizer.param_groups[0]["lr"]
    assert lr == pytest.approx(config.lr * config.embedding_lr_scale)
    start = words.detach().clone()

    def closure() -> Tensor:  # runs with gradients
        words.grad = None
        (loss := (words * 1000).sum()).backward()
        return loss

    assert optimizer.step(closure).item() == pytest.approx(1000 * start.sum().item(), rel=1e-5)
    torch.testing.assert_close(start - words, torch.full((V, D), lr), rtol=1e-4, atol=0)  # a first step is the rate
    saved_and_loaded(optimizer.state_dict())  # no OmegaConf object may hide in the state
