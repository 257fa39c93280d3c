"""A recurrent layer over texts without padding, on the CPU: forward, and backward through time.

Three things make it fast. The products of the cell with its input are made outside, once for each distinct word.
Texts of similar length run together, at every step those that have not ended, so each step is one matrix product and
one compiled loop (`_cells`). And each thread takes blocks of texts of its own, so that none waits for another.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from two_tower.ragged import Ragged
from two_tower.threads import each
from two_tower.tower._cells import Array, Cell, Grads, Inputs, Step
from two_tower.tower._lookup import sum_by_row
from two_tower.tower._products import multiply

# Texts that run together: few enough that a step's numbers stay in a core's cache, enough for matrix products.
BLOCK = 256


@dataclass(frozen=True)
class Block:
    """Some texts, the longest first."""

    at: Array  # (b,) int64, the token that each text begins with
    stride: int  # 1, or -1 to read each text from its own last token to its first
    running: list[int]  # for each step how many texts have not ended; never increasing
    begins: list[int]  # where each step's texts begin if all steps stand one after another


def _blocks(offsets: Array, reverse: bool) -> list[Block]:
    """The texts that have tokens, longest first, in blocks; ``offsets`` (B + 1,) as in `Ragged`."""
    lengths = np.diff(offsets)
    order = np.argsort(-lengths, kind="stable")[: np.count_nonzero(lengths)]
    at = (offsets[1:] - 1 if reverse else offsets[:-1])[order]
    blocks = []
    for first in range(0, len(order), BLOCK):
        sizes = lengths[order[first : first + BLOCK]]
        running = np.searchsorted(-sizes, -np.arange(sizes[0])).tolist()
        begins = [0, *accumulate(running)]
        blocks.append(Block(at[first : first + BLOCK], -1 if reverse else 1, running, begins))
    return blocks


class _Trace:
    """The numbers of a block's steps, one step after another; or each in place of the last, if they are not kept.

    gates (S, G), states (S, M) after each step and memory (S, M), see `Cell`, with S rows for all steps' texts.
    """

    def __init__(self, block: Block, cell: Cell, width: int, keep: bool) -> None:
        size = block.begins[-1] if keep else len(block.at)
        self.gates, self.states, self.memory = (torch.empty(size, n * width) for n in (cell.gates, 1, 1))
        begins = block.begins if keep else [0] * len(block.begins)
        self._steps = [slice(begin, begin + n) for begin, n in zip(begins, block.running, strict=False)]
        self._arrays = self.gates.numpy(), self.states.numpy(), self.memory.numpy()
        self._start = np.zeros((len(block.at), width), np.float32)

    def __getitem__(self, step: int) -> slice:
        """The rows of a step."""
        return self._steps[step]

    def arrays(self, step: int) -> Step:
        (gates, states, memory), now = self._arrays, self._steps[step]
        if not step:
            return gates[now], self._start, states[now], self._start, memory[now]
        last = self._steps[step - 1]
        return gates[now], states[last], states[now], memory[last], memory[now]


def _run(cell: Cell, block: Block, products: Inputs, weight: Tensor, states: Array, keep: bool) -> _Trace:
    """Run a block forward; ``weight`` is (M, G). Writes the state after each token into ``states`` (T, M)."""
    trace = _Trace(block, cell, len(weight), keep)
    for step, n in enumerate(block.running):
        if step:
            multiply(trace.states[trace[step - 1]][:n], weight, trace.gates[trace[step]])
        else:
            trace.gates[trace[step]] = 0
        cell.step((block.at, step * block.stride), products, trace.arrays(step), states)
    return trace


def _run_back(
    cell: Cell, block: Block, trace: _Trace, weight: Tensor, grad_states: Array, grad_inputs: Array
) -> tuple[Tensor, Tensor]:
    """The backward pass of `_run`: writes ``grad_inputs`` (T, G), returns the gradients of weight (G, M) and bias."""
    texts, width = len(block.at), weight.shape[1]
    grad_weight, grad_bias = torch.zeros_like(weight), torch.zeros(len(weight))
    grad_state, grad_memory = torch.zeros(texts, width), torch.zeros(texts, width)
    grad_product = torch.empty(texts, len(weight))
    own = grad_product.numpy(), grad_bias.numpy()
    grads: Grads = (grad_states, grad_state.numpy(), grad_memory.numpy(), grad_inputs, *own)
    for step in reversed(range(len(block.running))):
        n = block.running[step]
        cell.back((block.at, step * block.stride), trace.arrays(step), grads)
        if step:  # the state before the first step is zero, whatever the weights
            # product = h W^T, so dh += dproduct W  and  dW += dproduct^T h.
            grad_state[:n].addmm_(grad_product[:n], weight)
            grad_weight.addmm_(grad_product[:n].T, trace.states[trace[step - 1]][:n])
    return grad_weight, grad_bias


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        inputs: Tensor, weight: Tensor, bias: Tensor, rows: Tensor, offsets: Tensor,
        cell: Cell, reverse: bool, dtype: torch.dtype, keep: bool,
    ) -> Tensor:  # fmt: skip
        blocks = _blocks(offsets.numpy(), reverse)
        states = torch.empty(len(rows), weight.shape[1])
        transposed = weight.detach().T.contiguous().to(dtype)
        products, out = (rows.numpy(), inputs.detach().numpy(), bias.detach().numpy()), states.numpy()
        traces = each(lambda block: _run(cell, block, products, transposed, out, keep), blocks)
        if keep:
            ctx.blocks, ctx.traces, ctx.cell, ctx.input_rows = blocks, traces, cell, len(inputs)
            ctx.save_for_backward(weight, rows)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_states: Tensor) -> tuple:  # noqa: ANN401
        weight, rows = ctx.saved_tensors
        weight = weight.detach()  # other threads would record a graph
        grad_tokens = torch.empty(len(rows), len(weight))
        of_states, of_inputs = grad_states.contiguous().numpy(), grad_tokens.numpy()
        pairs = zip(ctx.blocks, ctx.traces, strict=True)
        grads = each(lambda pair: _run_back(ctx.cell, *pair, weight, of_states, of_inputs), pairs)
        grad_weight, grad_bias = torch.zeros_like(weight), torch.zeros(len(weight))
        for of_weight, of_bias in grads:  # in the order of the blocks, whichever thread was first
            grad_weight += of_weight
            grad_bias += of_bias
        grad_inputs = sum_by_row(rows.numpy(), of_inputs, np.arange(ctx.input_rows), ctx.input_rows)
        return grad_inputs, grad_weight, grad_bias, *[None] * 6


def recur(
    inputs: Tensor, weight: Tensor, bias: Tensor, tokens: Ragged, cell: Cell, reverse: bool, dtype: torch.dtype
) -> Tensor:
    """The state after each token, (T, M) float32, in the order of the tokens whatever the direction.

    A text's states do not depend on the other texts. ``inputs`` and ``bias`` are those of `Cell`, the ids of
    ``tokens`` (int32) its ``rows``; ``weight`` (G, M) are the recurrent weights. ``reverse`` reads each text from its
    last token to its first. ``dtype`` (float32 or bfloat16) is that of the products with the state, always
    float32 where gradients are needed.
    """
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in (inputs, weight, bias))
    dtype = torch.float32 if keep else dtype
    return _Recurrence.apply(inputs, weight, bias, tokens.ids, tokens.offsets, cell, reverse, dtype, keep)
