"""`data=pairs`: a user's own pairs of a query and a passage that answers it, in one file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.cache import file_fingerprint, notice
from two_tower.data.base import CORPUS, QRELS, QUERIES, TRIPLETS
from two_tower.data.reading.columns import ColumnFile, TsvFile, open_columns
from two_tower.data.reading.file_source import FileSource
from two_tower.data.reading.rows import BadRows
from two_tower.data.reading.unique import HashSet, OneText, hash_rows
from two_tower.errors import UserError, one_of

__all__ = ["Pairs"]

# What columns are usually called, best first.
_USUAL = {
    "query": ("query", "question", "anchor", "query_text", "search_query", "sentence1"),
    "passage": ("passage", "document", "positive", "answer", "text", "passage_text", "context", "sentence2"),
    "title": ("title", "passage_title", "document_title"),
    "negative": ("negative", "hard_negative", "negative_passage", "negative_1"),
}
_TEXTS = ("query", "passage", "title", "negative")
_KEYS = {"query": ("query_id", "query"), "passage": ("passage_id", "title", "passage")}
_SPLITS = ("train", "dev")


class _Judged(NamedTuple):
    """All queries, which of them are of dev (Q,) bool, and all judgements."""

    queries: pa.Table
    is_dev: np.ndarray
    qrels: pa.Table


class Pairs(FileSource):
    """Read a CSV, TSV, JSON lines or Parquet file with a query and one passage that answers it in each row.

    Equal passages are one document, equal queries one query with several relevant documents. A part of the
    queries becomes the split ``dev``: which, decides a hash of the query's text (but for case and white space),
    so equal queries are on the same side, and a query stays on its side when the file grows. All passages are
    in the corpus of both. Bad rows (no query or passage, wrong number of columns, invalid UTF-8, an id again
    with another text) are left out and counted up to a limit.

    Args:
        path: the file; ``.csv``, ``.tsv`` (without quoting) and ``.jsonl`` may be compressed (``.gz``). A TSV file of
            two columns needs no header.
        query_column: name of the column with queries; None finds one by its usual names, and so on:
        passage_column: with passages.
        title_column: with the passages' titles, if there is one.
        negative_column: with passages that do not answer the query, if there is one; may be empty in some rows.
        query_id_column: with ids of the queries; None makes them of the texts.
        passage_id_column: with ids of the passages; None makes them of the texts.
        dev_share: the part of the queries that is for validation, between 0 and 1; at least one.
        split_seed: another seed, another split.
        max_bad_rows: the fraction of rows that may be bad before reading is an error.
        repair_encoding: whether to repair UTF-8 that was encoded twice.
        name: short name; by default the file's.

    Raises:
        UserError: the file cannot be read, a column does not exist or cannot be found, a wrong share.
    """

    def __init__(
        self,
        path: str,
        query_column: str | None = None,
        passage_column: str | None = None,
        title_column: str | None = None,
        negative_column: str | None = None,
        query_id_column: str | None = None,
        passage_id_column: str | None = None,
        dev_share: float = 0.1,
        split_seed: int = 0,
        max_bad_rows: float = 0.001,
        repair_encoding: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(max_bad_rows, repair_encoding)
        if not 0 < dev_share < 1:
            raise UserError(f"data.dev_share={dev_share} must be between 0 and 1: validation needs queries of its own")
        self.path, self.dev_share, self.split_seed = Path(path).expanduser(), dev_share, split_seed
        self.name = name or self.path.name.removesuffix(".gz").rpartition(".")[0]
        given = {
            "query": query_column, "passage": passage_column, "title": title_column, "negative": negative_column,
            "query_id": query_id_column, "passage_id": passage_id_column,
        }  # fmt: skip
        self._file, self._columns = _find_columns(open_columns(self.path), given)

    def corpus(self) -> Iterator[pa.RecordBatch]:
        """All passages and negatives, in file order.

        Raises:
            UserError: at the end, where too many rows were bad or there was no pair.
        """
        seen = HashSet()
        for table in self._pairs():
            passages = table.select(["passage_id", "title", "passage"]).rename_columns(CORPUS.names)
            negatives = table.filter(pc.not_equal(table["negative"], ""))
            titles = pa.chunked_array([pa.repeat(pa.scalar(""), len(negatives))])
            others = pa.table([negatives["negative_id"], titles, negatives["negative"]], CORPUS)
            both = pa.concat_tables([passages, others])
            yield from both.filter(pa.array(~seen.add(hash_rows(both["id"])))).to_batches()

    def splits(self) -> tuple[str, ...]:
        """``train`` and ``dev``."""
        return _SPLITS

    def queries(self, split: str) -> pa.Table:
        """The queries of a split, in the order of their first rows."""
        queries, is_dev, _ = self._judged
        return queries.filter(pa.array(is_dev == self._wants_dev(split)))

    def qrels(self, split: str) -> pa.Table:
        """Every pair of a split's queries, with grade 1."""
        wants_dev, qrels = self._wants_dev(split), self._judged.qrels
        return qrels.filter(pa.array(self._is_dev(qrels["query_id"]) == wants_dev))

    def triplets(self) -> Iterator[pa.RecordBatch] | None:
        """The rows of training queries that have a negative, or None without such a column."""
        return self._triplets() if "negative" in self._columns else None

    def fingerprint(self) -> str:
        """Hash of the file's bytes and of how it is read."""
        return self._key(file_fingerprint(self.path), self._columns, self.dev_share, self.split_seed)

    def _triplets(self) -> Iterator[pa.RecordBatch]:
        for table in self._pairs():
            wanted = ~self._is_dev(table["query_id"]) & pc.not_equal(table["negative"], "").to_numpy()
            triplets = table.select(["query_id", "passage_id", "negative_id"]).rename_columns(TRIPLETS.names)
            yield from triplets.filter(pa.array(wanted)).to_batches()

    def _wants_dev(self, split: str) -> bool:
        if split not in _SPLITS:
            raise UserError(f"{self.name} has no split {split!r}: {one_of(split, _SPLITS)}")
        return split == "dev"

    def _is_dev(self, query_ids: pa.ChunkedArray) -> np.ndarray:
        return self._dev_queries.contains(hash_rows(query_ids))

    @cached_property
    def _dev_queries(self) -> HashSet:
        dev = HashSet()
        dev.add(hash_rows(self.queries("dev")["id"]))
        return dev

    @cached_property
    def _judged(self) -> _Judged:
        seen_queries, seen_pairs = HashSet(), HashSet()
        queries, pairs = [], []
        for table in self._pairs():
            asked = table.select(["query_id", "query"]).rename_columns(QUERIES.names)
            queries.append(asked.filter(pa.array(~seen_queries.add(hash_rows(asked["id"])))))
            pair = table.select(["query_id", "passage_id"])
            pairs.append(pair.filter(pa.array(~seen_pairs.add(hash_rows(*pair.columns)))))
        distinct = pa.concat_tables(queries)
        query_ids, document_ids = pa.concat_tables(pairs).columns
        grades = pa.chunked_array([pa.repeat(pa.scalar(1, pa.int32()), len(query_ids))])
        return _Judged(distinct, self._draw(distinct["text"]), pa.table([query_ids, document_ids, grades], QRELS))

    def _draw(self, queries: pa.ChunkedArray) -> np.ndarray:
        """Which queries are of dev, (Q,) bool: at least one is and one is not."""
        key = str(self.split_seed).encode()
        plain = (" ".join(query.casefold().split()).encode() for query in queries.to_pylist())
        hashes = (hashlib.blake2b(text, digest_size=8, key=key).digest() for text in plain)
        draws = np.frombuffer(b"".join(hashes), ">u8")
        if draws.min() == draws.max():
            raise UserError(f"{self.path} holds only one query: training and validation need one each at least")
        is_dev = draws < self.dev_share * 2.0**64
        if not is_dev.any():
            return draws == draws.min()
        return is_dev if not is_dev.all() else draws != draws.max()

    def _pairs(self) -> Iterator[pa.Table]:
        """The good rows: id and text of query, passage and negative, and the title; "" for what is missing."""
        bad, some = BadRows(self.max_bad_rows), False
        checks = {role: OneText() for role in _KEYS if f"{role}_id" in self._columns}
        required = [name for role, name in self._columns.items() if role not in ("title", "negative")]
        for read, rows in self._file.read(list(self._columns.values()), required, bad):
            table = self._with_ids(read.rename_columns(list(self._columns)))
            for role, check in checks.items():
                ids, *others = (table[name] for name in _KEYS[role])
                wrong = check.contradictions(ids, *others)
                for row in np.flatnonzero(wrong):
                    bad.add("id that another text had before", self.path, int(rows[row]), ids[int(row)].as_py())
                table, rows = table.filter(pa.array(~wrong)), rows[~wrong]
            some = some or len(table) > 0
            yield table
        if not some:
            raise UserError(f"{self.path} holds no row with a query and a passage")
        self._report(self.path, bad)

    def _with_ids(self, table: pa.Table) -> pa.Table:
        table = self._repaired(table, *(name for name in _TEXTS if name in self._columns))
        for name in _TEXTS:
            if name not in self._columns:
                table = table.append_column(name, pa.repeat(pa.scalar(""), len(table)))
        if "query_id" not in self._columns:
            table = table.append_column("query_id", _ids(table["query"]))
        if "passage_id" not in self._columns:
            table = table.append_column("passage_id", _ids(table["title"], table["passage"]))
        untitled = pa.repeat(pa.scalar(""), len(table))
        return table.append_column("negative_id", _ids(pa.chunked_array([untitled]), table["negative"]))


