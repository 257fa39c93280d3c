"""What a loss learns from beside judgements: the teacher's vectors of the texts of a batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from two_tower.cache import key_of
from two_tower.data.stream.module import TripletData
from two_tower.errors import UserError
from two_tower.teacher._vectors import TeacherVectors, teacher_vectors
from two_tower.teacher.base import Teacher

__all__ = ["Lesson", "Lessons"]


class Lesson(NamedTuple):
    """A batch as the student and as the teacher see it.

    Attributes:
        queries: (B, D) of the student, prepared for the similarity; None where only the scores are to be judged.
        documents: (N, D) of the student; None likewise.
        taught_queries: (B, T) float32 of length 1, of the teacher; None without one.
        taught_documents: (N, T) of the teacher; None likewise.
        margins: (B, G) float32, what a teacher's score of each positive is above those of the query's own G documents,
            B + i G and following for query i; None where the data brings no scores.
    """

    queries: Tensor | None
    documents: Tensor | None
    taught_queries: Tensor | None = None
    taught_documents: Tensor | None = None
    margins: Tensor | None = None

    def of_scores(self) -> Lesson:
        """The same without the student's vectors, for scores of shortened ones."""
        return self._replace(queries=None, documents=None)


class Lessons:
    """The teacher's vectors of all training queries and passages.

    Args:
        queries: by the rows of the training queries, pseudo-queries behind them.
        documents: by the rows of the corpus.
    """

    def __init__(self, queries: TeacherVectors, documents: TeacherVectors) -> None:
        self._queries, self._documents = queries, documents

    @classmethod
    def prepare(cls, teacher: Teacher, data: TripletData) -> Lessons:
        """Encode what is not in the cache yet; of queries only those that are trained on.

        Raises:
            UserError: the data trains on triplets of texts, which have no rows.
        """
        if data.trains_on_texts:
            raise UserError(
                f"loss=distillation learns of passages and queries by their rows, and {data.source.name} trains on "
                "triplets of texts: use another negatives= than given."
            )
        corpus = teacher_vectors(teacher, data.corpus.texts(), "passages", data.source.fingerprint())
        name = key_of(data.source.fingerprint(), data.train_split, data.train.texts.to_pylist())
        queries = [teacher_vectors(teacher, data.train.texts, "queries", name)]
        if data.pseudo is not None:
            name = key_of(data.source.fingerprint(), data.pseudo.texts.to_pylist())
            queries.append(teacher_vectors(teacher, data.pseudo.texts, "pseudo-queries", name))
        return cls(TeacherVectors.joined(queries), corpus)

    def __call__(self, queries: Tensor, documents: Tensor, query_rows: Tensor, document_rows: Tensor) -> Lesson:
        """The lesson of a batch.

        Args:
            queries: (B, D) of the student.
            documents: (N, D) of the student.
            query_rows: (B,) int64.
            document_rows: (N,) int64.
        """
        taught = [
            torch.from_numpy(vectors.take(rows.cpu().numpy())).to(queries.device)
            for vectors, rows in ((self._queries, query_rows), (self._documents, document_rows))
        ]
        return Lesson(queries, documents, *taught)
