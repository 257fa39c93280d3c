"""Which schema a data set has: found by the names and types of its columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pyarrow as pa

from two_tower.data.reading.arrays import is_list, list_fields, list_type
from two_tower.data.reading.schemas import ENTRY, TEXT, TEXTS, TevatronColumns, TextColumns
from two_tower.errors import UserError, one_of

__all__ = ["recognise"]

_QUERIES = ("query", "anchor", "question", "query_text", "q")
_POSITIVES = (
    "positive", "positives", "pos", "positive_passage", "passage", "document", "context", "answer", "answers", "text",
    "response",
)  # fmt: skip
_NEGATIVE = re.compile(r"(hard_)?neg(ative)?s?(_passage)?s?(_?\d+)?")
_KNOWN = (
    "a query (query, anchor, question) with a positive (positive, pos, passage, answer) and perhaps negatives "
    "(negative, negative_1 …, negatives), each a text or a list of texts; Tevatron's query_id, query, "
    "positive_passages, negative_passages, or positive_document_ids, negative_document_ids with data.corpus=DATA_SET; "
    "or BEIR's configurations corpus and queries, with data.qrels=DATA_SET"
)


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
    tevatron = _tevatron(schema, query, negatives) if positive is None else None
    if tevatron is not None:
        return tevatron
    texts = [field.name for field in schema if _is_text(field.type)]
    query = _column("query_column", query, texts, _QUERIES, schema, label)
    positive = _column("positive_column", positive, [t for t in texts if t != query], _POSITIVES, schema, label)
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
            wanted = list_type(kind, dict.fromkeys(ENTRY, TEXT))
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
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or (is_list(kind) and _is_text(kind.value_type))
