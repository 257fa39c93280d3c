"""Communication between processes that train together, except for gradients (see `two_tower.trainer`)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
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


@contextmanager
def naming_lost() -> Iterator[None]:
    """Say in one sentence that another process does not answer any more; torch tells where in its own code."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        remark = "Another process of the run has ended, or cannot be reached; what it wrote says why"
        raise UserError(f"{remark}, and the same command continues.") from error


def new_store(rank: int, timeout: timedelta) -> dist.Store:
    """Where the processes that torchrun has started now find each other: at a store of the first of them.

    The agent's own, which torch would use, still holds the addresses of processes that ended before a restart
    (torch 2.13). There the first says where its store is; until it has, others may find one that is gone.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    agent, key = dist.TCPStore(host, port, is_master=False, timeout=timeout), "two_tower/store"
    if rank == 0:
        store = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=timeout)
        agent.set(key, str(store.port))
        return store
    end = time.monotonic() + timeout.total_seconds()
    while not _listens(host, port := int(agent.get(key))) and time.monotonic() < end:
        time.sleep(0.2)
    return dist.TCPStore(host, port, is_master=False, timeout=timeout)


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


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


def gather(parts: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """All-gather with gradients, for processes that then all compute the *same* loss.

    The gradients of each process's own tensors are multiplied by W, the number of processes, as those of the weights
    are averaged afterwards: the result is that of one process with the whole batch. Weights that are used later, like
    a learned temperature, need no factor. Each part may have more or fewer rows in each process; it becomes theirs in
    turn.
    """
    counts = all_gather(torch.tensor([len(part) for part in parts], device=parts[0].device)).T.tolist()
    return [_Gather.apply(part, its) for part, its in zip(parts, counts, strict=True)]


def all_gather(own: Tensor) -> Tensor:
    """(W, …): the tensors of all processes, which have one shape and type, without gradients."""
    everyone = own.new_empty((processes(), *own.shape))
    dist.all_gather(list(everyone), own.contiguous())
    return everyone


def gather_rows(own: Tensor, counts: Sequence[int]) -> tuple[Tensor, ...]:
    """The tensors of all processes, with ``counts[rank]`` rows: sent as long as the longest, as gloo and NCCL need."""
    padded = own.new_zeros((max(counts), *own.shape[1:]))
    padded[: len(own)] = own
    return tuple(part[:count] for part, count in zip(all_gather(padded), counts, strict=True))


class _Gather(torch.autograd.Function):
    # The library's own sums the gradients over the processes: one more message for the same numbers.
    @staticmethod
    def forward(ctx: Any, own: Tensor, counts: Sequence[int]) -> tuple[Tensor, ...]:  # noqa: ANN401
        return gather_rows(own, counts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        return grads[dist.get_rank()] * dist.get_world_size(), None
