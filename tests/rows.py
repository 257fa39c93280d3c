"""What a data source gave, as plain Python values."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
import pytest

from two_tower.data.base import Source
from two_tower.errors import UserError


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
    found = [values(source.corpus())]  # first: judgements are then checked against the passages
    for split in source.splits():
        found += [values(source.qrels(split)), values(source.queries(split))]
    return [*found, values(source.triplets()), values(source.text_triplets())]


def bad_kinds(source: Source) -> dict[str, int]:
    """How many rows of each kind were left out of what was read."""
    return {kind: count for bad in source.bad_rows.values() for kind, count in bad.counts.items()}


def bad_summary(source: Source) -> str:
    """What was left out of what was read, in words; empty where every row was good."""
    return "; ".join(summary for bad in source.bad_rows.values() if (summary := bad.summary()))


def check_bad_row(
    make: Callable[..., Source],
    expected: list[list[tuple[Any, ...]]],
    message: str,
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A bad row is an error that names it; with a higher limit it is left out, counted and warned of once.

    Args:
        make: the source, given ``max_bad_rows`` or not.
        expected: `everything` without the row.
        message: a regular expression for file, number and kind of the row.
        kind: what it is counted as.
        caplog: the test's.
    """
    with pytest.raises(UserError, match=message) as error:
        everything(make())
    assert "\n" not in str(error.value)
    tolerant = make(max_bad_rows=0.5)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):  # a second reading counts nothing twice
            assert everything(tolerant) == expected
    assert bad_kinds(tolerant) == {kind: 1}
    assert sum(re.search(message, record.getMessage()) is not None for record in caplog.records) == 1
