"""Several processes, each with its part of every batch: gradients are averaged, those of word tables by row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.optim import Optimizer

from two_tower.optimizer.base import coalesced

__all__ = ["RowDDP", "average_gradients"]


class RowDDP(DDPStrategy):
    """Distributed data parallel for models with sparse gradients.

    torch's wrapper copies gradients into dense buckets and fails on the sparse ones of a word table. So the
    model stays unwrapped, and its gradients are averaged after a step's last backward pass, before clipping
    sees them. They do not travel while the backward pass goes on, as they would with the wrapper; there are
    few dense parameters here.
    """

    def configure_ddp(self) -> None:
        """Let every process start from the weights of the first."""
        model = self.lightning_module
        for tensor in (*model.parameters(), *model.buffers()) if model else ():
            dist.broadcast(tensor.detach(), src=0)

    def optimizer_step(
        self,
        optimizer: Optimizer,
        closure: Callable[[], Any],
        model: Any = None,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Step by the average of the gradients that ``closure`` leaves in each process."""

        def averaged() -> Any:  # noqa: ANN401
            result = closure()
            average_gradients(p for group in optimizer.param_groups for p in group["params"])
            return result

        return super().optimizer_step(optimizer, averaged, model, **kwargs)


@torch.no_grad()
def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace every gradient by its mean over the processes; a row that a process lacks counts as zeros.

    All processes get the same bits, so their weights stay equal.

    Args:
        parameters: in the same order in every process, and with gradients in all of them or in none.
    """
    dense = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            parameter.grad = _mean_of_rows(coalesced(parameter.grad))
        else:
            dense.append(parameter.grad)
    if not dense:
        return
    together = torch.cat([grad.flatten() for grad in dense])  # one message instead of one each
    dist.all_reduce(together)
    together /= dist.get_world_size()
    for grad, mean in zip(dense, together.split([grad.numel() for grad in dense]), strict=True):
        grad.copy_(mean.view_as(grad))


def _mean_of_rows(grad: Tensor) -> Tensor:
    """The mean of a coalesced sparse gradient over the processes, coalesced."""
    rows, values = grad.indices()[0], grad.values()
    counts = [int(count) for count in _gathered(torch.tensor([len(rows)], device=rows.device))]
    all_rows, all_values = (
        torch.cat([part[:count] for part, count in zip(_gathered(_padded(t, max(counts))), counts, strict=True)])
        for t in (rows, values)
    )
    mean = torch.sparse_coo_tensor(all_rows.unsqueeze(0), all_values, grad.shape, check_invariants=False).coalesce()
    mean.values().div_(len(counts))
    return mean


def _padded(tensor: Tensor, length: int) -> Tensor:
    """Zeros behind the rows, so that all processes send equally many."""
    padded = tensor.new_zeros((length, *tensor.shape[1:]))
    padded[: len(tensor)] = tensor
    return padded


def _gathered(tensor: Tensor) -> list[Tensor]:
    """The tensor of every process, in the order of their ranks."""
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor)
    return parts
