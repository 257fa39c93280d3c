"""Gradient clipping that also knows sparse gradients, on which torch's own fails."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from two_tower.errors import UserError, one_of
from two_tower.optimizer.base import coalesced

__all__ = ["clip_gradients"]


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], max_value: float, algorithm: str = "norm") -> Tensor:
    """Bound the gradients in place; the result is what dense gradients would have given.

    Sparse gradients are replaced by their coalesced form (otherwise a row's parts would count one by one).

    Args:
        parameters: those without a gradient are skipped.
        max_value: the largest total norm, or the largest absolute value of any number.
        algorithm: ``norm`` scales all gradients by one factor, as `torch.nn.utils.clip_grad_norm_`; ``value``
            limits each number, as `torch.nn.utils.clip_grad_value_`.

    Returns:
        () the Euclidean norm of all gradients before clipping; 0 without gradients. If it is not finite,
        ``norm`` leaves the gradients as they are: scaling would turn all of them into NaN or 0 and hide where
        the infinite one came from.

    Raises:
        UserError: ``max_value`` is not positive, or there is no such algorithm.
    """
    if not max_value > 0:
        raise UserError(f"trainer.gradient_clip_val is {max_value}: set a number above 0, or null not to clip.")
    if algorithm not in ("norm", "value"):
        valid = one_of(str(algorithm), ["norm", "value"])
        raise UserError(f"trainer.gradient_clip_algorithm={algorithm!s} does not exist; {valid}.")
    grads = [_numbers(p) for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads)
    if algorithm == "value":
        for grad in grads:
            grad.clamp_(-max_value, max_value)
        return norm
    # 1e-6 as in torch; everything stays on the device, so a GPU is not waited for.
    scale = torch.where(norm.isfinite(), (max_value / (norm + 1e-6)).clamp(max=1.0), 1.0)
    for grad in grads:
        grad.mul_(scale.to(grad.device))
    return norm


def _numbers(parameter: Tensor) -> Tensor:
    """The gradient, or the numbers of a sparse one; changes to them in place are changes to the gradient."""
    if parameter.grad is None or not parameter.grad.is_sparse:
        return parameter.grad  # type: ignore[return-value]
    parameter.grad = coalesced(parameter.grad)
    return parameter.grad.values()
