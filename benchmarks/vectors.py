"""An encoder and a store without a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from two_tower.encode import Encoder
from two_tower.model import TwoTower
from two_tower.similarity import Similarity
from two_tower.store import Manifest, VectorStore
from two_tower.tokenizer.base import Tokenizer
from two_tower.tower.average import AverageTower
from two_tower.tower.base import WordTable

DIM, SHARD = 256, 65_536


def random_tower(words: Tokenizer) -> Encoder:
    """An untrained average tower of 256 dimensions, by which near means to share words."""
    table = WordTable(len(words), DIM)
    table.initialize(torch.randn(len(words), DIM, generator=torch.Generator().manual_seed(0)), None)
    tower = AverageTower(table, DIM)
    return Encoder(TwoTower(tower, tower, Similarity("cosine")), words)


def write_store(folder: Path, d_ND: np.ndarray, texts: Sequence[str]) -> VectorStore:
    """A complete store of vectors and their passages, whose ids are the row numbers."""
    store = VectorStore(folder, Manifest("", "", "", "cosine", d_ND.shape[1], SHARD))
    for number, start in enumerate(range(0, len(d_ND), SHARD)):
        part = slice(start, start + SHARD)
        ids = pa.array([str(start + row) for row in range(len(d_ND[part]))])
        columns = {"id": ids, "title": pa.array([""] * len(ids)), "text": pa.array(texts[part], pa.string())}
        store.write(number, d_ND[part], pa.table(columns))
    store.finish()
    return store
