"""What the optimizers share: dense gradients step as in torch, sparse ones step only the rows they hold.

The library's pieces do not combine (AdamW refuses sparse gradients, SparseAdam refuses dense ones), and two
optimizers would switch off Lightning's automatic optimization; hence one optimizer that does both.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from two_tower.errors import UserError

__all__ = ["RowOptimizer", "by_row", "check_range", "coalesced", "fusible", "new_moment"]


class RowOptimizer(torch.optim.Optimizer):
    """Steps dense parameters and the touched rows of word tables; a subclass says how.

    Args:
        params: parameters, or groups as from `parameter_groups`. In a group with ``word_table`` true ``lr``
            is multiplied by ``embedding_lr_scale`` and ``weight_decay`` is ``embedding_weight_decay``, unless
            the group has its own; schedulers multiply the rates of all groups alike.
        defaults: hyper-parameters of a group; needs ``lr``, ``weight_decay``, ``row_wise`` and the two above.
    """

    # The second moment's key in a parameter's state.
    _moment: ClassVar[str]
    # Tests switch it off to run on the CPU what other devices run.
    _compiled: ClassVar[bool] = True

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        for name in ("lr", "embedding_lr_scale", "weight_decay", "embedding_weight_decay"):
            check_range(name, defaults[name])
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters; see the class for what ``word_table`` changes."""
        if param_group.setdefault("word_table", False):
            param_group.setdefault("lr", self.defaults["lr"] * self.defaults["embedding_lr_scale"])
            param_group.setdefault("weight_decay", self.defaults["embedding_weight_decay"])
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401
        """Step every parameter that has a gradient; returns what ``closure`` (called first) returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            dense = []
            for param in group["params"]:
                if param.grad is None:
                    continue
                if not self.state[param]:
                    row_wise = group["row_wise"] and (group["word_table"] or param.grad.is_sparse)
                    self.state[param].update(self._new_state(param, group, row_wise))
                if param.grad.is_sparse:
                    grad = coalesced(param.grad)
                    self._step_rows(param, grad.indices()[0], grad.values(), group)
                elif self.state[param][self._moment].shape != param.shape:  # row-wise: every row is touched
                    self._step_rows(param, torch.arange(len(param), device=param.device), param.grad, group)
                else:
                    dense.append(param)
            if dense:
                self._step_dense(dense, group)
        return loss

    @abstractmethod
    def _new_state(self, param: Tensor, group: dict[str, Any], row_wise: bool) -> dict[str, Tensor]:
        """The state before the first step; ``row_wise``: one second moment per row (see `new_moment`)."""

    @abstractmethod
    def _step_dense(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """Step parameters with dense gradients, all of one group."""

    @abstractmethod
    def _step_rows(self, param: Tensor, rows: Tensor, values: Tensor, group: dict[str, Any]) -> None:
        """Step the rows ``rows`` (R,) int64, distinct, by the gradients ``values`` (R, …)."""

    def _run(
        self,
        kernel: Callable[..., None],
        plain: Callable[..., None],
        rows: Tensor,
        values: Tensor,
        tables: tuple[Tensor, ...],
        scalars: tuple[float, ...],
    ) -> None:
        """Call ``kernel`` on NumPy arrays where it can take them, otherwise ``plain`` on the tensors.

        Both get ``(rows, values, *tables, *scalars)``; for the kernel every table is (V, D) or (V, 1) and the
        numbers have its precision. It runs on one thread: the work is bound by memory (40,000 rows of 256 in
        a table of 400,000: 18 ms for Adam, row-wise 13), and a second thread gained nothing on an idle
        machine and lost a factor of 2 on a busy one.
        """
        if not (self._compiled and _as_arrays(values, *tables)):
            plain(rows, values, *tables, *scalars)
            return
        arrays = [t.detach().unsqueeze(-1).flatten(1).numpy() for t in (values, *tables)]
        kernel(rows.numpy(), *arrays, *map(arrays[0].dtype.type, scalars))


def _as_arrays(*tensors: Tensor) -> bool:
    """Whether a compiled kernel can take these tensors, and change them in place."""
    return (
        tensors[0].dtype in (torch.float32, torch.float64)
        and all(t.dtype == tensors[0].dtype for t in tensors)
        and all(t.device.type == "cpu" and t.is_contiguous() for t in tensors)
    )


def check_range(name: str, value: float, below: float = math.inf) -> None:
    """Raise a UserError unless ``0 <= value < below``."""
    if not 0 <= value < below:
        limit = "" if below == math.inf else f" and below {below:g}"
        raise UserError(f"optimizer.{name} is {value}: set it to a number of at least 0{limit}.")


def coalesced(grad: Tensor) -> Tensor:
    """A sparse gradient with each row once, itself if it is so already.

    Autograd drops the mark "coalesced" whenever it stores or sums gradients, although rows that came
    sorted are still sorted and distinct. Looking takes 0.3 ms for 40,000 rows of 256, coalescing 30–140.

    Raises:
        ValueError: the gradient is sparse in more than its first dimension.
    """
    if grad.sparse_dim() != 1:
        raise ValueError(f"sparse gradients must be sparse in the first dimension only, not in {grad.sparse_dim()}")
    if grad.is_coalesced():
        return grad
    if bool((grad._indices()[0].diff() > 0).all()):
        return grad._coalesced_(True)
    return grad.coalesce()


def fusible(params: Sequence[Tensor]) -> bool:
    """Whether torch's fused CPU kernels can step these: a tenth of the time for 30,000 x 256.

    They read gradients as if these had the parameter's strides, without a check, hence the conditions.
    """
    return all(
        p.device.type == "cpu" and p.grad is not None and p.is_contiguous() and p.grad.is_contiguous() for p in params
    )


def new_moment(param: Tensor, row_wise: bool, value: float = 0.0) -> Tensor:
    """A second moment of ``param``, all ``value``: of its shape, or (V, 1, …) if ``row_wise``."""
    if row_wise:
        return param.new_full((len(param),) + (1,) * (param.dim() - 1), value)
    # Zeros come from the system untouched, so a table's memory is only taken as its rows are used.
    return torch.zeros_like(param) if value == 0 else torch.full_like(param, value)


def by_row(squares: Tensor, moment: Tensor) -> Tensor:
    """``squares`` (R, …) as ``moment`` counts them: averaged per row if it has one number per row."""
    if moment.shape[1:] == squares.shape[1:]:
        return squares
    return squares.mean(dim=tuple(range(1, squares.dim())), keepdim=True)
