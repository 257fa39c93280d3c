"""`data=ir_datasets`: any collection that the package ir_datasets knows, by its id."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa

from two_tower.cache import file_fingerprint
from two_tower.data.base import CORPUS, QRELS, QUERIES, SPLITS, TRIPLETS
from two_tower.data.reading.rows import Rows, parse_each
from two_tower.data.reading.tables import TableSource
from two_tower.errors import BadRow, UserError, first_line, nearest

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
        columns = attrgetter("query_id", "doc_id_a", "doc_id_b")
        return self._batches(self._rows(self.ids["train"], "docpairs", columns, TRIPLETS))

    def fingerprint(self) -> str:
        """Of the ids, the library's version and the parts that are one file each; the library checks the others."""
        ids = dict.fromkeys((self.corpus_id, *self.ids.values()))
        paths = (self._path(i, kind) for i in ids for kind in ("docs", "queries", "qrels", "docpairs"))
        files = ("" if path is None else file_fingerprint(path) for path in paths)
        return self._key(self._library.__version__, self.corpus_id, self.ids, *files)

    def _passage_rows(self, fields: bool = False) -> list[Rows]:
        return [self._rows(self.corpus_id, "docs", _document, CORPUS)]

    def _query_rows(self, split: str) -> list[Rows]:
        return [self._rows(self.ids[split], "queries", _query, QUERIES)]

    def _judgement_rows(self, split: str) -> Rows:
        if split not in self.ids:
            raise self._no_split(split)
        return self._rows(self.ids[split], "qrels", _judgement, QRELS)

    def _rows(self, dataset_id: str, kind: str, convert: Callable[[Entry], tuple], schema: pa.Schema) -> Rows:
        """A part of a collection; ``convert`` makes of an entry a row of ``schema``, or a BadRow."""
        place = f"{dataset_id} {kind}"
        return Rows(place, lambda bad: parse_each(self._entries(dataset_id, kind), convert, schema, place, bad))

    def _path(self, dataset_id: str, kind: str) -> Path | None:
        """The file of a part of a collection, downloaded if necessary; None where it is not one file."""
        path_of = getattr(self._load(dataset_id), f"{kind}_path", None)
        if path_of is None:
            return None
        try:
            path = Path(path_of())
        except Exception as error:
            raise _unavailable(dataset_id, kind, error) from error
        return path if path.is_file() else None

    def _load(self, dataset_id: str) -> Any:  # noqa: ANN401
        try:
            return self._library.load(dataset_id)
        except KeyError as error:
            guess = nearest(dataset_id, self._library.registry)
            hint = f"; did you mean {guess!r}?" if guess else ""
            raise UserError(f"ir_datasets has no {dataset_id}{hint} (https://ir-datasets.com lists all ids)") from error

    def _split_ids(self, whole: str, given: Mapping[str, str | None]) -> dict[str, str]:
        for chosen in (whole, *given.values()):
            if chosen is not None:
                self._load(chosen)  # refuses an unknown one
        ids = {}
        for split, own in given.items():
            choices = [f"{whole}/{ending}" for ending in SPLITS[split]] if own is None else [own]
            found = next(filter(self._is_judged, choices), None)
            if found is not None:
                ids[split] = found
            elif own is not None:
                raise UserError(f"data.{split}={own} has no queries with judgements: choose another id")
        if not ids and self._is_judged(whole):
            ending = whole.rpartition("/")[2]
            ids[next((split for split, endings in SPLITS.items() if ending in endings), "test")] = whole
        return ids

    def _is_judged(self, dataset_id: str) -> bool:
        with suppress(UserError):  # where there is none of this name
            dataset = self._load(dataset_id)
            return dataset.has_queries() and dataset.has_qrels()
        return False

    def _entries(self, dataset_id: str, kind: str) -> Iterator[tuple[int, Entry]]:
        row = 0
        try:
            for row, entry in enumerate(getattr(self._load(dataset_id), f"{kind}_iter")(), 1):
                yield row, entry
        except Exception as error:  # the library's own, those of its downloads and of each collection's reader
            path = self._path(dataset_id, kind) if row else None
            place = f" after row {row}" + (f" of {path}" if path else "") if row else ""
            raise _unavailable(dataset_id, kind, error, place) from error


def _unavailable(dataset_id: str, kind: str, error: Exception, place: str = "") -> UserError:
    reason = first_line(error)
    return UserError(f"ir_datasets cannot provide the {kind} of {dataset_id}{place}: {reason}")


def _judgement(entry: Entry) -> tuple[str, str, int]:
    if int(entry.relevance) != entry.relevance:
        raise UserError(f"Query {entry.query_id} has the grade {entry.relevance}, but grades must be whole numbers")
    return entry.query_id, entry.doc_id, int(entry.relevance)


def _document(entry: Entry) -> tuple[str, str, str]:
    title, text = (getattr(entry, "title", None) or "").strip(), _text(entry)
    if not (title or text):
        raise BadRow("empty text", entry.doc_id)
    return entry.doc_id, title, text[len(title) :].lstrip() if text.startswith(title) else text


def _query(entry: Entry) -> tuple[str, str]:
    text = _text(entry)
    if not text:
        raise BadRow("empty text", entry.query_id)
    return entry.query_id, text


def _text(entry: Entry) -> str:
    """What the collection's authors say is the text, else all fields of text after the id."""
    if hasattr(entry, "default_text"):
        return (entry.default_text() or "").strip()
    return " ".join(value for value in entry[1:] if isinstance(value, str)).strip()
