"""Approximate search: single queries on one thread, ``index=hnsw`` with a recall@10 of 0.99, and FAISS's exact search.

200,000 passages of real words as 256-dimensional vectors of an average tower that was trained on such text
(``data=pydocs``); queries are the first words of other passages. The build chooses the search's effort on one half of
the queries, and says what it reaches on the other half.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.inputs import passages, tokenizer
from benchmarks.measure import Row, alternate, compare
from benchmarks.vectors import random_tower, write_store
from two_tower.console import say
from two_tower.encode import Encoder
from two_tower.index import VectorIndex, load_index, make_index
from two_tower.index.faiss import faiss_threads
from two_tower.run import Run

PASSAGES, QUERIES, QUERY_WORDS, K = 200_000, 1000, 8, 10
TARGET = 0.99
HNSW = {"_target_": "two_tower.index.faiss.HnswIndex", "target_recall": TARGET}
FLAT = {"_target_": "two_tower.index.faiss.FlatIndex"}


def _trained(folder: Path) -> Encoder:
    """An average tower after three epochs on the documentation of the installed packages."""
    train = Path(__file__).parent.parent / "train.py"
    command = [sys.executable, str(train), f"run_dir={folder}", "trainer.max_epochs=3", "trainer=cpu"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return Encoder.load(Run.existing(folder))


def _each(index: VectorIndex, q_QD: np.ndarray) -> None:
    for query in q_QD:
        index.search(query[None], K)


def run(quick: bool = False) -> list[Row]:
    """The row ``index_hnsw``."""
    texts, indexes = passages((2000 if quick else PASSAGES) + QUERIES, quick), []
    with tempfile.TemporaryDirectory() as place:
        encoder = random_tower(tokenizer(quick)) if quick else _trained(Path(place, "run"))
        store = write_store(Path(place, "store"), encoder.documents(texts[:-QUERIES]), texts[:-QUERIES])
        q_QD = encoder.queries([" ".join(text.split()[:QUERY_WORDS]) for text in texts[-QUERIES:]])
        for config in (FLAT, HNSW):
            report = make_index(config, store, (q_QD, "queries, the first words of passages"))
            say(f"index_hnsw: {report}", style="dim")
            indexes.append(load_index(store.path))
        if not report.target_reached:
            raise RuntimeError(f"recall@{K} is {report.recall:.3f}, less than {TARGET}")
        exact, graph = indexes
        some = q_QD[: 5 if quick else 100]
        contestants = {"ours": lambda: _each(graph, some), "faiss.IndexFlatIP": lambda: _each(exact, some)}
        with faiss_threads(1):
            rates = alternate(contestants, len(some), rounds=5, quick=quick)
    return [compare("index_hnsw", "queries/s", rates, "ours", ["faiss.IndexFlatIP"])]
