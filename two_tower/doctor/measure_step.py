"""Signals of one training step: gradients, and by how much it changes the weights."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from two_tower.data.stream.batch import Batch
from two_tower.model import TwoTower
from two_tower.optimizer.base import RowOptimizer

__all__ = ["Weights", "errors_below", "gradients", "rate", "untouched"]

ROWS = 64  # rows of a word table whose change is measured
GRADIENTS = 2048  # rows of a sparse gradient that its norm is estimated from
NUMBERS = 8192  # numbers of a dense parameter


def parts_of(model: TwoTower) -> Iterator[tuple[str, nn.Parameter]]:
    """Each parameter once, with the part of the model that it belongs to: a tower, its words, the loss."""
    owner = {"query_tower": "towers" if model.shared else "query tower", "document_tower": "document tower"}
    seen: set[int] = set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        module = owner.get(name.partition(".")[0])
        if module is None or id(parameter) in seen:
            continue
        seen.add(id(parameter))
        yield f"{module} words" if getattr(parameter, "is_word_table", False) else module, parameter


def gradients(model: TwoTower) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """After the backward pass, by part of the model: `Probe.gradients`, `Probe.without_gradient`, `Probe.frozen`."""
    squares, without, frozen, trained = (defaultdict[str, float](float) for _ in range(4))
    for part, parameter in parts_of(model):
        for numbers in (squares, without, frozen, trained):
            numbers[part] += 0
        if not parameter.requires_grad:
            frozen[part] += parameter.numel()
            continue
        trained[part] += parameter.numel()
        square = _square(parameter.grad)
        squares[part] += square
        if square == 0:  # NaN is a gradient, if a bad one
            without[part] += parameter.numel()
    return (
        {part: value**0.5 for part, value in squares.items()},
        {part: without[part] / trained[part] for part in trained if trained[part]},
        {part: frozen[part] / (frozen[part] + trained[part]) for part in trained},
    )


def _square(grad: Tensor | None) -> float:
    """Squared norm of a gradient; of a sparse one with many rows an estimate."""
    if grad is None:
        return 0.0
    if not grad.is_sparse:
        return float(torch.linalg.vector_norm(grad)) ** 2
    values = grad._values()
    some = values[:: 1 + len(values) // GRADIENTS]
    return float(torch.linalg.vector_norm(some)) ** 2 * len(values) / max(1, len(some))


class Weights:
    """Some of a model's numbers before a step, to tell by how much it changes them.

    Args:
        model: the model.
        batch: what it is about to be trained on: only the words that occur in it are looked at.
    """

    def __init__(self, model: TwoTower, batch: Batch) -> None:
        ids = batch.documents.ids[: 4 * ROWS].unique()[:ROWS].long()
        self._kept: list[tuple[str, nn.Parameter, Tensor | None, Tensor]] = []
        for part, parameter in parts_of(model):
            table = getattr(parameter, "is_word_table", False)
            if not parameter.requires_grad or (table and parameter.dim() == 1):
                continue  # of words only the vectors: their weights are of another size
            if table:
                self._kept.append((part, parameter, ids, parameter.detach()[ids].clone()))
            else:
                self._kept.append((part, parameter, None, parameter.detach().flatten()[:NUMBERS].clone()))

    def changed(self) -> dict[str, float]:
        """Part of the model → length of the change in relation to what was changed."""
        changes: dict[str, list[float]] = {}
        for part, parameter, ids, before in self._kept:
            now = parameter.detach()
            after = now.flatten()[:NUMBERS] if ids is None else now[ids]
            sums = changes.setdefault(part, [0.0, 0.0])
            sums[0] += float((after.double() - before.double()).square().sum())  # a wild step must not overflow
            sums[1] += float(before.double().square().sum())
        return {part: (change / size) ** 0.5 for part, (change, size) in changes.items() if size > 0}


def rate(trainer: L.Trainer) -> float:
    """The learning rate in relation to the largest of the schedule, as far as a schedule is in its first part."""
    rates = [g["lr"] / g["initial_lr"] for o in trainer.optimizers for g in o.param_groups if g.get("initial_lr")]
    return max(rates, default=1.0)


def errors_below(values: np.ndarray, before: np.ndarray | None) -> float:
    """By how many standard errors, paired by query, the mean of ``values`` is below that of ``before``."""
    if before is None or len(before) != len(values):
        return math.nan
    difference = before - values
    spread = float(difference.std()) / math.sqrt(max(1, len(values)))
    return float(difference.mean()) / spread if spread > 0 else 0.0


def untouched(trainer: L.Trainer) -> float:
    """Share of the words that the optimizer has never stepped, where it keeps count."""
    for wrapped in trainer.optimizers:
        optimizer = getattr(wrapped, "optimizer", wrapped)
        if not isinstance(optimizer, RowOptimizer):
            continue
        for parameter, state in optimizer.state.items():
            moment = state.get(type(optimizer)._moment)
            if getattr(parameter, "is_word_table", False) and moment is not None and moment.dim():
                rows = moment if moment.dim() == 1 else moment.flatten(1).amax(1)
                return float((rows == 0).float().mean())
    return math.nan
