"""Signals of a model on a part of one training batch: scores, loss, vectors."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from two_tower.data.stream.batch import Batch
from two_tower.doctor.probe import Probe
from two_tower.loss.base import Loss, LossInput, TeacherBatch
from two_tower.model import TwoTower
from two_tower.negatives.base import Positives
from two_tower.ragged import Ragged

__all__ = ["difference_alone", "look"]

QUERIES = 64  # of a batch that are looked at
EXTRAS = 1024  # further documents that they are compared with
SAME = 0.9  # share of all their words that near copies have in common


class _Part(LossInput):
    """A part of a batch whose scores are given: the loss's value is then a function of them."""

    def leading(self, dim: int) -> LossInput:
        return self if dim >= self.queries.shape[1] else super().leading(dim)


class _Imagined(LossInput):
    """Imagined scores, the same for vectors of any length."""

    def leading(self, dim: int) -> LossInput:
        return self


@torch.no_grad()
def look(
    step: int, first_epoch: bool, batch: Batch, seen: LossInput, loss: Loss, positives: Positives | None,
    before: Probe | None = None,
) -> Probe:  # fmt: skip
    """Look at a part of a batch that was just compared.

    Args:
        step: how many steps are made with it.
        first_epoch: whether no example was seen before.
        batch: what the loader gave.
        seen: what the loss saw.
        loss: the model's.
        positives: what is known to be relevant; None if not known.
        before: an earlier look, whose levels of the loss are taken if it had as many negatives.
    """
    part = _part(seen, *_sizes(*seen.negatives.shape))
    rows, scores = len(part.queries), part.scores
    mask = part.negatives.cpu().numpy()
    counts = mask.sum(1)
    value, gradient = _loss_and_gradient(loss, part)
    known, copies = _false_negatives(batch, positives, rows)
    mean_count = _mean(counts)
    if loss.needs or gradient is None:  # imagined scores say nothing of a loss that looks at a teacher or at vectors
        trivial = ideal = 0.0
    elif before is not None and abs(before.candidates - mean_count) < 0.02 * mean_count:
        trivial, ideal = before.trivial, before.ideal
    else:
        trivial = loss(_with_scores(_Imagined, part, torch.zeros_like(scores))).loss.item()
        ideal = loss(_with_scores(_Imagined, part, _ideal(scores, part.similarity.name))).loss.item()
    queries, documents = (v[:QUERIES].float().cpu().numpy() for v in (seen.queries, seen.documents))
    finite = bool(np.isfinite(scores.sum().item()) and np.isfinite(documents).all())
    return Probe(
        step=step,
        first_epoch=first_epoch,
        queries=rows,
        candidates=mean_count,
        loss=value,
        trivial=trivial,
        ideal=ideal,
        active=1.0 if gradient is None else _mean(_active(gradient, mask)[counts > 0]),
        single=gradient is not None and _single(gradient, mask),
        known_negatives=known,
        copies=copies,
        not_finite=not finite,
        **_of_scores(scores.cpu().numpy(), mask),
        **_geometry(queries, documents),
    )