def _ids(*columns: pa.ChunkedArray) -> pa.Array:
    """(N,) hashes of texts, 16 hexadecimal digits, the same for ever: they are written into indexes."""
    texts = ("\x1f".join(row).encode() for row in zip(*(column.to_pylist() for column in columns), strict=True))
    return pa.array([hashlib.blake2b(text, digest_size=8).hexdigest() for text in texts], pa.string())


def _find_columns(file: ColumnFile, given: Mapping[str, str | None]) -> tuple[ColumnFile, dict[str, str]]:
    """Which column of the file has which role; a TSV file that turns out to have no header is opened as such.

    Raises:
        UserError: a column that was given does not exist or has two roles, or there is none for a role.
    """
    names = file.names()
    columns: dict[str, str] = {}
    for role, name in given.items():
        if name is None:
            continue
        if name not in names:
            raise UserError(f"data.{role}_column={name} is no column of {file.path}; {one_of(name, names)}")
        if name in columns.values():
            raise UserError(f"data.{role}_column={name} has another role already: name different columns")
        columns[role] = name
    free = {name.lower(): name for name in names if name not in columns.values()}
    for role, usual in _USUAL.items():
        found = next((free[name] for name in usual if name in free), None)
        if role not in columns and found is not None:
            columns[role] = found
    if not columns and isinstance(file, TsvFile) and len(names) == 2:
        notice(f"{file.path}: no usual name in the first line, so its columns are taken for query and passage.")
        return TsvFile(file.path, header=False), {"query": "1", "passage": "2"}
    for role in ("query", "passage"):
        if role not in columns:
            raise UserError(
                f"{file.path} has no column with a usual name for a {role} ({', '.join(_USUAL[role])}): "
                f"set data.{role}_column to one of its columns, {', '.join(names)[:200]}"
            )
    return file, columns
