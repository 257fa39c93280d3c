"""Adam with decoupled weight decay (AdamW), lazy on the rows of word tables."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.optim.adamw import adamw

from two_tower.optimizer.base import RowOptimizer, by_row, check_range, fusible, new_moment


class Adam(RowOptimizer):
    """AdamW for dense gradients, lazy Adam on the touched rows for sparse ones.

    Dense parameters step as in `torch.optim.AdamW`. Of a parameter with a sparse gradient only the rows in it step,
    decay and change their moments, exactly as in `torch.optim.SparseAdam` where ``row_wise`` is false. Bias correction
    counts the parameter's steps, as there, not each row's: a row that is first touched late then starts with an update
    of up to (1 - beta1) / sqrt(1 - beta2) = 3.2 rates instead of 1. That favours rare words, which get few updates, and
    needs no counter per row. With ``row_wise`` the one second moment of a row is the mean over its dimensions.
    """

    _moment = "exp_avg_sq"

    def __init__(
        self, params: Iterable[Any], lr: float, embedding_lr_scale: float, betas: tuple[float, float], eps: float,
        weight_decay: float, embedding_weight_decay: float, row_wise: bool,
    ) -> None:  # fmt: skip
        for i, beta in enumerate(betas):
            check_range(f"betas[{i}]", beta, below=1)
        super().__init__(
            params, lr=lr, embedding_lr_scale=embedding_lr_scale, betas=tuple(betas), eps=eps,
            weight_decay=weight_decay, embedding_weight_decay=embedding_weight_decay, row_wise=row_wise,
        )  # fmt: skip

    def _new_state(self, param: Tensor, group: dict[str, Any], row_wise: bool) -> dict[str, Tensor]:
        step, means = torch.zeros((), dtype=torch.float32), torch.zeros_like(param)
        return {"step": step, "exp_avg": means, "exp_avg_sq": new_moment(param, row_wise)}

    def _step_dense(self, params: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[p] for p in params]
        beta1, beta2 = group["betas"]
        adamw(
            params, [p.grad for p in params if p.grad is not None],
            [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states], [], [s["step"] for s in states],
            beta1=beta1, beta2=beta2, lr=group["lr"], weight_decay=group["weight_decay"], eps=group["eps"],
            fused=True if fusible(params) else None, amsgrad=False, maximize=False,
        )  # fmt: skip

    def _step_rows(self, param: Tensor, rows: Tensor, values: Tensor, group: dict[str, Any]) -> None:
        state = self.state[param]
        step = state["step"].item()
        beta1, beta2 = group["betas"]
        rate = group["lr"] * math.sqrt(1 - beta2**step) / (1 - beta1**step)
        keep = 1 - group["lr"] * group["weight_decay"]
        tables = (param, state["exp_avg"], state["exp_avg_sq"])
        self._run(_rows, _rows_torch, rows, values, tables, (1 - beta1, 1 - beta2, rate, group["eps"], keep))


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _rows(rows: np.ndarray, grads: np.ndarray, tables: tuple, scalars: tuple) -> None:
    """Step the rows; ``squares`` is (V, D), or (V, 1) for one second moment per row."""
    table, means, squares = tables
    new1, new2, rate, eps, keep = scalars
    dim = table.shape[1]
    for r in range(len(rows)):
        i = rows[r]
        grad, row, mean, square = grads[r], table[i], means[i], squares[i]
        if len(square) == dim:
            for j in range(dim):
                mean[j] += (grad[j] - mean[j]) * new1
                square[j] += (grad[j] * grad[j] - square[j]) * new2
                row[j] = row[j] * keep - rate * mean[j] / (np.sqrt(square[j]) + eps)
        else:
            total = grad[0] * grad[0]
            for j in range(1, dim):
                total += grad[j] * grad[j]
            square[0] += (total / grad.dtype.type(dim) - square[0]) * new2
            row_rate = rate / (np.sqrt(square[0]) + eps)
            for j in range(dim):
                mean[j] += (grad[j] - mean[j]) * new1
                row[j] = row[j] * keep - row_rate * mean[j]


def _rows_torch(rows: Tensor, grads: Tensor, tables: tuple[Tensor, Tensor, Tensor], scalars: tuple[float, ...]) -> None:
    table, means, squares = tables
    new1, new2, rate, eps, keep = scalars
    mean = means[rows].lerp_(grads, new1)
    square = squares[rows].lerp_(by_row(grads.square(), squares), new2)
    means.index_copy_(0, rows, mean)
    squares.index_copy_(0, rows, square)
    step = mean.div_(square.sqrt_().add_(eps))
    table.index_copy_(0, rows, table[rows].mul_(keep).sub_(step, alpha=rate))
