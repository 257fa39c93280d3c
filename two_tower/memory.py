"""Documents of earlier batches as further negatives: no encoding, no gradients."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from two_tower.errors import UserError

__all__ = ["Memory"]


class Memory(nn.Module):
    """The vectors of the last documents that a model was trained on, as they were then.

    They are worth something as far as the model changes slowly (Wang et al. 2020, arXiv:1912.06798, "cross-batch
    memory"). They are buffers, so a checkpoint holds them and a continued run has the same.

    Args:
        size: M, documents that are remembered.
        dim: D, dimensions of a vector.

    Attributes:
        vectors: (M, D) float32, the newest last.
        rows: (M,) int64, rows of the documents; -1 where nothing has been remembered yet, which are the first ones.

    Raises:
        UserError: a size below 1.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1:
            raise UserError(f"memory={size} must be at least 1, or 0 for none.")
        self.vectors: Tensor
        self.rows: Tensor
        self.register_buffer("vectors", torch.zeros(size, dim))
        self.register_buffer("rows", torch.full((size,), -1))

    def held(self) -> tuple[Tensor, np.ndarray]:
        """Vectors (m, D) and rows (m,) of the m ≤ M documents that are remembered, the newest last."""
        rows = self.rows.cpu().numpy()
        empty = np.count_nonzero(rows < 0)
        return self.vectors[empty:], rows[empty:]

    @torch.no_grad()
    def remember(self, vectors: Tensor, rows: Tensor) -> None:
        """Add documents, and forget the oldest ones for them.

        Args:
            vectors: (N, D) float.
            rows: (N,) int64.
        """
        # Not in place: the backward pass still needs what `held` gave. To copy 4,096 vectors takes 0.3 ms.
        self.vectors = _shifted(self.vectors, vectors.to(self.vectors.dtype))
        self.rows = _shifted(self.rows, rows)


def _shifted(old: Tensor, new: Tensor) -> Tensor:
    """``old`` without its first numbers and with the last of ``new`` behind, of the same size."""
    size = len(old)
    return torch.cat([old[len(new) :], new[-size:]])
