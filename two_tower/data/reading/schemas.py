"""The schemas in which dual-encoder data comes, recognised by their columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.data.reading.groups import Groups
from two_tower.data.reading.hub import flat_lists, list_fields, list_lengths, text_of
from two_tower.data.reading.unique import hash_rows
from two_tower.data.source import CORPUS
from two_tower.errors import UserError, one_of

__all__ = ["PassageColumns", "QrelsColumns", "Schema", "TevatronColumns", "TextColumns", "recognise"]

_QUERIES = ("query", "anchor", "question", "query_text", "q")
_POSITIVES = (
    "positive", "positives", "pos", "positive_passage", "passage", "document", "context", "answer", "answers", "text",
    "response",
)  # fmt: skip
_NEGATIVE = re.compile(r"(hard_)?neg(ative)?s?(_passage)?s?(_?\d+)?")
_KNOWN = (
    "a query (query, anchor, question) with a positive (positive, pos, passage, answer) and perhaps negatives "
    "(negative, negative_1 …, negatives), each a text or a list of texts; Tevatron's query_id, query, "
    "positive_passages, negative_passages; or BEIR's configurations corpus and queries, with data.qrels=DATA_SET"
)


class Schema(Protocol):
    """Makes groups of rows."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads."""

    @property
    def has_negatives(self) -> bool:
        """Whether there are passages that are neither relevant nor judged."""

    @property
    def has_ids(self) -> bool:
        """Whether queries and passages have ids; otherwise these are hashes of the texts."""

    def groups(self, table: pa.Table, rows: np.ndarray, repair: bool) -> Groups:
        """Make groups of a table.

        Args:
            table: N rows.
            rows: (N,) int64, their numbers.
            repair: whether to repair UTF-8 that was encoded twice.
        """


@dataclass(frozen=True)
class TextColumns:
    """Columns of texts, or of lists of texts, without ids; nulls are no passages.

    Attributes:
        query: name of the column of queries.
        positive: name of the column of relevant passages.
        negatives: names of the columns of other passages.
    """

    query: str
    positive: str
    negatives: tuple[str, ...]
    has_ids = False

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Schema`."""
        return self.query, self.positive, *self.negatives

    @property
    def has_negatives(self) -> bool:
        """See `Schema`."""
        return bool(self.negatives)

    def groups(self, table: pa.Table, rows: np.ndarray, repair: bool) -> Groups:
        """See `Schema.groups`."""
        columns = [_passages(table[name]) for name in (self.positive, *self.negatives)]
        owner = np.concatenate([owner for owner, _ in columns])
        texts = pa.concat_arrays([text_of(texts, repair) for _, texts in columns])
        grades = (np.arange(len(owner)) < len(columns[0][0])).astype(np.int32)
        keys = hash_rows(pa.chunked_array([texts]))
        passages = pa.table([_hexadecimal(keys), _empty(len(texts)), texts], CORPUS)
        queries = text_of(table[self.query], repair)
        query_ids = _hexadecimal(hash_rows(pa.chunked_array([queries])))
        return Groups(rows, query_ids, queries, owner, grades, passages, keys)


@dataclass(frozen=True)
class TevatronColumns:
    """Tevatron's rows: ids, and passages as lists of ``{docid, title, text}``.

    Attributes:
        has_negatives: whether there is a column ``negative_passages``.
        ids_only: whether titles and texts come from a corpus of their own.
    """

    has_negatives: bool
    ids_only: bool = False
    has_ids = True

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Schema`."""
        return ("query_id", "query", "positive_passages", "negative_passages")[: 3 + self.has_negatives]

    def groups(self, table: pa.Table, rows: np.ndarray, repair: bool) -> Groups:
        """See `Schema.groups`."""
        lists = [_entries(table[name], self.ids_only, repair) for name in self.columns[2:]]
        owner = np.concatenate([owner for owner, _ in lists])
        grades = (np.arange(len(owner)) < len(lists[0][0])).astype(np.int32)
        passages = pa.concat_tables([passages for _, passages in lists])
        query_ids = table["query_id"].cast(pa.string()).combine_chunks()
        queries = text_of(table["query"], repair)
        return Groups(rows, query_ids, queries, owner, grades, passages, hash_rows(passages["id"]))


@dataclass(frozen=True)
class PassageColumns:
    """A corpus: one passage in each row, no queries (see `two_tower.data.reading.groups.Part`).

    Attributes:
        id: name of the column of ids.
    """

    id: str
    has_negatives = False
    has_ids = True

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Schema`."""
        return self.id, "text"

    def groups(self, table: pa.Table, rows: np.ndarray, repair: bool) -> Groups:
        """See `Schema.groups`."""
        title = text_of(table["title"], repair) if "title" in table.column_names else _empty(len(table))
        passages = pa.table([text_of(table[self.id]), title, text_of(table["text"], repair)], CORPUS)
        nothing, every = pa.nulls(len(table), pa.string()), np.arange(len(table))
        return Groups(
            rows, nothing, nothing, every, np.zeros(len(table), np.int32), passages, hash_rows(passages["id"])
        )


