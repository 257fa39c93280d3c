"""`data=pydocs`: the documentation of the installed Python packages; nothing is downloaded."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from two_tower.cache import cache_folder
from two_tower.data.base import CORPUS, QRELS, QUERIES, Source
from two_tower.data.pydocs.docstring import Doc
from two_tower.data.pydocs.harvest import harvest, source_files, versions
from two_tower.errors import UserError, one_of

__all__ = ["PyDocs"]

RULES = 1  # raise whenever the harvest gives other texts, so that no cache of older rules is read
PASSAGE_WORDS = 120  # the start of a docstring says what it does; the rest is details and examples
MIN_PAIRS = 2000  # fewer means that sources are missing, and such a corpus teaches nothing
ROWS_PER_BATCH = 4096

_CACHE = pa.schema([(column, pa.string()) for column in Doc._fields])
_log = logging.getLogger(__name__)


class PyDocs(Source):
    """Find the documented function from the first sentence of its documentation.

    A query is a docstring's first sentence, its passage the dotted name and the rest (first 120 words); the
    sentence itself is no part of the passage. About 9,190 pairs with the standard library of Python 3.11 and
    7,580 without; other versions of Python and of the packages give slightly other texts, but a name keeps
    its split. Sources are parsed, never imported. The first harvest takes 10 s; its result is cached.

    Args:
        stdlib: read the standard library too.
        cache: folder of the cache file; by default `cache_folder`.

    Attributes:
        name: ``pydocs``.
    """

    name = "pydocs"

    def __init__(self, stdlib: bool = True, cache: str | None = None) -> None:
        self.stdlib = stdlib
        self.cache = Path(cache).expanduser() if cache else cache_folder()

    def corpus(self) -> Iterator[pa.RecordBatch]:
        """The passages without the sentences that are their queries; title is the dotted name."""
        return self._passages(self._pairs["body"])

    def search_corpus(self) -> Iterator[pa.RecordBatch]:
        """The passages with their first sentence in front, as a person wants to see and find them."""
        both = zip(self._pairs["summary"].to_pylist(), self._pairs["body"].to_pylist(), strict=True)
        return self._passages(pa.array([f"{summary} {body}" for summary, body in both], pa.string()))

    def splits(self) -> tuple[str, ...]:
        """All three: 88 % train, 4 % dev, 8 % test."""
        return ("train", "dev", "test")

    def queries(self, split: str) -> pa.Table:
        """One query for each passage of the split; its id is ``q:`` and the passage's id."""
        rows = self._rows(split)
        summaries = self._pairs["summary"].take(pa.array(rows, pa.int64()))
        return pa.table([pa.array([f"q:{self._ids[row]}" for row in rows], pa.string()), summaries], QUERIES)

    def qrels(self, split: str) -> pa.Table:
        """Each query's own passage, with grade 1."""
        documents = [self._ids[row] for row in self._rows(split)]
        return pa.table([[f"q:{d}" for d in documents], documents, [1] * len(documents)], QRELS)

    def fingerprint(self) -> str:
        """Hash of the rules' version and every name, summary and body."""
        digest = hashlib.blake2b(f"pydocs {RULES}".encode(), digest_size=8)
        for column in self._pairs.columns:
            # No text holds a line break, so ("ab", "c") and ("a", "bc") differ.
            digest.update("\n".join(column.to_pylist()).encode())
        return digest.hexdigest()

    @cached_property
    def _pairs(self) -> pa.Table:
        """The harvest, sorted by name: rows of name, kind, summary, body (cut to a passage's length)."""
        path = self.cache / f"pydocs-{self._key()}.parquet"
        table = _load(path)
        if table is None:
            table = _harvest_table(self.stdlib)
            _save(table, path)
        return table

    @cached_property
    def _ids(self) -> list[str]:
        """The name; from its second occurrence on with a number, ``name#2`` (overloads, one in 400)."""
        seen: Counter[str] = Counter()
        ids = []
        for name in self._pairs["name"].to_pylist():
            seen[name] += 1
            ids.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
        return ids

    def _passages(self, texts: pa.Array | pa.ChunkedArray) -> Iterator[pa.RecordBatch]:
        table = pa.table([pa.array(self._ids, pa.string()), self._pairs["name"], texts], CORPUS)
        yield from table.combine_chunks().to_batches(ROWS_PER_BATCH)

    def _rows(self, split: str) -> list[int]:
        if split not in self.splits():
            raise UserError(f"data=pydocs has no split {split!r}: {one_of(split, self.splits())}")
        return [row for row, name in enumerate(self._pairs["name"].to_pylist()) if _split_of(name) == split]

    def _key(self) -> str:
        """What the cached texts depend on, as a short hash."""
        python = [f"python=={sys.version_info.major}.{sys.version_info.minor}"] if self.stdlib else []
        parts = "\n".join([f"rules=={RULES}", *python, *versions()])
        return hashlib.blake2b(parts.encode(), digest_size=8).hexdigest()


def _split_of(name: str) -> str:
    """A split that depends on the name alone: a pair keeps it when packages or versions change."""
    bucket = int(hashlib.sha1(name.encode()).hexdigest()[:8], 16) % 100
    return "test" if bucket < 8 else "dev" if bucket < 12 else "train"


def _harvest_table(stdlib: bool) -> pa.Table:
    docs = harvest(list(source_files(stdlib)), _progress)
    if len(docs) < MIN_PAIRS:
        raise UserError(
            f"data=pydocs found only {len(docs)} documented names in the installed packages and needs "
            f"{MIN_PAIRS}, so their .py sources are missing or stripped: install the requirements from "
            "ordinary wheels, or choose other data, for example data=beir data.path=FOLDER"
        )
    columns = zip(*(d._replace(body=" ".join(d.body.split(" ")[:PASSAGE_WORDS])) for d in docs), strict=True)
    return pa.table([pa.array(column, pa.string()) for column in columns], _CACHE)


def _progress(results: Iterable[list[Doc]], total: int) -> Iterable[list[Doc]]:
    """A bar on stderr while the results come, only where a person watches."""
    if not sys.stderr.isatty():
        return results
    from rich.console import Console
    from rich.progress import track

    text = "Reading the installed packages' documentation (once)"
    return track(results, text, total, console=Console(stderr=True), transient=True)


def _load(path: Path) -> pa.Table | None:
    """The cached harvest, or None where there is none that can be read."""
    if not path.exists():
        return None
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        if table.schema.equals(_CACHE) and len(table) >= MIN_PAIRS:
            return table
        reason = "it holds something else"
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error)
    _log.warning("rebuilding the damaged cache file %s: %s", path, reason)
    return None


def _save(table: pa.Table, path: Path) -> None:
    """Write under another name and rename: whoever reads meanwhile sees a whole file or none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
        try:
            pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("the harvest is not cached and will be repeated: %s", error)
