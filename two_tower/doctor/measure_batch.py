"""Signals of a model on a part of one training batch: scores, loss, vectors."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from two_tower.data.stream.batch import Batch
from two_tower.doctor.base import Probe
from two_tower.loss.base import Loss, LossInput, TeacherBatch
from two_tower.negatives.base import Positives
from two_tower.ragged import Ragged
from two_tower.vectors import Towers

QUERIES = 64  # of a batch that are looked at
EXTRAS = 1024  # further documents that they are compared with
BINS = 40  # of a histogram of scores
SAME = 0.9  # share of all their words that near copies have in common


class _Part(LossInput):
    """A part of a batch whose scores are given, so that the loss is a function of them."""

    imagined = False  # whether they are those of vectors of any length

    def leading(self, dim: int) -> LossInput:
        return self if self.imagined or dim >= self.queries.shape[1] else super().leading(dim)


@torch.no_grad()
def look(
    step: int, first_epoch: bool, batch: Batch, seen: LossInput, loss: Loss, positives: Positives | None,
    before: Probe | None = None,
) -> Probe:  # fmt: skip
    """Look at a part of a batch that the loss just saw; see `Probe` for ``step`` and ``first_epoch``.

    The levels of the loss are those of the look ``before`` if it had as many negatives.
    """
    part = _part(seen, *_sizes(*seen.negatives.shape))
    rows, scores, mask = len(part.queries), part.scores, part.negatives.cpu().numpy()
    counts = mask.sum(1)
    mean_count = _mean(counts)
    value, gradient = _loss_and_gradient(loss, part)
    strength = np.zeros(mask.shape) if gradient is None else np.abs(gradient) * mask
    known, copies = _false_negatives(batch, positives, rows)
    if loss.needs or gradient is None:  # imagined scores say nothing of a loss that looks at a teacher or at vectors
        trivial = ideal = 0.0
    elif before is not None and abs(before.candidates - mean_count) < 0.02 * mean_count:
        trivial, ideal = before.trivial, before.ideal
    else:
        trivial = loss(_with_scores(part, torch.zeros_like(scores), imagined=True)).loss.item()
        ideal = loss(_with_scores(part, _perfect(scores, part.similarity.name), imagined=True)).loss.item()
    queries, documents = (v[:QUERIES].float().cpu().numpy() for v in (seen.queries, seen.documents))
    finite = bool(np.isfinite(scores.sum().item()) and np.isfinite(documents).all())
    # A query learns if its negatives have a gradient that matters beside the strongest that there can be.
    active = 1.0 if gradient is None else _mean((strength.sum(1) > 1e-4 / max(1, rows))[counts > 0])
    return Probe(
        step=step, first_epoch=first_epoch, queries=rows, candidates=mean_count, loss=value, trivial=trivial,
        ideal=ideal, active=active, single=_single(strength, counts), known_negatives=known, copies=copies,
        not_finite=not finite, **_of_scores(scores.cpu().numpy(), mask), **_geometry(queries, documents),
    )  # fmt: skip


def _sizes(queries: int, documents: int) -> tuple[int, int]:
    """How many queries are looked at, and how many of the documents beyond the positives."""
    each = (documents - queries) // queries if queries else 0
    rows = max(1, min(queries, QUERIES, EXTRAS // each if each else QUERIES))
    return rows, min(documents - queries, max(EXTRAS, rows * each))


def _part(seen: LossInput, rows: int, extras: int) -> LossInput:
    """The first queries, their positives, then documents beyond the positives; detached, in float32."""
    count, teacher = len(seen.queries), seen.teacher or TeacherBatch()

    def documents(matrix: Tensor, dim: int = 0) -> Tensor:
        return torch.cat([matrix.narrow(dim, 0, rows), matrix.narrow(dim, count, extras)], dim).detach()

    taught = TeacherBatch(
        queries=None if teacher.queries is None else teacher.queries[:rows],
        documents=None if teacher.documents is None else documents(teacher.documents),
        margins=None if teacher.margins is None else teacher.margins[:rows],
    )
    mask, scores = (documents(matrix[:rows], 1) for matrix in (seen.negatives, seen.scores))
    queries = seen.queries[:rows].detach()
    part = replace(seen, queries=queries, documents=documents(seen.documents), negatives=mask, teacher=taught)
    return _with_scores(part, scores.float())


def _with_scores(batch: LossInput, scores: Tensor, imagined: bool = False) -> LossInput:
    part = _Part(batch.queries, batch.documents, batch.negatives, batch.similarity, batch.teacher)
    part.__dict__["scores"] = scores  # where the cached property keeps its value
    part.imagined = imagined
    return part


@torch.enable_grad()
def _loss_and_gradient(loss: Loss, part: LossInput) -> tuple[float, np.ndarray | None]:
    """The loss of the part and its gradient on the scores, (B, N); None for a loss that does not look at scores."""
    leaf = part.scores.clone().requires_grad_()
    value = loss(_with_scores(part, leaf)).loss
    if not value.requires_grad:
        return value.item(), None
    gradient = torch.autograd.grad(value, leaf, allow_unused=True)[0]
    return value.item(), None if gradient is None else gradient.cpu().numpy()


def _single(strength: np.ndarray, counts: np.ndarray) -> bool:
    """Whether at most one negative of each query has a gradient, of several that it has."""
    pushed = strength > 1e-4 * strength.max(initial=0)
    return bool((pushed.sum(1) <= 1).all() and (counts > 1).any() and pushed.any())


def _perfect(scores: Tensor, similarity: str) -> Tensor:
    """Scores of a perfect model: of the cosine 1 and 0; else ten times as far apart as they are."""
    perfect = torch.zeros_like(scores)
    spread = 1.0 if similarity == "cosine" else 10 * float(scores.std()) + 1e-6
    perfect.diagonal().fill_(spread)
    return perfect


def _of_scores(scores: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
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
        "positive": _mean(positive), "negative": _mean(negatives), "hardest": _mean(hardest[judged]),
        "accuracy": _mean((positive > hardest)[judged]), "limits": (low, high),
        "positives": _histogram(positive, low, high), "negatives": _histogram(negatives, low, high),
    }  # fmt: skip


def _histogram(values: np.ndarray, low: float, high: float) -> list[int]:
    values = values[np.isfinite(values)]
    places = ((values - low) * (BINS / (high - low))).astype(np.int64)
    counts: list[int] = np.bincount(np.clip(places, 0, BINS - 1), minlength=BINS).tolist()
    return counts


def _geometry(queries: np.ndarray, documents: np.ndarray) -> dict[str, Any]:
    """How (N, D) vectors lie; queries stand beside their positives."""
    lengths, count = np.linalg.norm(documents, axis=1), len(documents)
    if count < 2 or not np.isfinite(lengths).all():
        return dict.fromkeys(("alignment", "uniformity", "rank", "cosine", "norm"), math.nan)
    units, asked = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12) for v in (documents, queries))
    gram = units @ units.T
    apart = ~np.eye(count, dtype=bool)
    # The squared singular values of the vectors: eigenvalues of their products with each other.
    singular = np.sqrt(np.clip(np.linalg.eigvalsh(documents @ documents.T), 0, None))
    shares = singular / max(float(singular.sum()), 1e-12)
    return {
        "alignment": float(np.square(asked - units[: len(asked)]).sum(1).mean()),
        "uniformity": math.log(float(np.exp(4 * gram[apart] - 4).mean())),
        "rank": math.exp(-float((shares * np.log(shares + 1e-12)).sum())),
        "cosine": float(gram[apart].mean()),
        "norm": float(lengths.mean()),
    }


def _false_negatives(batch: Batch, positives: Positives | None, rows: int) -> tuple[float, float]:
    """Shares of the queries with a negative that is known to be relevant, and with a near copy of the positive.

    Copies are looked for among a query's own extra documents: a random document is hardly ever one.
    """
    rows, count = min(rows, len(batch)), len(batch)
    each = (len(batch.document_rows) - count) // max(1, count)
    if not rows or positives is None:
        return 0.0, 0.0
    own = np.concatenate([np.arange(rows), np.arange(count, count + rows * each)])
    mask = batch.negatives[:rows].cpu().numpy()[:, own]
    queries, documents = batch.query_rows[:rows].cpu().numpy(), batch.document_rows.cpu().numpy()[own]
    known = _mean((positives.mark(queries, documents) & mask).any(1))
    if not each:
        return known, 0.0
    words = [set(ids) for ids in batch.documents.to("cpu").select(own).to_lists()]

    def near(query: int, column: int) -> bool:
        one, other = words[query], words[column]
        return bool(mask[query, column]) and len(one & other) >= SAME * max(len(one | other), 1)

    copied = [any(near(q, c) for c in range(rows + q * each, rows + (q + 1) * each)) for q in range(rows)]
    return known, sum(copied) / rows


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0


def difference_alone(model: Towers, sides: dict[str, Ragged]) -> float:
    """The largest difference between the vector of a text by itself and among the others, in relation to its length."""
    largest = 0.0
    for side, tokens in sides.items():
        together, lengths = model.encode(side, tokens), tokens.lengths.cpu().numpy()
        order = np.argsort(lengths, kind="stable")
        order = order[lengths[order] > 0]
        # The shortest text that is not empty, and the one in the middle: a longest one would see no padding.
        for row in {int(order[i]) for i in (0, len(order) // 2)} if len(order) else ():
            alone = model.encode(side, tokens.slice(row, row + 1))[0]
            length = float(alone.norm().clamp(min=1e-12))
            largest = max(largest, float((alone - together[row]).norm()) / length)
    return largest
