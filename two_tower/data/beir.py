"""`data=beir`: a folder in the layout of the BEIR benchmark."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.cache import file_fingerprint, key_of
from two_tower.data.reading.repair import repair_encoding
from two_tower.data.reading.rows import BadRows, JsonRows, TsvRows, read_rows
from two_tower.data.source import CORPUS, QRELS, QUERIES, TRIPLETS, Source
from two_tower.errors import UserError, one_of

__all__ = ["Beir"]

_log = logging.getLogger(__name__)

# Split -> names of its file; other tools write validation.tsv for dev.
_SPLITS = {"train": ("train",), "dev": ("dev", "validation", "val"), "test": ("test",)}
_HEADER = frozenset({"query-id", "query_id", "qid", "query"})
_PASSAGES = JsonRows(required=("_id", "text"), optional=("title",), some_text=("title", "text"))
_QUESTIONS = JsonRows(required=("_id", "text"), some_text=("text",))


class Beir(Source):
    """Read ``corpus.jsonl``, ``queries.jsonl``, ``qrels/SPLIT.tsv`` and, where there is one, ``triples.tsv``.

    Each may be compressed (``.gz``). Bad rows (malformed JSON, missing fields, invalid UTF-8, no text, an id
    again with another text, judgements of unknown ids, wrong columns) are left out and counted up to a limit;
    a row that only repeats an earlier one is left out silently. Memory does not grow with the texts: 16 bytes
    a passage are kept while the corpus is read, 8 afterwards.

    Args:
        path: the folder.
        max_bad_rows: the fraction of a file's rows that may be bad before reading it is an error.
        name: short name; by default the folder's.
        repair_encoding: whether to repair UTF-8 that was encoded twice.

    Attributes:
        name: short name for folders and messages.
        bad_rows: the bad rows of each file that was read, by file name.

    Raises:
        UserError: the folder or its corpus does not exist.
    """

    def __init__(
        self, path: str, max_bad_rows: float = 0.001, name: str | None = None, repair_encoding: bool = False
    ) -> None:
        self.path = Path(path).expanduser()
        self.max_bad_rows, self.repair_encoding = max_bad_rows, repair_encoding
        self.bad_rows: dict[str, BadRows] = {}
        self._qrels: dict[str, pa.Table] = {}
        self._passage_ids: _Hashes | None = None
        if not self.path.is_dir():
            raise UserError(
                f"data.path={path} is no folder: give one that holds corpus.jsonl, queries.jsonl and qrels/"
            )
        self.name = name or self.path.resolve().name
        self._file("corpus.jsonl")
        BadRows(max_bad_rows)  # checks the limit now, not after the first file

    def corpus(self) -> Iterator[pa.RecordBatch]:
        """All passages in file order; title is empty text where there is none.

        Raises:
            UserError: at the end, where too many rows were bad or there was no passage.
        """
        path, bad, unique = self._file("corpus.jsonl"), BadRows(self.max_bad_rows), _Unique(key=1)
        for table, rows in read_rows(path, _PASSAGES, bad):
            table = self._repaired(table, "title", "text")
            table = unique.filter(table, rows, bad, path, "id that another text had before")
            yield from table.select(["_id", "title", "text"]).rename_columns(CORPUS.names).to_batches()
        if not unique.keys:
            raise UserError(f"{path} holds no passage")
        self._passage_ids = unique.keys
        self._report(path.name, bad)

    def splits(self) -> tuple[str, ...]:
        """The splits that have a file in ``qrels``."""
        return tuple(split for split in _SPLITS if self._qrels_file(split) is not None)

    def queries(self, split: str) -> pa.Table:
        """The queries with at least one judgement in the split, in the order of ``queries.jsonl``."""
        judged = pc.unique(self.qrels(split)["query_id"])
        table, _ = self._queries
        return table.filter(pc.is_in(table["id"], value_set=judged))

    def qrels(self, split: str) -> pa.Table:
        """The judgements of a split in file order; grade 0 (shown, but not relevant) is kept."""
        if split not in self._qrels:
            path = self._qrels_file(split)
            if path is None:
                raise UserError(f"{self.path} has no split {split!r}: {one_of(split, self.splits())}")
            self._qrels[split] = self._read_qrels(path)
        return self._qrels[split]

    def triplets(self) -> Iterator[pa.RecordBatch] | None:
        """The rows of ``triples.tsv`` whose ids are known, in file order."""
        path = self._find("triples.tsv")
        return None if path is None else self._read_triplets(path)

    def fingerprint(self) -> str:
        """Hash of the names and bytes of all files, and of whether texts are repaired."""
        files = (f"{path.relative_to(self.path)} {file_fingerprint(path)}" for path in self._files())
        return key_of(*files, *(["repaired"] if self.repair_encoding else []))

    def _repaired(self, table: pa.Table, *columns: str) -> pa.Table:
        for name in columns if self.repair_encoding else ():
            table = table.set_column(table.column_names.index(name), name, repair_encoding(table[name]))
        return table

    def _report(self, file: str, bad: BadRows) -> None:
        """Keep a file's bad rows, and warn of them the first time that it was read to its end."""
        summary = bad.summary()
        if summary and file not in self.bad_rows:
            _log.warning("%s: %s.", self.path / file, summary)
        self.bad_rows[file] = bad

    def bad_rows_summary(self) -> str | None:
        """What was left out of the files read so far, or None where all rows were good."""
        found = [(file, bad.summary()) for file, bad in self.bad_rows.items()]
        return "; ".join(f"{file}: {text}" for file, text in found if text) or None

    @cached_property
    def _queries(self) -> tuple[pa.Table, _Hashes]:
        path, bad, unique = self._file("queries.jsonl"), BadRows(self.max_bad_rows), _Unique(key=1)
        tables = [
            unique.filter(self._repaired(table, "text"), rows, bad, path, "id that another text had before")
            for table, rows in read_rows(path, _QUESTIONS, bad)
        ]
        self._report(path.name, bad)
        return pa.concat_tables(
            [QUERIES.empty_table(), *(t.rename_columns(QUERIES.names) for t in tables)]
        ), unique.keys

    def _read_qrels(self, path: Path) -> pa.Table:
        bad, unique = BadRows(self.max_bad_rows), _Unique(key=2)
        tables = []
        for table, rows in read_rows(path, TsvRows(QRELS, _HEADER), bad):
            table, rows = self._known(table, rows, bad, path)
            tables.append(unique.filter(table, rows, bad, path, "judgement that contradicts an earlier one"))
        self._report(f"qrels/{path.name}", bad)
        if not unique.keys:
            raise UserError(f"{path} holds no judgement")
        return pa.concat_tables(tables)

    def _read_triplets(self, path: Path) -> Iterator[pa.RecordBatch]:
        bad = BadRows(self.max_bad_rows)
        for table, rows in read_rows(path, TsvRows(TRIPLETS, _HEADER), bad):
            yield from self._known(table, rows, bad, path)[0].to_batches()
        self._report(path.name, bad)

    def _known(self, table: pa.Table, rows: np.ndarray, bad: BadRows, path: Path) -> tuple[pa.Table, np.ndarray]:
        """The rows of which all ids exist; a passage's id is known once the corpus was read."""
        if self._passage_ids is None:
            for _ in self.corpus():
                pass
        assert self._passage_ids is not None
        good = np.ones(len(table), bool)
        for column in (name for name in table.column_names if name.endswith("_id")):
            known = self._queries[1] if column == "query_id" else self._passage_ids
            missing = good & ~known.contains(_hash(table[column].to_pylist()))
            for row in np.flatnonzero(missing):
                bad.add(f"unknown {column}", path, int(rows[row]), table[column][int(row)].as_py())
            good &= ~missing
        return (table, rows) if good.all() else (table.filter(pa.array(good)), rows[good])

    def _find(self, name: str) -> Path | None:
        paths = (self.path / name, self.path / f"{name}.gz")
        return next((path for path in paths if path.is_file()), None)

    def _file(self, name: str) -> Path:
        path = self._find(name)
        if path is None:
            raise UserError(f"{self.path / name} does not exist (nor {name}.gz): data.path must be a BEIR folder")
        return path

    def _qrels_file(self, split: str) -> Path | None:
        names = (self._find(f"qrels/{name}.tsv") for name in _SPLITS.get(split, ()))
        return next((path for path in names if path is not None), None)

    def _files(self) -> list[Path]:
        others = (self._find(name) for name in ("corpus.jsonl", "queries.jsonl", "triples.tsv"))
        return [path for path in (*others, *map(self._qrels_file, _SPLITS)) if path is not None]


