"""Data parallel training: gradients averaged over the processes, those of word tables by row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.optim import Optimizer

from two_tower.distributed import all_gather
from two_tower.optimizer.base import coalesced


class RowDDP(DDPStrategy):
    """Distributed data parallel for models with sparse gradients.

    torch's wrapper copies gradients into dense buckets and fails on the sparse ones of a word table. So the model
    stays unwrapped, and its gradients are averaged after a step's last backward pass, before they are clipped.
    Unlike the wrapper, this does not overlap communication with the backward pass; there are few dense parameters.
    """

    def configure_ddp(self) -> None:
        model = self.lightning_module  # every process starts with the weights of the first
        for tensor in (*model.parameters(), *model.buffers()) if model else ():
            dist.broadcast(tensor.detach(), src=0)

    def optimizer_step(
        self,
        optimizer: Optimizer,
        closure: Callable[[], Any],
        model: Any = None,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        def averaged() -> Any:  # noqa: ANN401
            result = closure()
            average_gradients(p for group in optimizer.param_groups for p in group["params"])
            return result

        return super().optimizer_step(optimizer, averaged, model, **kwargs)


@torch.no_grad()
def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace every gradient by its mean over the processes; a row that a process lacks counts as zeros.

    All processes get the same bits, so their weights stay equal. The parameters must come in the same order in every
    process, and each with a gradient in all of them or in none.
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
    flat = torch.cat([grad.flatten() for grad in dense])  # one message for all
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for grad, mean in zip(dense, flat.split([grad.numel() for grad in dense]), strict=True):
        grad.copy_(mean.view_as(grad))


def _mean_of_rows(grad: Tensor) -> Tensor:
    rows, values = grad.indices()[0], grad.values()
    counts = [int(count) for count in all_gather(torch.tensor([len(rows)], device=rows.device))]
    all_rows, all_values = _all_rows(rows, counts), _all_rows(values, counts)
    mean = torch.sparse_coo_tensor(all_rows.unsqueeze(0), all_values, grad.shape, check_invariants=False).coalesce()
    mean.values().div_(len(counts))
    return mean


def _all_rows(own: Tensor, counts: list[int]) -> Tensor:
    """All-gather of tensors with ``counts[rank]`` rows: padded to the same length, because gloo and NCCL need that."""
    padded = own.new_zeros((max(counts), *own.shape[1:]))
    padded[: len(own)] = own
    return torch.cat([part[:count] for part, count in zip(all_gather(padded), counts, strict=True)])
