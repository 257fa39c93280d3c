"""Matrix products of which each row is the same, bit for bit, whichever rows are beside it.

A library's product sums the last few of its rows in another order where there are hardly any (MKL: those that are left
of fours, below twelve). A passage's vector would then depend on what it is encoded with, and a collection of which
little has changed could not be told from one that was encoded anew. So few rows become more.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW = 16  # rows


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``, as `torch.nn.functional.linear` for rows ``x`` (R, I)."""
    rows = len(x)
    return F.linear(x, weight, bias) if rows >= FEW else F.linear(_padded(x), weight, bias)[:rows]


def multiply(x: Tensor, weight: Tensor, out: Tensor) -> None:
    """``out = x @ weight``, rounded on the way to the weight's type if that is another."""
    if len(x) >= FEW and weight.dtype == x.dtype:
        torch.mm(x, weight, out=out)
    else:
        product = (x if len(x) >= FEW else _padded(x)).to(weight.dtype) @ weight
        out.copy_(product[: len(x)])


def _padded(x: Tensor) -> Tensor:
    return F.pad(x, (0, 0, 0, FEW - len(x)))


class Projection(nn.Linear):
    """A linear map without a bias."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__(width, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight)
