"""`data=beir`: a folder in the layout of the BEIR benchmark."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from two_tower.cache import file_fingerprint
from two_tower.data.base import CORPUS, QRELS, QUERIES, SCORED_TRIPLETS, SPLITS, TRIPLETS
from two_tower.data.reading.columns import estimated_lines
from two_tower.data.reading.formats import JsonRows, TsvRows
from two_tower.data.reading.rows import Rows, first_columns, read_rows, rows_of_file
from two_tower.data.reading.tables import TableSource
from two_tower.data.reading.unique import keep_known
from two_tower.errors import BadRows, UserError, one_of

_HEADER = frozenset({"query-id", "query_id", "qid", "query"})
_PASSAGES = JsonRows(required=("_id", "text"), optional=("title",), some_text=("title", "text"))
_QUESTIONS = JsonRows(required=("_id", "text"), some_text=("text",))


class Beir(TableSource):
    """``corpus.jsonl``, ``queries.jsonl``, ``qrels/SPLIT.tsv`` and, where there is one, ``triples.tsv``.

    Triplets are checked against the passages, which are read once for that.
    """

    def __init__(self, path: Path | str, max_bad_rows: float = 0.001, name: str | None = None) -> None:
        self.path = Path(path).expanduser()
        super().__init__(name or self.path.resolve().name, max_bad_rows)
        if not self.path.is_dir():
            raise UserError(f"{path} is no folder: data.path must hold corpus.jsonl, queries.jsonl and qrels/")
        self._file("corpus.jsonl")

    def estimated_size(self) -> int | None:
        return estimated_lines(self._file("corpus.jsonl"))

    def splits(self) -> tuple[str, ...]:
        return tuple(split for split in SPLITS if self._qrels_file(split) is not None)

    def triplets(self) -> Iterator[pa.RecordBatch] | None:
        """The rows of ``triples.tsv`` whose ids are known; with margins where it has a fourth column."""
        path = self._find("triples.tsv")
        return None if path is None else self._read_triplets(path)

    def fingerprint(self) -> str:
        names = ("corpus.jsonl", "queries.jsonl", "triples.tsv")
        paths = (*map(self._find, names), *map(self._qrels_file, SPLITS))
        return self._key(*(f"{path.relative_to(self.path)} {file_fingerprint(path)}" for path in paths if path))

    def _passage_rows(self) -> Rows:
        columns = ["_id", *CORPUS.names[1:]]  # the file's, in another order
        return rows_of_file(
            self._file("corpus.jsonl"), _PASSAGES, lambda table: table.select(columns).rename_columns(CORPUS.names)
        )

    def _query_rows(self, split: str) -> Rows:
        return rows_of_file(self._file("queries.jsonl"), _QUESTIONS, lambda table: table.rename_columns(QUERIES.names))

    def _judgement_rows(self, split: str) -> Rows:
        path = self._qrels_file(split)
        if path is None:
            raise UserError(f"{self.path} has no split {split!r}: {one_of(split, self.splits())}")
        return rows_of_file(path, TsvRows(QRELS, _HEADER))

    def _read_triplets(self, path: Path) -> Iterator[pa.RecordBatch]:
        bad, queries = BadRows(self.max_bad_rows), self._all_queries("train")[1]
        if not len(self._passages):
            deque(self.corpus(), maxlen=0)  # reads it to its end
        scored = first_columns(path) == len(SCORED_TRIPLETS)
        schema = SCORED_TRIPLETS if scored else TRIPLETS
        for table, numbers in read_rows(path, TsvRows(schema, _HEADER), bad):
            for column in TRIPLETS.names:
                ids = queries if column == "query_id" else self._passages
                table, numbers = keep_known(table, numbers, column, ids, bad, path)
            yield from table.to_batches()
        self._report(path, bad)

    def _find(self, name: str) -> Path | None:
        paths = (self.path / name, self.path / f"{name}.gz")
        return next((path for path in paths if path.is_file()), None)

    def _file(self, name: str) -> Path:
        path = self._find(name)
        if path is None:
            raise UserError(f"{self.path / name} does not exist (nor {name}.gz): data.path must be a BEIR folder")
        return path

    def _qrels_file(self, split: str) -> Path | None:
        names = (self._find(f"qrels/{name}.tsv") for name in SPLITS.get(split, ()))
        return next((path for path in names if path is not None), None)
