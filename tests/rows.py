"""What a data source gave, as plain Python values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from two_tower.data.base import Source


def values(table: pa.Table | Iterable[pa.RecordBatch] | None) -> list[tuple[Any, ...]]:
    """The rows of a table, or of batches, as tuples; none for None and for no batches."""
    if not isinstance(table, pa.Table):
        batches = list(table or ())
        if not batches:
            return []
        table = pa.Table.from_batches(batches)
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def everything(source: Source) -> list[list[tuple[Any, ...]]]:
    """Passages, each split's judgements and queries, and triplets."""
    splits = [values(part) for split in source.splits() for part in (source.qrels(split), source.queries(split))]
    return [values(source.corpus()), *splits, values(source.triplets()), values(source.text_triplets())]


def bad_kinds(source: Source) -> dict[str, int]:
    """How many rows of each kind were left out of what was read."""
    return {kind: count for bad in source.bad_rows.values() for kind, count in bad.counts.items()}


def bad_summary(source: Source) -> str:
    """What was left out of what was read, in words; empty where every row was good."""
    return "; ".join(summary for bad in source.bad_rows.values() if (summary := bad.summary()))
