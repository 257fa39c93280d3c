"""Adagrad, on the touched rows of word tables and on dense parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.optim.adagrad import adagrad

from two_tower.optimizer.base import RowOptimizer, by_row, check_range, fusible, new_moment

__all__ = ["Adagrad"]


class Adagrad(RowOptimizer):
    """Adagrad for dense and sparse gradients; equal to `torch.optim.Adagrad` with ``row_wise`` false.

    It has no running mean of the gradient, so that with ``row_wise`` a word table's whole state is one
    number per row: the choice where a table barely fits into memory. Its rates only ever fall.

    Args:
        params: parameters, or groups as from `two_tower.optimizer._groups.parameter_groups`.
        lr: learning rate.
        embedding_lr_scale: multiplies ``lr`` for word tables.
        eps: keeps the division finite.
        initial_accumulator: where the sums of squares start; above 0 it damps the first steps.
        weight_decay: times the parameter, added to the gradient.
        embedding_weight_decay: the same for word tables, touched rows only.
        row_wise: one sum per row of a word table, of the mean square over its dimensions, instead of one per
            number. A word table is a parameter of a group marked ``word_table``, or one whose first gradient
            is sparse.

    Raises:
        UserError: a number is out of range.
    """

    _moment = "sum"

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        embedding_lr_scale: float = 1.0,
        eps: float = 1e-10,
        initial_accumulator: float = 0.0,
        weight_decay: float = 0.0,
        embedding_weight_decay: float = 0.0,
        row_wise: bool = True,
    ) -> None:
        check_range("eps", eps)
        check_range("initial_accumulator", initial_accumulator)
        defaults = {
            "lr": lr,
            "embedding_lr_scale": embedding_lr_scale,
            "eps": eps,
            "initial_accumulator": initial_accumulator,
            "weight_decay": weight_decay,
            "embedding_weight_decay": embedding_weight_decay,
            "row_wise": row_wise,
        }
        super().__init__(params, defaults)

    def _new_state(self, param: Tensor, group: dict[str, Any], row_wise: bool) -> dict[str, Tensor]:
        return {
            "step": torch.zeros((), dtype=torch.float32),
            "sum": new_moment(param, row_wise, group["initial_accumulator"]),
        }

    def _step_dense(self, params: list[Tensor], group: dict[str, Any]) -> None:
        adagrad(
            params,
            [p.grad for p in params if p.grad is not None],
            [self.state[p]["sum"] for p in params],
            [self.state[p]["step"] for p in params],
            fused=True if fusible(params) else None,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            lr_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )

    def _step_rows(self, param: Tensor, rows: Tensor, values: Tensor, group: dict[str, Any]) -> None:
        state = self.state[param]
        state["step"] += 1
        tables = (param, state["sum"])
        scalars = (group["lr"], group["eps"], group["weight_decay"])
        self._run(_adagrad_rows, _adagrad_rows_torch, rows, values, tables, scalars)


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _adagrad_rows(
    rows: np.ndarray,
    grads: np.ndarray,
    table: np.ndarray,
    sums: np.ndarray,
    lr: float,
    eps: float,
    decay: float,
) -> None:
    """Step the rows; ``sums`` is (V, D), or (V, 1) for one sum per row."""
    dim = table.shape[1]
    for r in range(len(rows)):
        i = rows[r]
        grad, row, square = grads[r], table[i], sums[i]
        if len(square) == dim:
            for j in range(dim):
                g = grad[j] + decay * row[j]
                square[j] += g * g
                row[j] -= lr * g / (np.sqrt(square[j]) + eps)
        else:
            total = grad.dtype.type(0)
            for j in range(dim):
                g = grad[j] + decay * row[j]
                total += g * g
            square[0] += total / grad.dtype.type(dim)
            rate = lr / (np.sqrt(square[0]) + eps)
            for j in range(dim):
                row[j] -= rate * (grad[j] + decay * row[j])


def _adagrad_rows_torch(
    rows: Tensor, grads: Tensor, table: Tensor, sums: Tensor, lr: float, eps: float, decay: float
) -> None:
    """`_adagrad_rows` for any device."""
    row = table[rows]
    grads = grads.add(row, alpha=decay)
    square = sums[rows].add_(by_row(grads.square(), sums))
    sums.index_copy_(0, rows, square)
    table.index_copy_(0, rows, row.sub_(grads.div_(square.sqrt_().add_(eps)), alpha=lr))
