"""Queries whose answer depends on the order of their words."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from benchmarks.peers import opened, rank_by, teacher_encoder
from benchmarks.subsets import write_qrels
from two_tower.cache import cache_folder, key_of
from two_tower.data.beir import Beir
from two_tower.metrics import from_ranks

WORSE = 0.5  # reciprocal rank that a query loses with its words in another order


def order_matters(folder: Path, split: str) -> Path:
    """A BEIR folder with the same passages and a split ``order``: those queries of a split that need their order.

    They are those that the teacher answers worse by `WORSE` when it reads their words in another order, drawn from a
    seed. So it chooses, and its own figures on them are too high; those of towers stand beside each other.
    """
    source = Beir(folder)
    path = cache_folder() / "experiments" / f"order-{key_of(source.fingerprint(), split, WORSE)}"
    if (path / "qrels" / "order.tsv").exists():
        return path
    _, corpus, queries = opened(source, split)
    encode, texts = teacher_encoder(), queries.texts.to_pylist()
    passages = encode(corpus.texts().to_pylist())

    def reciprocal_ranks(its: list[str]) -> np.ndarray:
        ranking = rank_by(encode(its), passages, corpus, queries)
        return from_ranks(ranking.ranks, queries.qrels, ["mrr@10"], queries.threshold)["mrr@10"]

    lost = reciprocal_ranks(texts) - reciprocal_ranks(_shuffled(texts))
    chosen = {queries.ids[row].as_py() for row in np.flatnonzero(lost >= WORSE)}
    (path / "qrels").mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.jsonl*"):
        (path / file.name).unlink(missing_ok=True)
        (path / file.name).symlink_to(file.resolve())
    rows = [row for row in source.qrels(split).to_pylist() if row["query_id"] in chosen]
    write_qrels(path, "order", [(row["query_id"], row["document_id"], row["grade"]) for row in rows])
    return path


def _shuffled(texts: list[str]) -> list[str]:
    rng = random.Random(0)
    return [" ".join(rng.sample(words, len(words))) for words in map(str.split, texts)]
