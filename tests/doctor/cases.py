"""Failures to inject, with what the doctor must call them, and runs with which nothing is wrong."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from two_tower.data.pydocs.pydocs import PyDocs
from two_tower.data.source import full_text

# A small but real run: documentation of Python packages, 50 steps of 32 pairs.
SMALL = [
    "data=beir", "tokenizer=code", "data.batch_size=32", "trainer.max_steps=50", "trainer.max_epochs=2",
    "callbacks.samples.console=never", "validation.depth=10",
]  # fmt: skip
TOWERS = {"average": ["tower=average", "tower.dim=64"], "gru": ["tower=gru", "tower.dim=48"]}

# Fixed before any of them was run. Without triplet + random on pydocs: its negatives really are easy.
PYDOCS, MSMARCO = ["data=pydocs"], ["data=beir", "data.path={msmarco}"]
RECURRENT = ["tower.dim=64", "data.batch_size=256", "trainer.max_epochs=3"]
BEST = ["experiment=best_average", *MSMARCO]
HEALTHY = {
    "average, in-batch, pydocs, seed 0": [*PYDOCS, "seed=0"],
    "average, in-batch, pydocs, seed 1": [*PYDOCS, "seed=1"],
    "average, in-batch, pydocs, seed 2": [*PYDOCS, "seed=2"],
    "average, in-batch + BM25 negatives, pydocs": [*PYDOCS, "negatives=bm25"],
    "average, in-batch + random negatives, pydocs": [*PYDOCS, "negatives=random"],
    "average, triplet in batch, pydocs, seed 0": [*PYDOCS, "loss=triplet", "seed=0"],
    "average, triplet in batch, pydocs, seed 1": [*PYDOCS, "loss=triplet", "seed=1"],
    "average, in-batch, GloVe, pydocs": [*PYDOCS, "embedding=glove"],
    "average, in-batch, separate towers, pydocs": [*PYDOCS, "shared_towers=false"],
    "average, in-batch, dot product, pydocs": [*PYDOCS, "similarity=dot"],
    "best_average, MS MARCO sample, seed 0": [*BEST, "seed=0"],
    "best_average, MS MARCO sample, seed 1": [*BEST, "seed=1"],
    "best_average, triplet + BM25 negatives, MS MARCO sample": [*BEST, "loss=triplet", "negatives=bm25"],
    "GRU, in-batch, pydocs, seed 0": [*PYDOCS, "tower=gru", *RECURRENT, "seed=0"],
    "GRU, in-batch, pydocs, seed 1": [*PYDOCS, "tower=gru", *RECURRENT, "seed=1"],
    "GRU, triplet in batch, pydocs": [*PYDOCS, "tower=gru", *RECURRENT, "loss=triplet"],
    "GRU, in-batch, GloVe, MS MARCO sample": [*MSMARCO, "tower=gru", *RECURRENT, "embedding=glove"],
    "LSTM, in-batch, pydocs": [*PYDOCS, "tower=lstm", *RECURRENT],
    "LSTM, in-batch, GloVe, MS MARCO sample": [*MSMARCO, "tower=lstm", *RECURRENT, "embedding=glove"],
    "RNN, in-batch, pydocs": [*PYDOCS, "tower=rnn", *RECURRENT],
}
