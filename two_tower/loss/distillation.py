"""Learn from a teacher's vectors instead of judgements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from two_tower.loss.base import Loss, LossInput, LossOutput, check_above_0, checked_weights, diagnostics

TERMS = ("cosine", "kl", "contrastive", "margin")
RIDGE = 1e-3  # regularization of the first projection, relative to the vectors' mean square


@runtime_checkable
class HasDim(Protocol):
    """The dimensions of a teacher's vectors: all that the loss needs of it."""

    @property
    def dim(self) -> int: ...


class DistillationLoss(Loss):
    """A weighted sum of four ways to resemble a teacher, whose vectors are Q and D; the student's are q and d.

    - ``cosine``: ``2 - cos(q_i, Q_i) - cos(d_j, D_j)``, means over the batch. Where the dimensions differ, the
      student's vectors go through a linear map, which is learned with them and starts as the best one for the first
      batch (ridge regression).
    - ``kl``: ``KL(softmax(Q D / t) || softmax(s / t))`` over all documents, mean over the queries.
    - ``contrastive``: each of the student's documents must find its own teacher vector in the batch: cross-entropy
      over ``cos(d_i, D_j) / t``, without the other copies of an equal text.
    - ``margin``: mean squared difference of ``s_ii - s_ij`` and the teacher's, over the negatives j.

    Judgements only decide which query and passage share a batch; ``data.examples=passages`` does without them. In a
    matryoshka, shortened vectors learn from ``kl`` and ``margin`` alone. Of longer vectors the first ``dim`` numbers
    count: the rest is a lexical half, of which no teacher knows.

    Hinton et al. 2015, arXiv:1503.02531; vectors: Reimers and Gurevych 2020, arXiv:2004.09813; margins: Hofstätter et
    al. 2020, arXiv:2010.02666.
    """

    needs = frozenset({"vectors"})

    def __init__(self, teacher: HasDim, dim: int, weights: Mapping[str, float], temperature: float = 0.05) -> None:
        super().__init__()
        self.weights = checked_weights(weights, TERMS, 0.0)
        check_above_0(temperature=temperature)
        self.dim, self.temperature = dim, temperature
        self.fitted: Tensor
        self.projection = nn.Linear(dim, teacher.dim, bias=False) if teacher.dim != dim else None
        self.register_buffer("fitted", torch.tensor(teacher.dim == dim))

    def forward(self, batch: LossInput) -> LossOutput:
        if batch.teacher is None or batch.teacher.queries is None or batch.teacher.documents is None:
            raise ValueError("DistillationLoss needs the teacher's vectors of the batch")
        taught = (batch.teacher.queries, batch.teacher.documents)
        if batch.queries.shape[1] > self.dim:
            batch = batch.leading(self.dim)
        terms = self._of_scores(batch.scores, (taught[0] / self.temperature) @ taught[1].T, batch.negatives)
        if batch.queries.shape[1] == self.dim:  # not shortened: the projection fits
            terms |= self._of_vectors((batch.queries, batch.documents), taught)
        loss = torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()
        return LossOutput(loss, diagnostics(batch) | {name: value.detach() for name, value in terms.items()})

    def _of_scores(self, scores_BN: Tensor, taught_BN: Tensor, negatives_BN: Tensor) -> dict[str, Tensor]:
        """``taught_BN`` is divided by the temperature already."""
        terms = {}
        if self.weights["kl"]:
            student, teacher = (torch.log_softmax(s, 1) for s in (scores_BN / self.temperature, taught_BN))
            terms["kl"] = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        if self.weights["margin"]:
            margins = (s.diagonal().unsqueeze(1) - s for s in (scores_BN, self.temperature * taught_BN))
            student, teacher = (torch.where(negatives_BN, margin, 0) for margin in margins)
            terms["margin"] = (student - teacher).square().sum() / negatives_BN.sum().clamp(min=1)
        return terms

    def _of_vectors(self, own: tuple[Tensor, Tensor], taught: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        if not self.fitted:
            self._fit(torch.cat(own), torch.cat(taught))
        vectors = [v.to(torch.promote_types(v.dtype, torch.float32)) for v in own]
        if self.projection is not None:
            vectors = [F.linear(v, self.projection.weight) for v in vectors]
        q_BT, d_NT = (F.normalize(v, dim=1) for v in vectors)
        terms = {}
        if self.weights["cosine"]:
            cosines = [(v * w).sum(1).mean() for v, w in zip((q_BT, d_NT), taught, strict=True)]
            terms["cosine"] = 2 - torch.stack(cosines).sum()
        if self.weights["contrastive"]:
            logits = (d_NT / self.temperature) @ taught[1].T
            logits[_copies(taught[1])] = -torch.inf
            terms["contrastive"] = F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))
        return terms

    @torch.no_grad()
    def _fit(self, student: Tensor, taught: Tensor) -> None:
        assert self.projection is not None
        x, y = student.double(), taught.double()
        square = x.T @ x
        square.diagonal().add_(RIDGE * square.diagonal().mean() + 1e-12)
        self.projection.weight.copy_(torch.linalg.solve(square, x.T @ y).T)
        self.fitted.fill_(True)


def _copies(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs of different rows (i, j) that are equal, both ways: a text has one vector, whichever row it is in."""
    bits = vectors.contiguous().view(torch.int32 if vectors.dtype == torch.float32 else torch.int16).long()
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**62), 2**62, (bits.shape[1],), generator=generator).to(bits.device)
    _, group, counts = torch.unique((bits * factors).sum(1), return_inverse=True, return_counts=True)
    rows = torch.nonzero(counts[group] > 1)[:, 0]
    equal = group[rows].unsqueeze(1) == group[rows]
    i, j = torch.nonzero(equal.fill_diagonal_(False), as_tuple=True)
    return rows[i], rows[j]
