"""What processes that train together exchange outside of gradients."""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist

from two_tower.ranking import Share

__all__ = ["ProcessShare", "share_of"]


class ProcessShare(Share):
    """A `Share` over the processes of torch.distributed's default group.

    Args:
        device: where the group's backend wants its tensors, e.g. ``cuda:1`` for NCCL.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def maximum(self, values: np.ndarray) -> np.ndarray:
        """See `Share.maximum`."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def total(self, values: np.ndarray) -> np.ndarray:
        """See `Share.total`."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def beside(self, values: np.ndarray) -> np.ndarray:
        """See `Share.beside`."""
        if values.shape[1] == 0:
            return values
        mine = torch.from_numpy(values).to(self._device)
        everyone = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(everyone, mine)
        return torch.cat(everyone, 1).cpu().numpy()

    def _reduced(self, values: np.ndarray, operation: dist.ReduceOp.RedOpType) -> np.ndarray:
        reduced = torch.from_numpy(values.copy()).to(self._device)
        dist.all_reduce(reduced, operation)
        return reduced.cpu().numpy()


def share_of(device: torch.device) -> Share:
    """This process' share: everything, unless torch.distributed runs."""
    together = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return ProcessShare(device) if together else Share()