def _sizes(queries: int, documents: int) -> tuple[int, int]:
    """How many queries are looked at, and how many of the documents beyond the positives."""
    each = (documents - queries) // queries if queries else 0
    rows = max(1, min(queries, QUERIES, EXTRAS // each if each else QUERIES))
    return rows, min(documents - queries, max(EXTRAS, rows * each))


def _part(seen: LossInput, rows: int, extras: int) -> LossInput:
    """The first queries, their positives, then documents beyond the positives; detached, in float32."""
    count = len(seen.queries)

    def documents(matrix: Tensor, dim: int = 0) -> Tensor:
        return torch.cat([matrix.narrow(dim, 0, rows), matrix.narrow(dim, count, extras)], dim).detach()

    queries, teacher = seen.queries[:rows].detach(), seen.teacher
    if teacher is not None:
        taught = (teacher.queries, teacher.documents, teacher.margins)
        cut = (lambda v: v[:rows], documents, lambda v: v[:rows])
        teacher = TeacherBatch(*(None if v is None else f(v) for f, v in zip(cut, taught, strict=True)))
    negatives = documents(seen.negatives[:rows], 1)
    part = replace(seen, queries=queries, documents=documents(seen.documents), negatives=negatives, teacher=teacher)
    return _with_scores(_Part, part, documents(seen.scores[:rows], 1).float())


def _with_scores(kind: type[LossInput], part: LossInput, scores: Tensor) -> LossInput:
    made = kind(part.queries, part.documents, part.negatives, part.similarity, part.teacher)
    made.__dict__["scores"] = scores  # what the cached property would hold
    return made


@torch.enable_grad()
def _loss_and_gradient(loss: Loss, part: LossInput) -> tuple[float, np.ndarray | None]:
    """The loss of the part and its gradient on the scores, (B, N); None for a loss that does not look at scores."""
    leaf = part.scores.clone().requires_grad_()
    value = loss(_with_scores(_Part, part, leaf)).loss
    if not value.requires_grad:
        return value.item(), None
    gradient = torch.autograd.grad(value, leaf, allow_unused=True)[0]
    return value.item(), None if gradient is None else gradient.cpu().numpy()


def _active(gradient: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(B,) bool: whether a query still pulls at a candidate so that it matters beside the strongest pull there is."""
    return (np.abs(gradient) * mask).sum(1) > 1e-4 / max(1, len(gradient))


def _single(gradient: np.ndarray, mask: np.ndarray) -> bool:
    """Whether each query pulls at one candidate at most, of several that it has."""
    strength = np.abs(gradient) * mask
    pulled = strength > 1e-4 * strength.max(initial=0)
    return bool((pulled.sum(1) <= 1).all() and (mask.sum(1) > 1).any() and pulled.any())


def _ideal(scores: Tensor, similarity: str) -> Tensor:
    """Scores of a perfect model: of the cosine 1 and 0; else ten times as far apart as they are."""
    ideal = torch.zeros_like(scores)
    spread = 1.0 if similarity == "cosine" else 10 * float(scores.std()) + 1e-6
    ideal.diagonal().fill_(spread)
    return ideal


def _of_scores(scores: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    """Means and histograms of the positives' and the candidates' scores."""
    positive, negatives = scores.diagonal(), scores[mask]
    hardest = np.where(mask, scores, -np.inf).max(1, initial=-np.inf)
    judged = mask.any(1)
    both = np.concatenate([positive, negatives])
    low, high = (float(both.min()), float(both.max())) if len(both) else (-1.0, 1.0)
    if not math.isfinite(low + high):
        low, high = -1.0, 1.0
    elif high <= low:
        low, high = low - 0.5, high + 0.5
    return {
        "positive": _mean(positive),
        "negative": _mean(negatives),
        "hardest": _mean(hardest[judged]),
        "accuracy": _mean((positive > hardest)[judged]),
        "positives": _histogram(positive, low, high),
        "negatives": _histogram(negatives, low, high),
        "limits": (low, high),
    }


def _histogram(values: np.ndarray, low: float, high: float) -> list[int]:
    values = values[np.isfinite(values)]
    places = ((values - low) * (Probe.BINS / (high - low))).astype(np.int64)
    counts: list[int] = np.bincount(np.clip(places, 0, Probe.BINS - 1), minlength=Probe.BINS).tolist()
    return counts


def _geometry(queries: np.ndarray, documents: np.ndarray) -> dict[str, Any]:
    """How (N, D) vectors lie; queries stand beside their positives."""
    names = ("alignment", "uniformity", "rank", "cosine", "norm")
    lengths, count = np.linalg.norm(documents, axis=1), len(documents)
    if count < 2 or not np.isfinite(lengths).all():
        return dict.fromkeys(names, math.nan)
    units, asked = _unit(documents), _unit(queries)
    gram = units @ units.T
    apart = ~np.eye(count, dtype=bool)
    # The squared singular values of the vectors: eigenvalues of their products with each other.
    singular = np.sqrt(np.clip(np.linalg.eigvalsh(documents @ documents.T), 0, None))
    shares = singular / max(float(singular.sum()), 1e-12)
    values = (
        float(np.square(asked - units[: len(asked)]).sum(1).mean()),
        math.log(float(np.exp(4 * gram[apart] - 4).mean())),
        math.exp(-float((shares * np.log(shares + 1e-12)).sum())),
        float(gram[apart].mean()),
        float(lengths.mean()),
    )
    return dict(zip(names, values, strict=True))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _false_negatives(batch: Batch, positives: Positives | None, rows: int) -> tuple[float, float]:
    """Shares of the queries with a candidate that is known to be relevant, and with a near copy of the positive."""
    rows, count = min(rows, len(batch)), len(batch)
    each = (len(batch.document_rows) - count) // max(1, count)
    own = np.concatenate([np.arange(rows), np.arange(count, count + rows * each)])
    mask = batch.negatives[:rows].cpu().numpy()[:, own]
    if not rows or positives is None:
        return 0.0, 0.0
    queries, documents = batch.query_rows[:rows].cpu().numpy(), batch.document_rows.cpu().numpy()[own]
    known = _mean((positives.mark(queries, documents) & mask).any(1))
    return known, _copies(batch, rows, each, mask)


def _copies(batch: Batch, rows: int, each: int, mask: np.ndarray) -> float:
    """Only of the documents that were looked up for a query: a random one is hardly ever a copy."""
    if not each:
        return 0.0
    documents = batch.documents.to("cpu")
    texts = [set(ids) for ids in documents.slice(0, rows).to_lists()]
    start = len(batch)
    extras = [set(ids) for ids in documents.slice(start, start + rows * each).to_lists()]
    near = [
        any(
            mask[i, rows + i * each + k] and len(texts[i] & extra) >= SAME * max(len(texts[i] | extra), 1)
            for k, extra in enumerate(extras[i * each : (i + 1) * each])
        )
        for i in range(rows)
    ]
    return sum(near) / rows


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0


def difference_alone(model: TwoTower, sides: dict[str, Ragged]) -> float:
    """The largest difference between the vector of a text by itself and among others, in relation to its length.

    Args:
        model: the model.
        sides: ``queries`` and ``documents`` → texts, of different lengths.
    """
    worst = 0.0
    for side, tokens in sides.items():
        together = model.encode(side, tokens)
        for row in _shorter(tokens):
            alone = model.encode(side, tokens.slice(row, row + 1))[0]
            size = float(alone.norm().clamp(min=1e-12))
            worst = max(worst, float((alone - together[row]).norm()) / size)
    return worst


def _shorter(tokens: Ragged) -> list[int]:
    """The shortest text that is not empty, and the one in the middle: a longest one would see no padding."""
    lengths: Any = tokens.lengths.cpu().numpy()
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    return sorted({int(order[i]) for i in (0, len(order) // 2)}) if len(order) else []
