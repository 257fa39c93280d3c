"""Signals of one training step: its gradients, by how much it changes the weights, where its time goes."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from statistics import median

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from two_tower.data.stream.batch import Batch
from two_tower.doctor.base import Clock, UnseenSignals
from two_tower.model import TwoTower
from two_tower.optimizer.base import RowOptimizer
from two_tower.tower._mapped import MappedWords
from two_tower.tower.base import word_tables
from two_tower.validation._groups import QueryGroups

ROWS = 64  # rows of a word table whose change is measured
GRADIENTS = 2048  # rows of a sparse gradient that its norm is estimated from
NUMBERS = 8192  # numbers of a dense parameter
KEPT = 100  # newest steps of which the median times are taken
FEW = 10  # queries of which a standard error says nothing
WARM_UP = 2  # first steps, which compile and allocate


def parts_of(model: TwoTower) -> Iterator[tuple[str, nn.Parameter]]:
    """Each parameter once, with the part of the model that it belongs to: a tower or its words."""
    owner = {"query_tower": "towers" if model.shared else "query tower", "document_tower": "document tower"}
    seen: set[int] = set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        module = owner.get(name.partition(".")[0])
        if module is None or id(parameter) in seen:
            continue
        seen.add(id(parameter))
        yield f"{module} words" if getattr(parameter, "is_word_table", False) else module, parameter


def gradients(model: TwoTower) -> dict[str, dict[str, float]]:
    """After the backward pass: ``gradients``, ``without_gradient`` and ``frozen`` of a `Probe`."""
    norms, without_gradient, frozen = dict[str, float](), dict[str, float](), dict[str, float]()
    parts: dict[str, list[nn.Parameter]] = {}
    for part, parameter in parts_of(model):
        parts.setdefault(part, []).append(parameter)
    for part, parameters in parts.items():
        trained = [p for p in parameters if p.requires_grad]
        squares = [_square(p.grad) for p in trained]
        total, trainable = (sum(p.numel() for p in some) for some in (parameters, trained))
        # NaN is a gradient, if a bad one.
        without = sum(p.numel() for p, square in zip(trained, squares, strict=True) if square == 0)
        norms[part] = sum(squares) ** 0.5
        frozen[part] = 1 - trainable / total
        if trainable:
            without_gradient[part] = without / trainable
    return {"gradients": norms, "without_gradient": without_gradient, "frozen": frozen}


def _square(grad: Tensor | None) -> float:
    """Squared norm of a gradient; of a sparse one with many rows an estimate."""
    if grad is None:
        return 0.0
    if not grad.is_sparse:
        return float(torch.linalg.vector_norm(grad)) ** 2
    values = grad.coalesce().values()
    some = values[:: 1 + len(values) // GRADIENTS]
    return float(torch.linalg.vector_norm(some)) ** 2 * len(values) / max(1, len(some))


class Weights:
    """Some of a model's numbers before a step on ``batch``, of words only its own, to tell by how much they change."""

    def __init__(self, model: TwoTower, batch: Batch) -> None:
        ids = batch.documents.ids[: 4 * ROWS].unique()[:ROWS].long()
        # What a word has besides the map of all starts as nothing: its change is seen beside the whole vector.
        mapped = {id(t.vectors): t for t in word_tables(model).values() if isinstance(t, MappedWords)}
        self._before: list[tuple[str, nn.Parameter, Tensor | None, Tensor, float]] = []
        for part, parameter in parts_of(model):
            table = getattr(parameter, "is_word_table", False)
            rows = ids if table else None
            # Of words only the vectors: their weights are of another size.
            if parameter.requires_grad and not (table and parameter.dim() == 1):
                before = _some(parameter, rows).clone()
                whole = mapped[id(parameter)].lookup(ids).detach() if id(parameter) in mapped else before
                self._before.append((part, parameter, rows, before, float(whole.double().square().sum())))

    def changes(self) -> dict[str, float]:
        """Part of the model → length of the change in relation to what was changed."""
        sums: dict[str, list[float]] = {}
        for part, parameter, rows, before, size in self._before:
            after = _some(parameter, rows)
            squares = sums.setdefault(part, [0.0, 0.0])
            squares[0] += float((after.double() - before.double()).square().sum())  # a wild step must not overflow
            squares[1] += size
        return {part: (change / size) ** 0.5 for part, (change, size) in sums.items() if size > 0}