@dataclass(frozen=True)
class QrelsColumns:
    """BEIR's judgements: ``query-id``, ``corpus-id``, ``score``; the fraction of a score is cut off.

    Attributes:
        queries: rows of the schema `two_tower.data.source.QUERIES`.
    """

    queries: pa.Table
    has_negatives = False
    has_ids = True
    columns = ("query-id", "corpus-id", "score")

    def groups(self, table: pa.Table, rows: np.ndarray, repair: bool) -> Groups:
        """See `Schema.groups`; the query of an unknown id is null, passages have ids only."""
        query_ids, ids = text_of(table["query-id"]), text_of(table["corpus-id"])
        queries = self.queries["text"].take(pc.index_in(query_ids, value_set=self.queries["id"])).combine_chunks()
        grades = pc.fill_null(table["score"].combine_chunks().cast(pa.int32(), safe=False), 0).to_numpy()
        passages = pa.table([ids, _empty(len(ids)), _empty(len(ids))], CORPUS)
        return Groups(rows, query_ids, queries, np.arange(len(ids)), grades, passages, hash_rows(passages["id"]))


def recognise(
    schema: pa.Schema,
    label: str,
    query: str | None = None,
    positive: str | None = None,
    negatives: Sequence[str] | None = None,
) -> TextColumns | TevatronColumns:
    """Find out what the columns of a data set mean.

    Args:
        schema: its columns.
        label: its name, for messages.
        query: name of the column of queries; None finds it by its usual names.
        positive: the same for relevant passages.
        negatives: the same for other passages; an empty list is none.

    Raises:
        UserError: a given column does not exist or holds no text, or the schema is none of the known ones.
    """
    tevatron = [name for name in ("query_id", "query", "positive_passages") if name in schema.names]
    if len(tevatron) == 3 and "docid" in list_fields(schema.field("positive_passages").type) and positive is None:
        return TevatronColumns(has_negatives="negative_passages" in schema.names)
    texts = [field.name for field in schema if _is_text(field.type)]
    query = _column("query_column", query, texts, _QUERIES, schema, label)
    positive = _column("positive_column", positive, [t for t in texts if t != query], _POSITIVES, schema, label)
    others = [name for name in texts if name not in (query, positive)]
    if negatives is None:
        negatives = [name for name in others if _NEGATIVE.fullmatch(name)]
    for name in negatives:
        _column("negative_columns", name, others, (), schema, label)
    return TextColumns(query, positive, tuple(negatives))


def _column(key: str, given: str | None, texts: list[str], usual: Iterable[str], schema: pa.Schema, label: str) -> str:
    if given is None:
        found = next((name for name in usual if name in texts), None)
        if found is None:
            columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
            raise UserError(f"{label} has the columns {columns}, but must have {_KNOWN}; or set data.{key}=COLUMN")
        return found
    if given not in texts:
        problem = "holds no text, or is used already" if given in schema.names else "does not exist"
        raise UserError(f"data.{key}: the column {given} of {label} {problem}; {one_of(given, texts)}")
    return given


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or (_is_list(kind) and _is_text(kind.value_type))


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _passages(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Which row each passage of a column of texts, or of lists of texts, belongs to; and the passages."""
    array = column.combine_chunks()
    owner = np.arange(len(array))
    if _is_list(array.type):
        owner, array = np.repeat(owner, list_lengths(array)), pc.list_flatten(array)
    there = array.is_valid()
    return owner[there.to_numpy(zero_copy_only=False)], array.filter(there)


def _entries(column: pa.ChunkedArray, ids_only: bool, repair: bool) -> tuple[np.ndarray, pa.Table]:
    """Which row each of Tevatron's passages belongs to, and the passages as rows of `CORPUS`."""
    fields = list_fields(column.type)
    if not fields:  # no row has a passage, so their type is not known
        return np.empty(0, np.int64), CORPUS.empty_table()
    wanted = ["docid"] if ids_only else [name for name in ("docid", "title", "text") if name in fields]
    found = dict(zip(wanted, flat_lists(column, wanted), strict=True))
    lengths, ids = found["docid"]
    texts = [text_of(found[name][1], repair) if name in found else _empty(len(ids)) for name in ("title", "text")]
    return np.repeat(np.arange(len(lengths)), lengths), pa.table([text_of(ids), *texts], CORPUS)


def _empty(count: int) -> pa.Array:
    return pa.repeat(pa.scalar("", pa.string()), count)


def _hexadecimal(keys: np.ndarray) -> pa.Array:
    """(N,) uint64 as strings of 16 digits."""
    high_byte_first = keys.astype(">u8").view(np.uint8)
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    text = np.stack([digits[high_byte_first >> 4], digits[high_byte_first & 15]], axis=1)
    offsets = np.arange(len(keys) + 1, dtype=np.int32) * 16
    return pa.StringArray.from_buffers(len(keys), pa.py_buffer(offsets), pa.py_buffer(text.tobytes()))
