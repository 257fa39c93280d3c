"""`data=beir`: a folder in the layout of the BEIR benchmark."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path

import pyarrow as pa

from two_tower.cache import file_fingerprint
from two_tower.data.base import CORPUS, SPLITS, TRIPLETS
from two_tower.data.reading import names
from two_tower.data.reading.content import bare_name
from two_tower.data.reading.qrels import qrels_rows
from two_tower.data.reading.rows import Rows, Tables
from two_tower.data.reading.table_files import RoleTables, find_columns, find_named, open_tables
from two_tower.data.reading.tables import TableSource
from two_tower.data.reading.triples import TriplesFile
from two_tower.data.reading.unique import keep_known
from two_tower.errors import BadRows, UserError

_USUAL_PASSAGE = {"id": names.ID, "title": names.TITLE, "text": names.TEXT}
_USUAL_QUERY = {"query_id": names.QUERY_ID, "query": (*names.QUERY, *names.TEXT)}


class Beir(TableSource):
    """``corpus.jsonl``, ``queries.jsonl``, ``qrels/SPLIT.tsv`` and, where there is one, ``triples.tsv``.

    Passages and queries may be files of any other kind with the same names, or folders of files. Triplets are checked
    against the passages, which are read once for that.
    """

    def __init__(
        self, path: Path | str, id_column: str | None = None, title_column: str | None = None,
        text_column: str | None = None, query_id_column: str | None = None, query_column: str | None = None,
        encoding: str | None = None, max_bad_rows: float = 0.001, name: str | None = None,
    ) -> None:  # fmt: skip
        self.path, self.encoding = Path(path).expanduser(), encoding
        super().__init__(name or self.path.resolve().name, max_bad_rows)
        if not self.path.is_dir():
            raise UserError(f"{path} is no folder: data.path must hold corpus.jsonl, queries.jsonl and qrels/")
        self._passage_columns = {"id": id_column, "title": title_column, "text": text_column}
        self._query_columns = {"query_id": query_id_column, "query": query_column}
        self._corpus = self._table("corpus", self._passage_columns, _USUAL_PASSAGE, ("id", "text"))

    @cached_property
    def _questions(self) -> RoleTables:
        return self._table("queries", self._query_columns, _USUAL_QUERY, ("query_id", "query"))

    def estimated_size(self) -> int | None:
        return self._corpus.estimated_size()

    def splits(self) -> tuple[str, ...]:
        return tuple(self._qrels_files)

    def triplets(self) -> Iterator[pa.RecordBatch] | None:
        """The rows of ``triples.tsv`` whose ids are known."""
        path = find_named(self.path, "triples", (".tsv",))
        return None if path is None else self._batches(Rows(path, partial(self._known_triplets, path)))

    def fingerprint(self) -> str:
        tables = [self._corpus] + ([self._questions] if find_named(self.path, "queries") else [])
        paths = (find_named(self.path, "triples", (".tsv",)), *self._qrels_files.values())
        files = [f"{path.relative_to(self.path)} {file_fingerprint(path)}" for path in paths if path]
        return self._key(*(part for table in tables for part in table.fingerprint()), *files)

    def _passage_rows(self, fields: bool = False) -> Sequence[Rows]:
        return self._corpus.rows(CORPUS.names, [("id",), ("title", "text")], fields)

    def _query_rows(self, split: str) -> Sequence[Rows]:
        roles = ("query_id", "query")
        return self._questions.rows(roles, [roles[:1], roles[1:]])

    def _judgement_rows(self, split: str) -> Rows:
        if split not in self._qrels_files:
            raise self._no_split(split)
        return qrels_rows(self._qrels_files[split], self.encoding)

    def _known_triplets(self, path: Path, bad: BadRows) -> Tables:
        _, queries = self._all_queries("train")
        if not len(self._passages):
            deque(self.corpus(), maxlen=0)  # reads it to its end
        for table, numbers in TriplesFile(path, self.encoding).read(bad):
            for column in TRIPLETS.names:
                ids = queries if column == "query_id" else self._passages
                table, numbers = keep_known(table, numbers, column, ids, bad, path)
            yield table, numbers

    def _table(
        self, name: str, chosen: dict[str, str | None], usual: dict[str, tuple[str, ...]], required: tuple[str, str]
    ) -> RoleTables:
        path = find_named(self.path, name)
        if path is None:
            raise UserError(f"{self.path / name}.jsonl does not exist: data.path must be a BEIR folder")
        return find_columns(open_tables(path, self.encoding), chosen, usual, required, required)

    @cached_property
    def _qrels_files(self) -> dict[str, Path]:
        """Split → ``qrels/SPLIT.tsv``, or a file called much like it, in that folder or with ``qrels`` in its name.

        A file in that folder which is none of the usual splits is a split by its own name.
        """
        inside = [path for path in sorted((self.path / "qrels").glob("[!.]*")) if path.is_file()]
        inside = [path for path in inside if not path.name.lower().startswith("readme")]
        named = [path for path in sorted(self.path.iterdir()) if path.is_file() and "qrels" in path.name.lower()]
        words = [(re.split(r"\W|_", bare_name(path).lower()), path) for path in (*inside, *named)]
        files = {}
        for split, usual in SPLITS.items():
            found = [(own != [name], path) for name in usual for own, path in words if name in own]
            if found:
                files[split] = min(found, key=lambda each: each[0])[1]
        others = [path for path in inside if path not in files.values()]
        return files | {bare_name(path): path for path in others if bare_name(path) not in files}