def _some(parameter: nn.Parameter, rows: Tensor | None) -> Tensor:
    return parameter.detach().flatten()[:NUMBERS] if rows is None else parameter.detach()[rows]


def schedule_share(trainer: L.Trainer) -> float:
    """The learning rate / the largest of the schedule."""
    rates = [g["lr"] / g["initial_lr"] for o in trainer.optimizers for g in o.param_groups if g.get("initial_lr")]
    return max(rates, default=1.0)


def standard_errors_below(values: np.ndarray, before: np.ndarray | None) -> float:
    """By how many standard errors, paired by query, the mean of ``values`` is below that of ``before``."""
    if before is None or len(before) != len(values) or len(values) < FEW:
        return math.nan
    difference = before - values
    error = float(difference.std()) / math.sqrt(max(1, len(values)))
    return float(difference.mean()) / error if error > 0 else 0.0


def by_group(groups: QueryGroups, values: np.ndarray, bm25: np.ndarray | None) -> UnseenSignals:
    """The signals of (Q,) figures of the towers and of BM25."""
    seen, unseen = groups.seen, groups.unseen
    baseline = np.full(len(values), math.nan) if bm25 is None else bm25
    compared = values - np.nan_to_num(baseline)
    error = math.sqrt(sum(compared[mask].var() / mask.sum() for mask in (seen, unseen)))
    means = [float(of[mask].mean()) for of in (values, baseline) for mask in (seen, unseen)]
    return UnseenSignals(means[0], means[1], means[2], means[3], error)


def untouched(trainer: L.Trainer) -> float:
    """Share of the words that the optimizer has never stepped; NaN where it keeps no count."""
    optimizers = (getattr(o, "optimizer", o) for o in trainer.optimizers)  # unwrapped
    for optimizer in (o for o in optimizers if isinstance(o, RowOptimizer)):
        for parameter, state in optimizer.state.items():
            moment = state.get(optimizer._moment)
            if getattr(parameter, "is_word_table", False) and moment is not None and moment.dim():
                rows = moment if moment.dim() == 1 else moment.flatten(1).amax(1)
                return float((rows == 0).float().mean())
    return math.nan


class Stopwatch:
    """Times the parts of each step; on a GPU, which works on by itself, what it takes to start them."""

    def __init__(self) -> None:
        self.steps = 0
        self._marks: list[float] = []
        self._end = 0.0
        self._parts: deque[tuple[float, float, float, float]] = deque(maxlen=KEPT)

    def start(self) -> None:  # the batch is there: the time since the last `resume` was spent waiting for it
        self._marks = [time.perf_counter()]

    def mark(self) -> None:  # a part has ended: the forward pass, the backward pass
        self._marks.append(time.perf_counter())

    def pause(self) -> None:  # the time until the next `start` is not spent waiting for a batch
        self._end = 0.0

    def end(self, own: float = 0.0) -> None:
        """The step has ended; ``own`` seconds of its last part were the doctor's."""
        now = time.perf_counter()
        if len(self._marks) == 3 and self._end:
            start, forward, backward = self._marks
            self.steps += 1
            if self.steps > WARM_UP:
                rest = max(0.0, now - backward - own)
                self._parts.append((start - self._end, forward - start, backward - forward, rest))
        self.resume()

    def resume(self) -> None:  # from now on time is spent waiting for a batch
        self._end = time.perf_counter()

    def read(self, clock: Clock) -> None:
        """Write the medians into ``clock``."""
        if self._parts:
            clock.data, clock.forward, clock.backward, clock.optimizer = map(median, zip(*self._parts, strict=True))
        clock.steps = self.steps
