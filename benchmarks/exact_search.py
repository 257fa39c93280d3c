"""Exact search: the 100 nearest of 60,000 vectors (256 dimensions) for 1,000 queries, `nearest` and FAISS.

``index=flat`` searches with FAISS itself; validation and mining use `nearest`, which also knows ties and ranks.
"""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.inputs import vectors
from benchmarks.measure import Row, alternate, compare, require_equal
from two_tower.ranking import Ranking, nearest
from two_tower.similarity import Similarity

K = 100


def _ours(q_QD: torch.Tensor, d_ND: torch.Tensor) -> Ranking:
    order = np.arange(len(d_ND))
    return nearest(q_QD, lambda part: d_ND[part], len(d_ND), Similarity("dot"), order=order, k=K)


def run(quick: bool = False) -> list[Row]:
    """The row ``exact_search``."""
    import faiss  # late: on macOS faiss and torch both bring OpenMP, and faiss must come second

    q, d, _ = vectors(*((20, 500) if quick else (1000, 60_000)), 256)
    q_QD, d_ND = torch.from_numpy(q), torch.from_numpy(d)
    index = faiss.IndexFlatIP(d.shape[1])
    index.add(d)
    require_equal("scores of faiss", _ours(q_QD, d_ND).scores, index.search(q, K)[0], 1e-5)
    contestants = {"ours": lambda: _ours(q_QD, d_ND), "faiss.IndexFlatIP": lambda: index.search(q, K)}
    rates = alternate(contestants, len(q), rounds=5, quick=quick)
    return [compare("exact_search", "queries/s", rates, "ours", ["faiss.IndexFlatIP"])]
