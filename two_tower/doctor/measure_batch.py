"""Signals of a model on a part of one training batch: scores, loss, vectors, gradients, the size of a step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from two_tower.candidates import Compared
from two_tower.data.stream.batch import Batch
from two_tower.doctor.signals import Probe
from two_tower.inspection.relations import lexical_overlap
from two_tower.loss.base import Loss
from two_tower.model import TwoTower
from two_tower.negatives.base import Positives
from two_tower.ragged import Ragged

__all__ = ["Weights", "difference_alone", "gradients", "look", "parts_of"]

QUERIES = 128  # of a batch that are looked at
EXTRAS = 2048  # further documents that they are compared with
SAME = 0.9  # share of words in common of near copies
ROWS = 256  # rows of a word table whose change is measured
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


@torch.no_grad()
def look(
    step: int, first_epoch: bool, batch: Batch, compared: Compared, scores: Tensor | Sequence[Tensor],
    loss: Loss, similarity: str, positives: Positives | None,
) -> Probe:  # fmt: skip
    """Look at a part of a batch that was just compared.

    Args:
        step: how many steps are made with it.
        first_epoch: whether no example was seen before.
        batch: what the loader gave.
        compared: vectors and candidates.
        scores: their scores (B, N), or one matrix for each number of dimensions.
        loss: the model's.
        similarity: its name.
        positives: what is known to be relevant; None if not known.
    """
    rows, columns = _part(*compared.candidates.shape)
    parts = [_picked(s, rows, columns).float() for s in ([scores] if isinstance(scores, Tensor) else scores)]
    candidates = _picked(compared.candidates, rows, columns)
    own, counts = parts[0], candidates.sum(1)
    judged = counts > 0
    positive = own.diagonal()
    negatives = own[candidates]
    hardest = torch.where(candidates, own, -torch.inf).amax(1)
    value, gradient = _loss_and_gradient(loss, parts, candidates, isinstance(scores, Tensor))
    trivial = _loss_of(loss, [torch.zeros_like(p) for p in parts], candidates, isinstance(scores, Tensor))
    ideal = _loss_of(loss, [_ideal(p, similarity) for p in parts], candidates, isinstance(scores, Tensor))
    pulled = (gradient.abs() > 1e-4 * gradient.abs().amax()) & candidates if len(own) else candidates
    known, copies = _false_negatives(batch, positives, rows)
    vectors = compared.documents[:QUERIES].float()
    low, high = _limits(positive, negatives)
    return Probe(
        step=step,
        first_epoch=first_epoch,
        queries=len(own),
        candidates=_float(counts.float()),
        loss=value,
        trivial=trivial,
        ideal=ideal,
        positive=_float(positive),
        negative=_float(negatives),
        hardest=_float(hardest[judged]),
        accuracy=_float((positive > hardest)[judged].float()),
        active=_float(_active(gradient, candidates)[judged].float()),
        single=bool((pulled.sum(1) <= 1).all() and (counts > 1).any() and pulled.any()),
        known_negatives=known,
        copies=copies,
        alignment=_float((_unit(compared.queries[:rows].float()) - _unit(compared.documents[:rows].float())).square().sum(1)),
        **_geometry(vectors),
        norm=_float(vectors.norm(dim=1)),
        not_finite=not bool(torch.isfinite(own).all() and torch.isfinite(vectors).all()),
        positives=_histogram(positive, low, high),
        negatives=_histogram(negatives, low, high),
        limits=(low, high),
    )


def _part(queries: int, documents: int) -> tuple[int, int]:
    """How many queries are looked at, and how many of the documents beyond the positives."""
    each = (documents - queries) // queries if queries else 0
    rows = max(1, min(queries, QUERIES, EXTRAS // each if each else QUERIES))
    return rows, min(documents - queries, max(EXTRAS, rows * each))


def _picked(matrix: Tensor, rows: int, extras: int) -> Tensor:
    """The first rows of a (B, N) matrix: their positives' columns, then those beyond the positives."""
    count = len(matrix)
    return torch.cat([matrix[:rows, :rows], matrix[:rows, count : count + extras]], 1).detach()


def _loss_of(loss: Loss, scores: list[Tensor], candidates: Tensor, one: bool) -> float:
    return float(loss(scores[0] if one else scores, candidates)[0])


@torch.enable_grad()
def _loss_and_gradient(loss: Loss, scores: list[Tensor], candidates: Tensor, one: bool) -> tuple[float, Tensor]:
    """The loss of the part and its gradient on the scores of the whole vectors."""
    leaf = scores[0].clone().requires_grad_()
    value = loss(leaf if one else [leaf, *scores[1:]], candidates)[0]
    if not value.requires_grad:
        return float(value), torch.zeros_like(leaf)
    found = float(value.detach())
    (gradient,) = torch.autograd.grad(value, leaf, allow_unused=True)
    return found, torch.zeros_like(leaf) if gradient is None else gradient


def _active(gradient: Tensor, candidates: Tensor) -> Tensor:
    """(B,) bool: whether a query still pulls at anything that matters beside the strongest pull there could be."""
    pull = torch.where(candidates, gradient.abs(), 0).sum(1)
    return pull > 1e-4 / max(1, len(gradient))


def _ideal(scores: Tensor, similarity: str) -> Tensor:
    """Scores of a perfect model: of the cosine 1 and 0; else ten times as far apart as they are."""
    ideal = torch.zeros_like(scores)
    spread = 1.0 if similarity == "cosine" else 10 * float(scores.std()) + 1e-6
    ideal.diagonal().fill_(spread)
    return ideal


