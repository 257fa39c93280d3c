"""The schemas in which dual-encoder data comes: how to recognise them, and how their rows become groups."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.data.base import CORPUS, FIELDS, QUERIES
from two_tower.data.reading import names
from two_tower.data.reading.arrow import (
    as_text,
    column_types,
    empty,
    flat_lists,
    is_list,
    kept,
    leave_out,
    list_fields,
    list_lengths,
    list_type,
    text_of,
)
from two_tower.data.reading.rows import Rows
from two_tower.data.reading.unique import hash_rows, hexadecimal
from two_tower.errors import BadRows, UserError, one_of

TEXT, TEXTS = pa.string(), pa.list_(pa.string())
_QRELS = pa.schema([("query-id", TEXT), ("corpus-id", TEXT), ("score", pa.int32())])
_ENTRY = ("docid", "title", "text")  # the fields of Tevatron's passages

_NEGATIVE = re.compile(r"(hard_)?neg(ative)?s?(_passage)?s?(_?\d+)?")
_KNOWN = (
    "a query (query, anchor, question) with a positive (positive, pos, passage, answer) and perhaps negatives "
    "(negative, negative_1 …, negatives), each a text or a list of texts; Tevatron's query_id, query, "
    "positive_passages, negative_passages, or positive_document_ids, negative_document_ids with data.corpus=DATA_SET; "
    "or BEIR's configurations corpus and queries, with data.qrels=DATA_SET"
)


@dataclass(frozen=True)
class Groups:
    """Q queries and P passages that came with them."""

    rows: np.ndarray  # (Q,) int64, number of each query's row in its file, from 1
    queries: pa.Table  # Q rows of `QUERIES`: id, null where it is missing; text, null where the id is unknown
    owner: np.ndarray  # (P,) int64, which of the Q queries a passage came with
    grades: np.ndarray  # (P,) int32; above 0 for a passage that is marked as an answer
    passages: pa.Table  # P rows of the schema `CORPUS`, perhaps with `FIELDS`

    def without_queries(self, wrong: np.ndarray, kind: str, place: object, bad: BadRows) -> Groups:
        """Those queries are left out, (Q,) bool, with all that came with them; they are bad rows."""
        groups = self._of_passages(~wrong[self.owner])
        queries, rows = leave_out(self.queries, self.rows, wrong, kind, place, bad, self.queries["id"])
        return replace(groups, rows=rows, queries=queries, owner=(np.cumsum(~wrong) - 1)[groups.owner])

    def without_passages(self, wrong: np.ndarray, kind: str, place: object, bad: BadRows) -> Groups:
        """Those passages are left out, (P,) bool, but no query; they are bad rows."""
        bad.add_where(wrong, kind, place, self.rows[self.owner], self.passages["id"])
        return self._of_passages(~wrong)

    def _of_passages(self, good: np.ndarray) -> Groups:
        passages, owner = kept(self.passages, self.owner, good)
        return replace(self, owner=owner, grades=self.grades[good], passages=passages)


@dataclass(frozen=True)
class Schema(ABC):
    """Makes groups of rows."""

    fields: pa.Schema  # the columns that it reads, and what they hold where a file does not say so (JSON lines)
    needed: ClassVar[int]  # how many of the columns, the first ones, every file must have
    key = "id"  # passages are one and the same where their ids are, or "text": their texts

    @property
    def required(self) -> Sequence[str]:
        return self.fields.names[: self.needed]

    @property
    def has_negatives(self) -> bool:
        """Whether there may be passages that are neither relevant nor judged."""
        return len(self.fields) > self.needed

    def read(self, rows: Rows, bad: BadRows) -> Iterator[Groups]:
        """The groups of a file or stream whose columns are ``fields``; one is bad whose lists differ in length."""
        for table, numbers in rows.read(bad):
            with column_types(rows.place):
                uneven = self._uneven(table)
                bad.add_where(uneven, "lists of unequal length", rows.place, numbers)
                yield self.groups(*kept(table, numbers, ~uneven))

    def _uneven(self, table: pa.Table) -> np.ndarray:
        uneven = np.zeros(len(table), bool)
        for wanted, column in zip(self.fields, table.columns, strict=False):
            found = [name for name in list_fields(wanted.type) if name in list_fields(column.type)]
            if found and pa.types.is_struct(column.type):
                uneven |= np.ptp([lengths for lengths, _ in flat_lists(column, found)], axis=0) > 0
        return uneven

    @abstractmethod
    def groups(self, table: pa.Table, rows: np.ndarray) -> Groups:
        """The groups of N rows, whose numbers are ``rows``, (N,) int64."""


@dataclass(frozen=True)
class TextColumns(Schema):
    """Texts, or lists of texts, without ids: queries, relevant passages, perhaps others. Nulls are no passages.

    The id of a query or a passage is a hash of its text.
    """

    needed = 2
    key = "text"

    def groups(self, table: pa.Table, rows: np.ndarray) -> Groups:
        query, positive, *_ = self.fields.names
        lists = []
        for name in self.fields.names[1:]:
            owner, texts = _texts(table[name], name)
            passages = pa.table([hexadecimal(hash_rows(texts)), empty(len(texts)), texts], CORPUS)
            if FIELDS in table.column_names:  # they belong to the relevant passages of their row
                found = table[FIELDS].take(pa.array(owner)) if name == positive else empty(len(owner))
                passages = passages.append_column(FIELDS, found)
            lists.append((owner, passages))
        queries = text_of(table[query], query)
        return _marked(rows, pa.table([hexadecimal(hash_rows(queries)), queries], QUERIES), lists)


@dataclass(frozen=True)
class TevatronColumns(Schema):
    """Ids of queries, queries, relevant passages, perhaps others: lists of ``{docid, title, text}``, or of ids."""

    ids_only: bool = False  # whether titles and texts come from a corpus of their own
    needed = 3

    def groups(self, table: pa.Table, rows: np.ndarray) -> Groups:
        query_id, query, *others = self.fields.names
        queries = pa.table([as_text(table[query_id], query_id), text_of(table[query], query)], QUERIES)
        return _marked(rows, queries, [_entries(table[name], self.ids_only) for name in others])


@dataclass(frozen=True)
class PassageColumns(Schema):
    """A corpus: ids, texts, perhaps titles; no queries."""

    needed = 2

    @classmethod
    def from_names(cls, columns: Sequence[str], *usual: Sequence[str]) -> PassageColumns:
        """The columns with ``usual`` names of ids, texts and perhaps titles."""
        return cls(pa.schema([(names.first_of(each, columns) or each[0], TEXT) for each in usual]))

    def groups(self, table: pa.Table, rows: np.ndarray) -> Groups:
        ids, texts, *titles = (text_of(table[name], name) for name in self.fields.names)
        passages = pa.table([ids, *(titles or [empty(len(ids))]), texts], CORPUS)
        if FIELDS in table.column_names:
            passages = passages.append_column(FIELDS, table[FIELDS])
        nothing, grades = pa.nulls(len(ids), TEXT), np.zeros(len(ids), np.int32)
        return Groups(rows, pa.table([nothing, nothing], QUERIES), np.arange(len(ids)), grades, passages)


@dataclass(frozen=True)
class QrelsColumns(Schema):
    """BEIR's judgements."""

    fields: pa.Schema = field(default=_QRELS, init=False)
    queries: pa.Table  # rows of the schema `QUERIES`
    needed = 3

    def groups(self, table: pa.Table, rows: np.ndarray) -> Groups:
        """Passages have ids only."""
        query_ids, ids = (text_of(table[name], name) for name in self.required[:2])
        texts = self.queries["text"].take(pc.index_in(query_ids, value_set=self.queries["id"]))
        try:
            scores = table["score"].combine_chunks().cast(pa.float64()).cast(pa.int32())
        except pa.ArrowInvalid as error:
            raise pa.ArrowInvalid(f"grades must be whole numbers: {error}") from error
        grades = pc.fill_null(scores, 0).to_numpy()
        return Groups(rows, pa.table([query_ids, texts], QUERIES), np.arange(len(ids)), grades, _ids_alone(ids))


