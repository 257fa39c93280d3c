"""What trec_eval defines: the order of ids among equal scores, and the format of run files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.files import atomic_path
from two_tower.ranking.base import Ranking

Ids: TypeAlias = pa.Array | pa.ChunkedArray | Sequence[str]


def id_order(ids: Ids) -> np.ndarray:
    """(N,) int64, each unique id's place in ascending order of its UTF-8 bytes (C's strcmp, as in trec_eval)."""
    ascending = pc.sort_indices(_strings(ids)).to_numpy()
    places = np.empty(len(ascending), np.int64)
    places[ascending] = np.arange(len(ascending))
    return places


def write_run(path: str | os.PathLike[str], query_ids: Ids, document_ids: Ids, ranking: Ranking, tag: str) -> None:
    """Write a ranking as a TREC run file: lines ``query Q0 document rank score tag``, all or nothing.

    Scores are written as ``%.9g``, so they read back equal in float32. Blanks separate the fields, so white space
    inside an id or the tag is written as ``_``.

    Args:
        path: the file.
        query_ids: (Q,) ids of the ranking's queries.
        document_ids: (N,) ids of the corpus.
        ranking: with k > 0.
        tag: the name of the run.
    """
    retrieved = ranking.rows >= 0
    documents = iter(_strings(document_ids).take(pa.array(ranking.rows[retrieved])).to_pylist())
    scores = iter(ranking.scores[retrieved].tolist())
    with atomic_path(Path(path)) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        for query, hits in zip(_strings(query_ids).to_pylist(), retrieved.sum(1).tolist(), strict=True):
            for place in range(1, hits + 1):
                fields = (_field(query), "Q0", _field(next(documents)), str(place), f"{next(scores):.9g}")
                file.write(f"{' '.join(fields)} {_field(tag)}\n")


def _strings(ids: Ids) -> pa.Array | pa.ChunkedArray:
    return ids if isinstance(ids, pa.Array | pa.ChunkedArray) else pa.array(ids, pa.string())


def _field(text: str) -> str:
    return re.sub(r"\s", "_", text)
