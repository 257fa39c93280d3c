"""Whole-corpus validation from vectors: `nearest` with `from_ranks`, and Sentence Transformers' evaluator.

1,000 queries, 60,000 passages, 256 dimensions. `validate` computes all metrics, for which the ranks of the judged
passages are enough; `validate_top_100` also keeps the 100 best passages of every query, as training does for
``run.trec``. Ours gives the rank of every relevant passage in the whole corpus, and so the uncut MRR; the evaluator
sees the first 100.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from benchmarks.inputs import vectors
from benchmarks.measure import Call, Row, alternate, compare, require_equal
from two_tower.metrics import DEFAULT_METRICS, Qrels, from_ranks, mean
from two_tower.ranking import nearest
from two_tower.similarity import Similarity

NEEDS = ("sentence_transformers",)
CUTS = (1, 5, 10, 100)
# Passages that the evaluator scores at once: its default, and all of them.
CHUNKS = (50_000, 60_000)


def _ours(q_QD: torch.Tensor, d_ND: torch.Tensor, relevant: np.ndarray, k: int) -> dict[str, float]:
    similarity = Similarity("cosine")
    qrels = Qrels(np.arange(len(q_QD)), relevant, np.ones(len(q_QD), np.int32), len(q_QD))
    pairs = (qrels.query_rows, qrels.document_rows)
    ranking = nearest(
        q_QD, lambda part: d_ND[part], len(d_ND), similarity, order=np.arange(len(d_ND)), pairs=pairs, k=k
    )
    return mean(from_ranks(ranking.ranks, qrels, DEFAULT_METRICS))


class _Vectors:
    """What the evaluator needs of a model; a "text" is the row of its vector."""

    similarity_fn_name = "dot"

    def __init__(self, q_QD: torch.Tensor, d_ND: torch.Tensor) -> None:
        from sentence_transformers.util import dot_score

        self.q_QD, self.d_ND, self.similarity = q_QD, d_ND, dot_score
        self.model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *_: None)

    def encode_query(self, rows: list[int], **_: object) -> torch.Tensor:
        return self.q_QD[rows[0] : rows[-1] + 1]

    def encode_document(self, rows: list[int], **_: object) -> torch.Tensor:
        return self.d_ND[rows[0] : rows[-1] + 1]


def _evaluator(queries: int, documents: int, relevant: np.ndarray, chunk: int) -> Any:  # noqa: ANN401
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    return InformationRetrievalEvaluator(
        {f"q{row}": row for row in range(queries)},
        {f"d{row}": row for row in range(documents)},
        {f"q{row}": {f"d{document}"} for row, document in enumerate(relevant)},
        corpus_chunk_size=chunk,
        mrr_at_k=[10],
        ndcg_at_k=[10],
        accuracy_at_k=[1],
        precision_recall_at_k=list(CUTS),
        map_at_k=[10],
        write_csv=False,
    )


def run(quick: bool = False) -> list[Row]:
    """The rows ``validate`` and ``validate_top_100``."""
    queries, documents = (20, 500) if quick else (1000, 60_000)
    q, d, relevant = vectors(queries, documents, 256)
    q_QD, d_ND = torch.from_numpy(q), torch.from_numpy(d)
    model = _Vectors(q_QD, d_ND)
    ours = _ours(q_QD, d_ND, relevant, max(CUTS))
    mine = {"ours": 0, "ours, top 100": max(CUTS)}
    contestants: dict[str, Call] = {name: partial(_ours, q_QD, d_ND, relevant, k) for name, k in mine.items()}
    for chunk in CHUNKS:
        name = f"InformationRetrievalEvaluator, chunks of {chunk:,}"
        evaluator = _evaluator(queries, documents, relevant, chunk)
        contestants[name] = partial(evaluator, model)
        theirs = evaluator(model)
        for metric in ("mrr@10", "ndcg@10", *(f"recall@{k}" for k in CUTS)):
            # Two products may round a pair of all but equal scores differently and swap two passages.
            require_equal(f"{metric} of {name}", np.array(ours[metric]), np.array(theirs[f"dot_{metric}"]), 1e-4)
    rates = alternate(contestants, queries, rounds=5, quick=quick)
    peers = [name for name in rates if name not in mine]
    return [
        compare("validate", "queries/s", rates, "ours", peers),
        compare("validate_top_100", "queries/s", rates, "ours, top 100", peers),
    ]