def recognize(
    schema: pa.Schema, label: str, query: str | None = None, positive: str | None = None,
    negatives: Sequence[str] | None = None,
) -> TextColumns | TevatronColumns:  # fmt: skip
    """Find out what the columns of a data set, called ``label``, mean; those not given have usual names."""
    tevatron = _tevatron(schema, query, negatives) if positive is None else None
    if tevatron is not None:
        return tevatron
    texts = [field.name for field in schema if _is_text(field.type)]
    query = _column("query_column", query, texts, names.QUERY, schema, label)
    positive = _column("positive_column", positive, [t for t in texts if t != query], names.POSITIVE, schema, label)
    others = [name for name in texts if name not in (query, positive)]
    if negatives is None:
        negatives = [name for name in others if _NEGATIVE.fullmatch(name)]
    for name in negatives:
        _column("negative_columns", name, others, (), schema, label)
    chosen = [schema.field(name) for name in (query, positive, *negatives)]
    return TextColumns(pa.schema([(field.name, TEXTS if is_list(field.type) else TEXT) for field in chosen]))


def _tevatron(schema: pa.Schema, query: str | None, negatives: Sequence[str] | None) -> TevatronColumns | None:
    """Tevatron's columns; the newer of its schemas has ids of passages, and may say ``query_text``."""
    query = next((name for name in ([query] if query else ("query", "query_text")) if name in schema.names), None)
    if query is None or "query_id" not in schema.names:
        return None
    for ending, ids_only in (("passages", False), ("document_ids", True)):
        positive, negative = f"positive_{ending}", f"negative_{ending}"
        kind = schema.field(positive).type if positive in schema.names else pa.null()
        if "docid" in list_fields(kind):
            wanted = list_type(kind, dict.fromkeys(_ENTRY, TEXT))
        elif ids_only and is_list(kind):
            wanted = TEXTS
        else:
            continue
        fields = {"query_id": TEXT, query: TEXT, positive: wanted}
        if negative in (schema.names if negatives is None else negatives):
            fields[negative] = wanted
        return TevatronColumns(pa.schema(fields), ids_only)
    return None


