"""The schemas in which dual-encoder data comes: how to recognise them, and how their rows become groups."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.data.base import CORPUS, FIELDS, QUERIES
from two_tower.data.reading import names
from two_tower.data.reading.arrow import (
    as_text,
    empty,
    flat_lists,
    is_list,
    list_fields,
    list_lengths,
    list_type,
    text_of,
)
from two_tower.data.reading.groups import Groups
from two_tower.data.reading.unique import hash_rows, hexadecimal
from two_tower.errors import UserError, one_of

TEXT, TEXTS = pa.string(), pa.list_(pa.string())
BEIR_QRELS = pa.schema([("query-id", TEXT), ("corpus-id", TEXT), ("score", pa.int32())])
_ENTRY = ("docid", "title", "text")  # the fields of Tevatron's passages

_NEGATIVE = re.compile(r"(hard_)?neg(ative)?s?(_passage)?s?(_?\d+)?")
_KNOWN = (
    "a query (query, anchor, question) with a positive (positive, pos, passage, answer) and perhaps negatives "
    "(negative, negative_1 …, negatives), each a text or a list of texts; Tevatron's query_id, query, "
    "positive_passages, negative_passages, or positive_document_ids, negative_document_ids with data.corpus=DATA_SET; "
    "or BEIR's configurations corpus and queries, with data.qrels=DATA_SET"
)


@dataclass(frozen=True)
class Schema(ABC):
    """Makes groups of rows."""

    fields: pa.Schema  # the columns that it reads, and what they hold where a file does not say so (JSON lines)
    needed: ClassVar[int]  # how many of the columns, the first ones, every file must have
    has_ids: ClassVar[bool] = True  # whether queries and passages have ids; otherwise these are hashes of the texts

    @property
    def required(self) -> Sequence[str]:
        return self.fields.names[: self.needed]

    @property
    def has_negatives(self) -> bool:
        """Whether there may be passages that are neither relevant nor judged."""
        return len(self.fields) > self.needed

    @abstractmethod
    def groups(self, table: pa.Table, rows: np.ndarray) -> Groups:
        """The groups of N rows, whose numbers are ``rows``, (N,) int64."""


@dataclass(frozen=True)
class TextColumns(Schema):
    """Texts, or lists of texts, without ids: queries, relevant passages, perhaps others. Nulls are no passages."""

    needed = 2
    has_ids = False

    def groups(self, table: pa.Table, rows: np.ndarray) -> Groups:
        query, *others = self.fields.names
        columns = [_passages(table[name]) for name in others if name in table.column_names]
        owner = np.concatenate([owner for owner, _ in columns])
        texts = pa.concat_arrays([text_of(texts, name) for name, (_, texts) in zip(others, columns, strict=False)])
        grades = (np.arange(len(owner)) < len(columns[0][0])).astype(np.int32)
        keys = hash_rows(pa.chunked_array([texts]))
        passages = pa.table([hexadecimal(keys), empty(len(texts)), texts], CORPUS)
        if FIELDS in table.column_names:  # they belong to the relevant passages of their row
            found = table[FIELDS].combine_chunks().take(pa.array(owner))
            passages = passages.append_column(FIELDS, pc.if_else(pa.array(grades > 0), found, ""))
        query_texts = text_of(table[query], query)
        queries = pa.table([hexadecimal(hash_rows(pa.chunked_array([query_texts]))), query_texts], QUERIES)
        return Groups(rows, queries, owner, grades, passages, keys)


@dataclass(frozen=True)
class TevatronColumns(Schema):
    """Ids of queries, queries, relevant passages, perhaps others: lists of ``{docid, title, text}``, or of ids."""

    ids_only: bool = False  # whether titles and texts come from a corpus of their own
    needed = 3

    def groups(self, table: pa.Table, rows: np.ndarray) -> Groups:
        query_id, query, *others = self.fields.names
        lists = [_entries(table[name], self.ids_only) for name in others if name in table.column_names]
        owner = np.concatenate([owner for owner, _ in lists])
        grades = (np.arange(len(owner)) < len(lists[0][0])).astype(np.int32)
        passages = pa.concat_tables([passages for _, passages in lists])
        queries = pa.table([as_text(table[query_id], query_id), text_of(table[query], query)], QUERIES)
        return Groups(rows, queries, owner, grades, passages, hash_rows(passages["id"]))


@dataclass(frozen=True)
class PassageColumns(Schema):
    """A corpus: ids, texts, perhaps titles; no queries."""

    needed = 2

    @classmethod
    def from_names(cls, columns: Sequence[str]) -> PassageColumns:
        """The columns among ``names`` that have usual ones."""
        usual = (names.ID, names.TEXT, names.TITLE)
        return cls(pa.schema([(names.first_of(each, columns) or each[0], TEXT) for each in usual]))

    def groups(self, table: pa.Table, rows: np.ndarray) -> Groups:
        ids, texts = (text_of(table[name], name) for name in self.required)
        title = self.fields.names[-1]
        titles = text_of(table[title], title) if title in table.column_names else empty(len(table))
        passages = pa.table([ids, titles, texts], CORPUS)
        if FIELDS in table.column_names:
            passages = passages.append_column(FIELDS, table[FIELDS])
        nothing, grades = pa.nulls(len(table), pa.string()), np.zeros(len(table), np.int32)
        queries = pa.table([nothing, nothing], QUERIES)
        return Groups(rows, queries, np.arange(len(table)), grades, passages, hash_rows(passages["id"]))


@dataclass(frozen=True)
class QrelsColumns(Schema):
    """The judgements `BEIR_QRELS`."""

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
        queries, passages = pa.table([query_ids, texts], QUERIES), _ids_alone(ids)
        return Groups(rows, queries, np.arange(len(ids)), grades, passages, hash_rows(passages["id"]))


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
    usual = ("query", "query_text") if query is None else (query,)
    query = next((name for name in usual if name in schema.names), None)
    if query is None or "query_id" not in schema.names:
        return None
    for ending, ids_only in (("passages", False), ("document_ids", True)):
        positive, negative = f"positive_{ending}", f"negative_{ending}"
        if positive not in schema.names:
            continue
        kind = schema.field(positive).type
        if "docid" in list_fields(kind):
            wanted = list_type(kind, dict.fromkeys(_ENTRY, TEXT))
        elif ids_only and is_list(kind):
            wanted = TEXTS
        else:
            continue
        fields = [("query_id", TEXT), (query, TEXT), (positive, wanted)]
        if negative in (schema.names if negatives is None else negatives):
            fields.append((negative, wanted))
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


def _passages(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """The row of each passage in a column of texts, or of lists of texts; and the passages."""
    array = column.combine_chunks()
    owner = np.arange(len(array))
    if is_list(array.type):
        owner, array = np.repeat(owner, list_lengths(array)), pc.list_flatten(array)
    valid = array.is_valid()
    return owner[valid.to_numpy(zero_copy_only=False)], array.filter(valid)


def _entries(column: pa.ChunkedArray, ids_only: bool) -> tuple[np.ndarray, pa.Table]:
    """The row of each of Tevatron's passages, and the passages as rows of `CORPUS`."""
    fields = list_fields(column.type)
    if not fields:  # ids; or no row has a passage, so that their type is not known
        owner, ids = _passages(column) if is_list(column.type) else (np.empty(0, np.int64), pa.nulls(0))
        return owner, _ids_alone(text_of(ids))
    wanted = ["docid"] if ids_only else [name for name in _ENTRY if name in fields]
    found = dict(zip(wanted, flat_lists(column, wanted), strict=True))
    lengths, ids = found["docid"]
    texts = [text_of(found[name][1]) if name in found else empty(len(ids)) for name in ("title", "text")]
    return np.repeat(np.arange(len(lengths)), lengths), pa.table([text_of(ids), *texts], CORPUS)


def _ids_alone(ids: pa.Array) -> pa.Table:
    return pa.table([ids, empty(len(ids)), empty(len(ids))], CORPUS)