class _Hashes:
    """A growing set of 64-bit hashes, 8 bytes each: sorted runs, merged as they double.

    Two of 8.8 million ids share a hash in one of 500,000 collections.
    """

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []

    def __bool__(self) -> bool:
        return bool(self._runs)

    def contains(self, keys: np.ndarray) -> np.ndarray:
        """Which of ``keys`` (K,) int64 are in the set: (K,) bool."""
        found = np.zeros(len(keys), bool)
        for run in self._runs:
            found |= run[np.minimum(np.searchsorted(run, keys), len(run) - 1)] == keys
        return found

    def add(self, keys: np.ndarray) -> np.ndarray:
        """Put ``keys`` (K,) int64 in; returns (K,) bool: which were there before, or earlier among them."""
        distinct, first = np.unique(keys, return_index=True)
        known = np.ones(len(keys), bool)
        known[first] = self.contains(distinct)  # in ascending order: far fewer cache misses
        if len(distinct):
            self._runs.append(distinct)
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            merged = np.concatenate([self._runs.pop(), self._runs.pop()])
            merged.sort()
            self._runs.append(merged)
        return known


class _Unique:
    """Lets the first row of each key pass; the key is the first ``key`` columns."""

    def __init__(self, key: int) -> None:
        self.key, self.keys, self._rows = key, _Hashes(), _Hashes()

    def filter(self, table: pa.Table, rows: np.ndarray, bad: BadRows, path: Path, kind: str) -> pa.Table:
        """Leave out rows whose key came before; those that differ from what came before are bad."""
        columns = [column.to_pylist() for column in table.columns]
        again = self.keys.add(_hash(columns[0] if self.key == 1 else zip(*columns[: self.key], strict=True)))
        different = again & ~self._rows.add(_hash(zip(*columns, strict=True)))
        for row in np.flatnonzero(different):
            bad.add(kind, path, int(rows[row]), columns[0][row])
        return table.filter(pa.array(~again)) if again.any() else table


def _hash(values: Iterator | list) -> np.ndarray:
    return np.fromiter(map(hash, values), np.int64)
