"""`data=ir_datasets`: any collection that the package ir_datasets knows, by its id."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from two_tower.cache import file_fingerprint
from two_tower.data.base import CORPUS, QRELS, QUERIES, SPLITS, TRIPLETS
from two_tower.data.reading.rows import Rows, Tables
from two_tower.data.reading.tables import TableSource
from two_tower.errors import BadRows, UserError, nearest, one_of

_BATCH_ROWS = 10_000

Entry = Any  # one of the library's named tuples


class IrDatasets(TableSource):
    """A collection of the package ir_datasets.

    Texts are what the collection's authors take for the text of a document (title, body, abstract …) and of a
    query; a title is kept apart. Training triplets are the document pairs of the training split, where it has some.
    An ``id`` without splits is its own: the one that its name ends in, else ``test``.
    """

    def __init__(
        self, id: str, train: str | None = None, dev: str | None = None, test: str | None = None,
        corpus: str | None = None, max_bad_rows: float = 0.001, name: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(name or id.replace("/", "-"), max_bad_rows)
        try:
            self._library = importlib.import_module("ir_datasets")
        except ImportError as error:
            raise UserError(
                'data=ir_datasets needs the package ir-datasets: install it with pip install "two-tower[ir]"'
            ) from error
        self.ids = self._split_ids(id, {"train": train, "dev": dev, "test": test})
        self.corpus_id = corpus or next((i for i in (id, *self.ids.values()) if self._load(i).has_docs()), id)
        if not self._load(self.corpus_id).has_docs():
            raise UserError(f"{self.corpus_id} has no documents: set data.corpus to an id that has them")

    def splits(self) -> tuple[str, ...]:
        return tuple(self.ids)

    def triplets(self) -> Iterator[pa.RecordBatch] | None:
        """The document pairs of the training split; whether their ids exist is not checked."""
        if "train" not in self.ids or not self._load(self.ids["train"]).has_docpairs():
            return None
        triplet = attrgetter("query_id", "doc_id_a", "doc_id_b")
        read = self._read(self.ids["train"], "docpairs", triplet, TRIPLETS, BadRows(self.max_bad_rows))
        return (batch for table, _ in read for batch in table.to_batches())

    def fingerprint(self) -> str:
        """Of the ids, the library's version and the parts that are one file each; the library checks the others."""
        ids = dict.fromkeys((self.corpus_id, *self.ids.values()))
        paths = (self._path(i, kind) for i in ids for kind in ("docs", "queries", "qrels", "docpairs"))
        files = ("" if path is None else file_fingerprint(path) for path in paths)
        return self._key(self._library.__version__, self.corpus_id, self.ids, *files)

    def _passage_rows(self, fields: bool = False) -> list[Rows]:
        return [self._rows(self.corpus_id, "docs", _document, CORPUS)]

    def _query_rows(self, split: str) -> list[Rows]:
        return [self._rows(self.ids[split], "queries", lambda entry: (entry.query_id, _text(entry)), QUERIES)]

    def _judgement_rows(self, split: str) -> Rows:
        if split not in self.ids:
            raise UserError(f"{self.name} has no split {split!r}: {one_of(split, self.ids)}")
        return self._rows(self.ids[split], "qrels", _judgement, QRELS)

    def _rows(self, dataset_id: str, kind: str, convert: Callable[[Entry], tuple], schema: pa.Schema) -> Rows:
        return Rows(f"{dataset_id} {kind}", partial(self._read, dataset_id, kind, convert, schema))

    def _path(self, dataset_id: str, kind: str) -> Path | None:
        """The file of a part of a collection, downloaded if necessary; None where it is not one file."""
        dataset = self._load(dataset_id)
        if not hasattr(dataset, f"{kind}_path"):
            return None
        try:
            path = Path(getattr(dataset, f"{kind}_path")())
        except Exception as error:
            raise _unavailable(dataset_id, kind, error) from error
        return path if path.is_file() else None

    def _load(self, dataset_id: str) -> Any:  # noqa: ANN401
        try:
            return self._library.load(dataset_id)
        except KeyError as error:
            guess = nearest(dataset_id, self._library.registry)
            raise UserError(
                f"ir_datasets has no {dataset_id}" + (f"; did you mean {guess!r}?" if guess else "")
                + " (https://ir-datasets.com lists all ids)"
            ) from error  # fmt: skip

    def _split_ids(self, whole: str, given: Mapping[str, str | None]) -> dict[str, str]:
        self._load(whole)
        ids = {}
        for split, own in given.items():
            if own is not None and not self._is_judged(own):
                raise UserError(f"data.{split}={own} has no queries with judgements: choose another id")
            usual = (f"{whole}/{ending}" for ending in SPLITS[split])
            found = own or next((i for i in usual if self._exists(i) and self._is_judged(i)), None)
            if found is not None:
                ids[split] = found
        if not ids and self._is_judged(whole):
            ending = whole.rpartition("/")[2]
            ids[next((split for split, endings in SPLITS.items() if ending in endings), "test")] = whole
        return ids

    def _exists(self, dataset_id: str) -> bool:
        try:
            self._load(dataset_id)
        except UserError:
            return False
        return True

    def _is_judged(self, dataset_id: str) -> bool:
        dataset = self._load(dataset_id)
        return dataset.has_queries() and dataset.has_qrels()

    def _read(
        self, dataset_id: str, kind: str, convert: Callable[[Entry], tuple], schema: pa.Schema, bad: BadRows
    ) -> Tables:
        """Rows of ``schema`` and their numbers, from 1; those without any text are bad."""
        entries, total = self._entries(dataset_id, kind), 0
        while read := list(itertools.islice(entries, _BATCH_ROWS)):
            rows = list(enumerate(map(convert, read), total + 1))
            if "text" in schema.names:
                for row, (first, *texts) in rows:
                    if not any(texts):
                        bad.add("empty text", f"{dataset_id} {kind}", row, first)
                rows = [(row, value) for row, value in rows if any(value[1:])]
            columns = zip(*(value for _, value in rows), strict=True) if rows else [()] * len(schema)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            yield pa.table(arrays, schema), np.array([row for row, _ in rows], np.int64)
            total += len(read)
        bad.check(total)

    def _entries(self, dataset_id: str, kind: str) -> Iterator[Entry]:
        row = 0
        try:
            for entry in getattr(self._load(dataset_id), f"{kind}_iter")():
                row += 1
                yield entry
        except Exception as error:  # the library's own, those of its downloads and of each collection's reader
            path = self._path(dataset_id, kind) if row else None
            place = f" after row {row}" + (f" of {path}" if path else "") if row else ""
            raise _unavailable(dataset_id, kind, error, place) from error


def _unavailable(dataset_id: str, kind: str, error: Exception, place: str = "") -> UserError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return UserError(f"ir_datasets cannot provide the {kind} of {dataset_id}{place}: {reason}")


def _judgement(entry: Entry) -> tuple[str, str, int]:
    if int(entry.relevance) != entry.relevance:
        raise UserError(f"Query {entry.query_id} has the grade {entry.relevance}, but grades must be whole numbers")
    return entry.query_id, entry.doc_id, int(entry.relevance)


def _document(entry: Entry) -> tuple[str, str, str]:
    title = (getattr(entry, "title", None) or "").strip()
    text = _text(entry)
    return entry.doc_id, title, text[len(title) :].lstrip() if text.startswith(title) else text


def _text(entry: Entry) -> str:
    """What the collection's authors say is the text, else all fields of text after the id."""
    if hasattr(entry, "default_text"):
        return (entry.default_text() or "").strip()
    return " ".join(value for value in entry[1:] if isinstance(value, str)).strip()