def _column(key: str, given: str | None, texts: list[str], usual: Iterable[str], schema: pa.Schema, label: str) -> str:
    if given is None:
        found = names.first_of(usual, texts)
        if found is None:
            columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
            raise UserError(f"{label} has the columns {columns}, but must have {_KNOWN}; or set data.{key}=COLUMN")
        return found
    if given not in texts:
        problem = "holds no text, or is used already" if given in schema.names else "does not exist"
        raise UserError(f"data.{key}: the column {given} of {label} {problem}; {one_of(given, texts)}")
    return given


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or (is_list(kind) and _is_text(kind.value_type))


def _marked(rows: np.ndarray, queries: pa.Table, lists: Sequence[tuple[np.ndarray, pa.Table]]) -> Groups:
    """Groups whose passages come in several lists, each with their rows (P,); those of the first are marked."""
    owner = np.concatenate([owner for owner, _ in lists])
    grades = (np.arange(len(owner)) < len(lists[0][0])).astype(np.int32)
    return Groups(rows, queries, owner, grades, pa.concat_tables([passages for _, passages in lists]))


def _texts(column: pa.ChunkedArray, name: str = "") -> tuple[np.ndarray, pa.Array]:
    """The row of each text in a column of texts, or of lists of texts; and the texts. Nulls are left out."""
    array = column.combine_chunks()
    owner = np.arange(len(array))
    if is_list(array.type):
        owner, array = np.repeat(owner, list_lengths(array)), pc.list_flatten(array)
    valid = array.is_valid()
    return owner[valid.to_numpy(zero_copy_only=False)], text_of(array.filter(valid), name)


def _entries(column: pa.ChunkedArray, ids_only: bool) -> tuple[np.ndarray, pa.Table]:
    """The row of each of Tevatron's passages, and the passages as rows of `CORPUS`."""
    fields = list_fields(column.type)
    if not fields:  # ids; or no row has a passage, so that their type is not known
        owner, ids = _texts(column if is_list(column.type) else pa.chunked_array([pa.nulls(len(column), TEXT)]))
        return owner, _ids_alone(ids)
    wanted = ["docid", *(name for name in _ENTRY[1:] if name in fields and not ids_only)]
    (lengths, ids), *others = flat_lists(column, wanted)
    texts = {name: text_of(found) for name, (_, found) in zip(wanted[1:], others, strict=True)}
    columns = [text_of(ids), *(texts.get(name, empty(len(ids))) for name in _ENTRY[1:])]
    return np.repeat(np.arange(len(lengths)), lengths), pa.table(columns, CORPUS)


def _ids_alone(ids: pa.Array) -> pa.Table:
    return pa.table([ids, empty(len(ids)), empty(len(ids))], CORPUS)
