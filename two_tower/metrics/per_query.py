"""``per_query.csv``: every validation query's metrics, for significance tests and to look at.

Columns: ``query``, perhaps ``text``, then the metrics, those of BM25 as ``bm25/METRIC``. Numbers read back equal.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from two_tower.errors import UserError
from two_tower.files import atomic_path


class PerQuery(NamedTuple):
    """What the file holds of Q queries, in the order of the split."""

    ids: list[str]
    values: dict[str, np.ndarray]  # ``METRIC`` and ``bm25/METRIC`` → (Q,) float64
    texts: list[str]  # empty if the file has none


def write(path: Path, ids: Sequence[str], values: Mapping[str, np.ndarray], texts: Sequence[str] | None = None) -> None:
    """Write the file, all or nothing: ids of the Q queries, name → (Q,) values, and the texts, for people."""
    columns: list[Sequence[str]] = [ids, *([] if texts is None else [texts])]
    columns += [[repr(v) for v in np.asarray(column, np.float64).tolist()] for column in values.values()]
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)  # lines end as in RFC 4180, so that a lone \r is quoted
        rows.writerow(["query", *([] if texts is None else ["text"]), *values])
        rows.writerows(zip(*columns, strict=True))


def read(path: Path) -> PerQuery:
    """Read the file."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            head, *rows = csv.reader(file)
        columns: dict[str, Sequence[str]] = dict.fromkeys(head, ())
        columns.update(zip(head, zip(*rows, strict=True), strict=False))
        ids, texts = list(columns.pop("query")), list(columns.pop("text", ()))
        return PerQuery(ids, {name: np.array(column, np.float64) for name, column in columns.items()}, texts)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: the run is of an older version or validates nothing.") from error
    except (ValueError, KeyError, csv.Error) as error:
        raise UserError(f"{path} is not a table of queries and their metrics: {error}.") from error
