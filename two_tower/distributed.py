"""Communication between processes that train together, except for gradients (see `two_tower.trainer`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from two_tower.errors import UserError
from two_tower.ranking import Share


def processes() -> int:
    """How many processes train together; 1 unless torch.distributed runs."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class ProcessShare(Share):
    """A `Share` over torch.distributed's default group; its backend wants tensors on ``device`` (NCCL: ``cuda:N``)."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def all_reduce(self, values: np.ndarray, operation: Literal["max", "sum"]) -> np.ndarray:
        reduced = torch.from_numpy(values.copy()).to(self._device)
        dist.all_reduce(reduced, dist.ReduceOp.MAX if operation == "max" else dist.ReduceOp.SUM)
        return reduced.cpu().numpy()

    def all_gather(self, values: np.ndarray) -> np.ndarray:
        if values.shape[1] == 0:
            return values
        return torch.cat([*all_gather(torch.from_numpy(values).to(self._device))], 1).cpu().numpy()


def share_of(device: torch.device) -> Share:
    """This process' share: everything, unless torch.distributed runs."""
    return ProcessShare(device) if processes() > 1 else Share()


def gather(parts: Sequence[Tensor]) -> list[Tensor]:
    """All-gather with gradients, for processes that then all compute the *same* loss.

    The gradients of each process's own tensors are multiplied by W, the number of processes, as those of the weights
    are averaged afterwards: the result is that of one process with the whole batch. Weights that are used later, like
    a learned temperature, need no factor. Each part has one shape and type in all processes; it becomes (W, …).
    """
    own = torch.tensor([size for part in parts for size in part.shape], device=parts[0].device)
    everyone = all_gather(own)
    differing = (everyone != own).any(0)
    if bool(differing.any()):
        sizes = " and ".join(str(size) for size in everyone[:, differing][:, 0].tolist())
        remedy = "data.batch_size and the number of negatives must be the same in each, or set cross_device=false"
        what = f"The processes have batches of unequal shapes ({sizes} vectors)"
        raise UserError(f"{what}: {remedy} cross_batch_memory=0.")
    return [_Gather.apply(part) for part in parts]


def all_gather(own: Tensor) -> Tensor:
    """(W, …): the tensors of all processes, which have one shape and type, without gradients."""
    everyone = own.new_empty((processes(), *own.shape))
    dist.all_gather(list(everyone), own.contiguous())
    return everyone


class _Gather(torch.autograd.Function):
    # The library's own sums the gradients over the processes: one more message for the same numbers.
    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:  # noqa: ANN401
        return all_gather(own)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ANN401
        return grad[dist.get_rank()] * dist.get_world_size()