def _geometry(vectors: Tensor) -> dict[str, float]:
    """Mean cosine, effective rank and uniformity of (N, D) vectors."""
    units = _unit(vectors)
    count = len(units)
    if count < 2 or not torch.isfinite(units).all():
        return {"cosine": math.nan, "rank": math.nan, "uniformity": math.nan}
    gram = units @ units.T
    pairs = count * (count - 1)
    cosine = float((gram.sum() - gram.diagonal().sum()) / pairs)
    kernel = (-2 * (2 - 2 * gram)).exp()
    uniformity = float(((kernel.sum() - count) / pairs).log())
    # The squared singular values of the vectors: eigenvalues of their products with each other.
    singular = torch.linalg.eigvalsh(vectors @ vectors.T).clamp(min=0).sqrt()
    shares = singular / singular.sum().clamp(min=1e-12)
    entropy = -(shares * (shares + 1e-12).log()).sum()
    return {"cosine": cosine, "rank": float(entropy.exp()), "uniformity": uniformity}


def _unit(vectors: Tensor) -> Tensor:
    return nn.functional.normalize(vectors, dim=1)


def _false_negatives(batch: Batch, positives: Positives | None, rows: int) -> tuple[float, float]:
    """Shares of the queries with a candidate that is known to be relevant, and with a near copy of the positive."""
    rows = min(rows, len(batch))
    count = len(batch)
    each = (len(batch.document_rows) - count) // max(1, count)
    own = torch.cat([torch.arange(rows), torch.arange(count, count + rows * each)])
    mask = batch.candidates[:rows][:, own.to(batch.candidates.device)].cpu().numpy()
    queries, documents = (r.cpu().numpy() for r in (batch.query_rows[:rows], batch.document_rows[own]))
    known = 0.0
    if positives is not None and rows:
        known = float((positives.mark(queries, documents) & mask).any(1).mean())
    return known, _copies(batch, rows, each, mask)


def _copies(batch: Batch, rows: int, each: int, mask: np.ndarray) -> float:
    """Only of the documents that were looked up for a query: a random one is hardly ever a copy."""
    if not each or not rows:
        return 0.0
    count, copies = len(batch), np.zeros(rows, bool)
    documents = batch.documents.to("cpu")
    positives = documents.slice(0, rows)
    for k in range(min(each, 4)):
        extra = documents.select(np.arange(rows) * each + count + k)
        near = np.minimum(lexical_overlap(positives, extra, -1), lexical_overlap(extra, positives, -1)) >= SAME
        copies |= near & mask[np.arange(rows), rows + np.arange(rows) * each + k]
    return float(copies.mean())


def _limits(positive: Tensor, negatives: Tensor) -> tuple[float, float]:
    both = torch.cat([positive, negatives])
    both = both[torch.isfinite(both)]
    if not len(both):
        return -1.0, 1.0
    low, high = float(both.min()), float(both.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _histogram(values: Tensor, low: float, high: float) -> list[int]:
    values = values[torch.isfinite(values)].cpu()
    return [int(count) for count in torch.histc(values, Probe.BINS, low, high).tolist()]


def _float(values: Tensor) -> float:
    return float(values.mean()) if values.numel() else 0.0


def gradients(model: TwoTower) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """After the backward pass, by part of the model: `Probe.gradients`, `Probe.without_gradient`, `Probe.frozen`."""
    squares: dict[str, float] = {}
    without: dict[str, int] = {}
    frozen: dict[str, int] = {}
    trained: dict[str, int] = {}
    for part, parameter in parts_of(model):
        for counts in (squares, without, frozen, trained):
            counts.setdefault(part, 0)  # type: ignore[arg-type]
        if not parameter.requires_grad:
            frozen[part] += parameter.numel()
            continue
        trained[part] += parameter.numel()
        grad = parameter.grad
        values = None if grad is None else grad._values() if grad.is_sparse else grad
        square = 0.0 if values is None else float(values.square().sum())
        squares[part] += square
        if square == 0:  # NaN is a gradient, if a bad one
            without[part] += parameter.numel()
    return (
        {part: value**0.5 for part, value in squares.items()},
        {part: without[part] / trained[part] for part in trained if trained[part]},
        {part: frozen[part] / (frozen[part] + trained[part]) for part in trained},
    )


class Weights:
    """Some of a model's numbers before a step, to tell by how much it changes them.

    Args:
        model: the model.
        batch: what it is about to be trained on: only the words that occur in it are looked at.
    """

    def __init__(self, model: TwoTower, batch: Batch) -> None:
        ids = torch.cat([batch.queries.ids[: 4 * ROWS], batch.documents.ids[: 4 * ROWS]]).unique()[:ROWS].long()
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
            sums[0] += float((after - before).square().sum())
            sums[1] += float(before.square().sum())
        return {part: (change / size) ** 0.5 for part, (change, size) in changes.items() if size > 0}


def difference_alone(model: TwoTower, sides: dict[str, Ragged]) -> float:
    """The largest difference between the vector of a text by itself and among others, in relation to its length.

    Args:
        model: the model.
        sides: ``queries`` and ``documents`` → texts, of different lengths.
    """
    worst = 0.0
    for side, tokens in sides.items():
        together = model.encode(side, tokens)
        for row in _shortest_and_longest(tokens):
            alone = model.encode(side, tokens.slice(row, row + 1))[0]
            size = float(alone.norm().clamp(min=1e-12))
            worst = max(worst, float((alone - together[row]).norm()) / size)
    return worst


def _shortest_and_longest(tokens: Ragged) -> list[int]:
    lengths: Any = tokens.lengths.cpu().numpy()
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    return sorted({int(order[i]) for i in (0, len(order) // 2, -1)}) if len(order) else []
