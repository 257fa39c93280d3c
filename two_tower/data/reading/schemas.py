"""The schemas in which dual-encoder data comes, and how their rows become groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.data.base import CORPUS
from two_tower.data.reading.arrays import flat_lists, is_list, list_fields, list_lengths, text_of
from two_tower.data.reading.groups import Groups
from two_tower.data.reading.unique import hash_rows

__all__ = ["ENTRY", "TEXT", "TEXTS", "PassageColumns", "QrelsColumns", "Schema", "TevatronColumns", "TextColumns"]

TEXT, TEXTS = pa.string(), pa.list_(pa.string())
#: The fields of Tevatron's passages.
ENTRY = ("docid", "title", "text")


class Schema(Protocol):
    """Makes groups of rows."""

    @property
    def fields(self) -> pa.Schema:
        """The columns that it reads, and what they hold where a file does not say it (JSON lines)."""

    @property
    def required(self) -> Sequence[str]:
        """Those of the columns that every file must have."""

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
        fields: the columns of the queries, of relevant passages, and any number of others with other passages.
    """

    fields: pa.Schema
    has_ids = False

    @property
    def required(self) -> Sequence[str]:
        """See `Schema`."""
        return self.fields.names[:2]

    @property
    def has_negatives(self) -> bool:
        """See `Schema`."""
        return len(self.fields) > 2

    def groups(self, table: pa.Table, rows: np.ndarray, repair: bool) -> Groups:
        """See `Schema.groups`."""
        query, *others = self.fields.names
        columns = [_passages(table[name]) for name in others if name in table.column_names]
        owner = np.concatenate([owner for owner, _ in columns])
        texts = pa.concat_arrays([text_of(texts, repair) for _, texts in columns])
        grades = (np.arange(len(owner)) < len(columns[0][0])).astype(np.int32)
        keys = hash_rows(pa.chunked_array([texts]))
        passages = pa.table([_hexadecimal(keys), _empty(len(texts)), texts], CORPUS)
        queries = text_of(table[query], repair)
        query_ids = _hexadecimal(hash_rows(pa.chunked_array([queries])))
        return Groups(rows, query_ids, queries, owner, grades, passages, keys)


@dataclass(frozen=True)
class TevatronColumns:
    """Tevatron's rows: ids, and passages as lists of ``{docid, title, text}`` or of ids.

    Attributes:
        fields: the columns of the queries' ids, of the queries, of relevant passages, perhaps of others.
        ids_only: whether titles and texts come from a corpus of their own.
    """

    fields: pa.Schema
    ids_only: bool = False
    has_ids = True

    @property
    def required(self) -> Sequence[str]:
        """See `Schema`."""
        return self.fields.names[:3]

    @property
    def has_negatives(self) -> bool:
        """See `Schema`."""
        return len(self.fields) > 3

    def groups(self, table: pa.Table, rows: np.ndarray, repair: bool) -> Groups:
        """See `Schema.groups`."""
        query_id, query, *others = self.fields.names
        lists = [_entries(table[name], self.ids_only, repair) for name in others if name in table.column_names]
        owner = np.concatenate([owner for owner, _ in lists])
        grades = (np.arange(len(owner)) < len(lists[0][0])).astype(np.int32)
        passages = pa.concat_tables([passages for _, passages in lists])
        query_ids = table[query_id].cast(pa.string()).combine_chunks()
        queries = text_of(table[query], repair)
        return Groups(rows, query_ids, queries, owner, grades, passages, hash_rows(passages["id"]))


@dataclass(frozen=True)
class PassageColumns:
    """A corpus: one passage in each row, no queries (see `two_tower.data.reading.groups.Part`).

    Attributes:
        required: names of the columns of ids and of texts.
    """

    required: Sequence[str]
    has_negatives = False
    has_ids = True

    @classmethod
    def of(cls, names: Sequence[str]) -> PassageColumns:
        """The columns among ``names``, whose usual names are BEIR's, Tevatron's and Pyserini's."""
        usual = (("docid", "_id", "id"), ("text", "contents"))
        return cls([next((name for name in those if name in names), those[0]) for those in usual])

    @property
    def fields(self) -> pa.Schema:
        """See `Schema`."""
        return pa.schema([(name, TEXT) for name in (*self.required, "title")])

    def groups(self, table: pa.Table, rows: np.ndarray, repair: bool) -> Groups:
        """See `Schema.groups`."""
        own_id, own_text = self.required
        title = text_of(table["title"], repair) if "title" in table.column_names else _empty(len(table))
        passages = pa.table([text_of(table[own_id]), title, text_of(table[own_text], repair)], CORPUS)
        nothing, every = pa.nulls(len(table), pa.string()), np.arange(len(table))
        return Groups(
            rows, nothing, nothing, every, np.zeros(len(table), np.int32), passages, hash_rows(passages["id"])
        )


@dataclass(frozen=True)
class QrelsColumns:
    """BEIR's judgements: ``query-id``, ``corpus-id``, ``score``; the fraction of a score is cut off.

    Attributes:
        queries: rows of the schema `two_tower.data.base.QUERIES`.
    """

    queries: pa.Table
    has_negatives = False
    has_ids = True
    fields = pa.schema([("query-id", TEXT), ("corpus-id", TEXT), ("score", pa.int32())])
    required = ("query-id", "corpus-id", "score")

    def groups(self, table: pa.Table, rows: np.ndarray, repair: bool) -> Groups:
        """See `Schema.groups`; the query of an unknown id is null, passages have ids only."""
        query_ids, ids = text_of(table["query-id"]), text_of(table["corpus-id"])
        queries = self.queries["text"].take(pc.index_in(query_ids, value_set=self.queries["id"])).combine_chunks()
        grades = pc.fill_null(table["score"].combine_chunks().cast(pa.int32(), safe=False), 0).to_numpy()
        passages = pa.table([ids, _empty(len(ids)), _empty(len(ids))], CORPUS)
        return Groups(rows, query_ids, queries, np.arange(len(ids)), grades, passages, hash_rows(passages["id"]))


def _passages(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Which row each passage of a column of texts, or of lists of texts, belongs to; and the passages."""
    array = column.combine_chunks()
    owner = np.arange(len(array))
    if is_list(array.type):
        owner, array = np.repeat(owner, list_lengths(array)), pc.list_flatten(array)
    there = array.is_valid()
    return owner[there.to_numpy(zero_copy_only=False)], array.filter(there)


def _entries(column: pa.ChunkedArray, ids_only: bool, repair: bool) -> tuple[np.ndarray, pa.Table]:
    """Which row each of Tevatron's passages belongs to, and the passages as rows of `CORPUS`."""
    fields = list_fields(column.type)
    if not fields:  # ids; or no row has a passage, so that their type is not known
        owner, ids = _passages(column) if is_list(column.type) else (np.empty(0, np.int64), pa.nulls(0))
        return owner, pa.table([text_of(ids), _empty(len(ids)), _empty(len(ids))], CORPUS)
    wanted = ["docid"] if ids_only else [name for name in ENTRY if name in fields]
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
