"""Matryoshka: vectors whose first numbers are good vectors by themselves."""

from __future__ import annotations

import torch

from two_tower.loss.base import Loss, LossInput, LossOutput

HALVINGS = 3  # the default lengths: the whole vector, a half, a quarter and an eighth


class MatryoshkaLoss(Loss):
    """The mean of one loss over whole and shortened vectors.

    For cosine the shortened vectors get length 1 again. Dot products and distances of fewer numbers are smaller, so
    a margin or temperature weighs less. All lengths share a learned temperature.

    Kusupati et al. 2022, arXiv:2205.13147, take the sum, which differs by a constant factor. Costs: docs/losses.md.
    """

    def __init__(self, loss: Loss, dim: int, dims: list[int] | None = None) -> None:
        super().__init__()
        shorter = [dim >> n for n in range(1, HALVINGS + 1) if dim >> n] if dims is None else dims
        if not all(1 <= d <= dim for d in shorter):
            raise ValueError(f"dims={shorter} must be from 1 to {dim}, the length of a whole vector")
        self.loss = loss
        self.needs, self.in_batch_negatives = loss.needs, loss.in_batch_negatives
        self.dims: list[int] = sorted({dim, *shorter}, reverse=True)

    def forward(self, batch: LossInput) -> LossOutput:
        outputs: list[LossOutput] = [self.loss(batch.leading(dim)) for dim in self.dims]
        found = dict(outputs[0].diagnostics)
        for dim, output in zip(self.dims, outputs, strict=True):
            found[f"dim_{dim}/loss"] = output.loss.detach()
            found[f"dim_{dim}/accuracy"] = output.diagnostics["accuracy"]
        return LossOutput(torch.stack([output.loss for output in outputs]).mean(), found)
