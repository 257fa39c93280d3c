"""Files for a data source to read, and what it gave, as plain Python values."""

import csv
import gzip
import io
import json
import logging
import re
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from two_tower.data.base import CORPUS, QRELS, QUERIES, SCORED_TRIPLETS, TEXT_TRIPLETS, TRIPLETS, Source
from two_tower.errors import UserError

Values = list[tuple[Any, ...]]


def write_text(path: Path, text: str | bytes) -> Path:
    """A file in a folder that may be new; compressed where its name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_rows(path: Path, rows: Sequence[dict[str, Any]], schema: pa.Schema | None = None) -> Path:
    """A file of the kind that its name says, with the columns of the first row."""
    if path.suffix == ".parquet":
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(list(rows), schema), path)
        return path
    lines, text = [list(rows[0]), *(list(row.values()) for row in rows)], io.StringIO()
    if ".json" in path.name:
        text.writelines(json.dumps(row) + "\n" for row in rows)
    elif ".tsv" in path.name:
        text.writelines("\t".join(map(str, line)) + "\n" for line in lines)
    else:
        csv.writer(text, delimiter=";" if "semicolon" in path.name else ",").writerows(lines)
    return write_text(path, text.getvalue())


def pack(path: Path, files: Mapping[str, bytes], part_size: int | None = None) -> Path:
    """A .tar.gz, as one compressed stream or as many of ``part_size`` bytes each."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    data = plain.getvalue()
    size = part_size or len(data)
    path.write_bytes(b"".join(gzip.compress(data[i : i + size]) for i in range(0, len(data), size)))
    return path


def values(table: pa.Table | Iterable[pa.RecordBatch] | None, *schemas: pa.Schema) -> Values:
    """The rows of a table, or of batches, as tuples; none for None and for no batches."""
    if not isinstance(table, pa.Table):
        batches = list(table or ())
        if not batches:
            return []
        table = pa.Table.from_batches(batches)
    assert not schemas or table.schema in schemas
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def everything(source: Source) -> list[Values]:
    """Passages, each split's judgements and queries, triplets and triplets of texts, each of its schema."""
    found = [values(source.corpus(), CORPUS)]  # first: judgements are then checked against the passages
    for split in source.splits():
        found += [values(source.qrels(split), QRELS), values(source.queries(split), QUERIES)]
    triplets = values(source.triplets(), TRIPLETS, SCORED_TRIPLETS)
    return [*found, triplets, values(source.text_triplets(), TEXT_TRIPLETS)]


def bad_kinds(source: Source) -> dict[str, int]:
    """How many rows of each kind were left out of what was read."""
    return {kind: count for bad in source.bad_rows.values() for kind, count in bad.counts.items()}


def bad_summary(source: Source) -> str:
    """What was left out of what was read, in words; empty where every row was good."""
    return "; ".join(summary for bad in source.bad_rows.values() if (summary := bad.summary()))


def check_refused(call: Callable[[], Any], message: str) -> None:
    """A mistake is answered in one line."""
    with pytest.raises((UserError, ValueError), match=message) as error:
        call()
    assert "\n" not in str(error.value)


def check_split_refused(source: Source, split: str, message: str) -> None:
    """Neither judgements nor queries of the split can be had."""
    for method in (source.qrels, source.queries):
        check_refused(lambda method=method: method(split), message)


def check_bad_row(
    make: Callable[..., Source], expected: list[Values], message: str, kind: str, log: pytest.LogCaptureFixture
) -> None:
    """A bad row is an error that names it; with a higher limit it is left out, counted and warned of once.

    ``make`` takes ``max_bad_rows``; ``expected`` is `everything` without the row; ``message``, a regular expression,
    names file, number and kind of the row.
    """
    check_refused(lambda: everything(make()), message)
    tolerant = make(max_bad_rows=0.5)
    with log.at_level(logging.WARNING):
        for _ in range(2):  # a second reading counts nothing twice
            assert everything(tolerant) == expected
    assert bad_kinds(tolerant) == {kind: 1}
    assert sum(re.search(message, record.getMessage()) is not None for record in log.records) == 1
