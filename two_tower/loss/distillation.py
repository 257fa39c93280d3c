"""Learn from a teacher's vectors instead of judgements."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from two_tower.errors import UserError
from two_tower.loss.base import Loss, LossOutput, TaughtLoss, at_least_float32, score_diagnostics
from two_tower.loss.in_batch import InBatchLoss
from two_tower.teacher.base import Teacher
from two_tower.teacher.lessons import Lesson

__all__ = ["DistillationLoss"]

SAME = 0.9999  # cosine of two of the teacher's vectors that are of equal texts
RIDGE = 1e-3  # of the first projection, in relation to the vectors' mean square


class DistillationLoss(TaughtLoss):
    """A weighted sum of four ways to resemble a teacher.

    - ``cosine``: ``2 - cos(q_i, Q_i) - cos(d_j, D_j)``, means over the batch; q and d are the student's vectors, Q
      and D the teacher's. Where their dimensions differ, the student's go through a linear map, which is learned
      with them and starts as the best one for the first batch (ridge regression).
    - ``kl``: how far the softmax of the student's similarities of a query with all documents is from the teacher's,
      ``KL(softmax(Q D / t) || softmax(s / t))``, mean over the queries.
    - ``contrastive``: each of the student's documents must find its own teacher vector among the batch's,
      cross-entropy over ``cos(d_i, D_j) / t``; equal texts are no rivals.
    - ``margin``: mean squared difference of ``s_ii - s_ij`` and the teacher's, over the candidates j.

    Requirements:
        ``teacher=``, and data with passages and queries of its own. Judgements only say which query and passage come
        into a batch together; pseudo-queries (``data.pseudo_queries``) bring in passages without any.
    Inputs:
        Scores (B, N), candidates (B, N) and the teacher's vectors of the batch, see `TaughtLoss.forward`.
    When to use:
        When a good model exists that is too slow to serve: word vectors learn from it in a minute what twelve
        thousand judged pairs cannot teach them.
    Relations:
        `two_tower.loss.margin_mse.MarginMSELoss` learns from scores that the data brings. ``loss=sum`` adds
        `two_tower.loss.in_batch.InBatchLoss` on the same batch. In a `two_tower.loss.matryoshka.MatryoshkaLoss`
        shortened vectors learn from ``kl`` and ``margin`` alone.
    Source:
        Hinton et al. 2015, arXiv:1503.02531; Reimers and Gurevych 2020, arXiv:2004.09813 (vectors); Hofstätter et al.
        2020, arXiv:2010.02666 (margins).

    Args:
        teacher: says how many dimensions its vectors have.
        dim: of the student's vectors.
        cosine: weight.
        kl: weight.
        contrastive: weight.
        margin: weight.
        temperature: t, by which similarities are divided.

    Raises:
        UserError: a negative weight, none above 0, or a temperature that is not positive.
    """

    def __init__(
        self,
        teacher: Teacher,
        dim: int,
        cosine: float = 1.0,
        kl: float = 0.2,
        contrastive: float = 1.0,
        margin: float = 0.0,
        temperature: float = 0.05,
    ) -> None:
        super().__init__()
        self.weights = {"cosine": cosine, "kl": kl, "contrastive": contrastive, "margin": margin}
        for name, weight in self.weights.items():
            if weight < 0:
                raise UserError(f"loss.{name}={weight} must be at least 0.")
        if not any(self.weights.values()):
            raise UserError("Nothing is left to learn from: set loss.cosine, kl, contrastive or margin above 0.")
        if temperature <= 0:
            raise UserError(f"loss.temperature={temperature} must be above 0.")
        self.temperature = temperature
        self.fitted: Tensor
        width = teacher.dim
        self.projection = nn.Linear(dim, width, bias=False) if width != dim else None
        self.register_buffer("fitted", torch.tensor(width == dim))

    @property
    def of_scores(self) -> Loss:
        """Finding the positive among the candidates at the same temperature."""
        return InBatchLoss(self.temperature)

    def forward(self, scores_BN: Tensor, candidates_BN: Tensor, lesson: Lesson | None = None) -> LossOutput:
        """See `TaughtLoss.forward`."""
        if lesson is None or lesson.taught_queries is None or lesson.taught_documents is None:
            raise ValueError("A distillation needs the teacher's vectors of the batch.")
        scores_BN, taught = at_least_float32(scores_BN), (lesson.taught_queries, lesson.taught_documents)
        taught_BN = taught[0] @ taught[1].T
        terms = self._of_scores(scores_BN, taught_BN, candidates_BN)
        if lesson.queries is not None and lesson.documents is not None:
            terms |= self._of_vectors((lesson.queries, lesson.documents), taught)
        loss = torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()
        diagnostics = score_diagnostics(scores_BN, candidates_BN)
        return LossOutput(loss, diagnostics | {name: value.detach() for name, value in terms.items()})

    def _of_scores(self, scores_BN: Tensor, taught_BN: Tensor, candidates_BN: Tensor) -> dict[str, Tensor]:
        terms = {}
        if self.weights["kl"]:
            student, teacher = (torch.log_softmax(s / self.temperature, 1) for s in (scores_BN, taught_BN))
            terms["kl"] = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        if self.weights["margin"]:
            margins = (s.diagonal().unsqueeze(1) - s for s in (scores_BN, taught_BN))
            student, teacher = (torch.where(candidates_BN, margin, 0) for margin in margins)
            terms["margin"] = (student - teacher).square().sum() / candidates_BN.sum().clamp(min=1)
        return terms

    def _of_vectors(self, own: tuple[Tensor, Tensor], taught: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """The terms of the vectors of queries and documents, the student's and the teacher's."""
        if not self.fitted:
            self._fit(torch.cat(own), torch.cat(taught))
        q_BT, d_NT = (F.normalize(self._mapped(at_least_float32(v)), dim=1) for v in own)
        terms = {}
        if self.weights["cosine"]:
            cosines = [(v * w).sum(1).mean() for v, w in zip((q_BT, d_NT), taught, strict=True)]
            terms["cosine"] = 2 - torch.stack(cosines).sum()
        if self.weights["contrastive"]:
            rivals = taught[1] @ taught[1].T < SAME
            rivals.fill_diagonal_(True)
            logits = torch.where(rivals, d_NT @ taught[1].T / self.temperature, -torch.inf)
            terms["contrastive"] = F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))
        return terms

    def _mapped(self, vectors: Tensor) -> Tensor:
        return F.linear(vectors, self.projection.weight) if self.projection is not None else vectors

    @torch.no_grad()
    def _fit(self, student: Tensor, taught: Tensor) -> None:
        """Start the projection as the map that fits these vectors best."""
        assert self.projection is not None
        x, y = student.double(), taught.double()
        square = x.T @ x
        square.diagonal().add_(RIDGE * square.diagonal().mean() + 1e-12)
        self.projection.weight.copy_(torch.linalg.solve(square, x.T @ y).T)
        self.fitted.fill_(True)
