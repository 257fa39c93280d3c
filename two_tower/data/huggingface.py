"""`data=huggingface`: dual-encoder data from the hub, or from local files, in the usual schemas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import pyarrow as pa

from two_tower.data.base import QUERIES, SPLITS, draw_dev, percentiles
from two_tower.data.reading import names
from two_tower.data.reading.arrow import column_types, text_of
from two_tower.data.reading.content import check_encoding
from two_tower.data.reading.groups import Groups, GroupSource, Links, Part
from two_tower.data.reading.hub import HubData, split_names
from two_tower.data.reading.rows import Rows
from two_tower.data.reading.schemas import (
    BEIR_QRELS,
    PassageColumns,
    QrelsColumns,
    Schema,
    TevatronColumns,
    TextColumns,
    recognize,
)
from two_tower.data.reading.table_files import scalars
from two_tower.errors import BadRows, UserError


class HuggingFace(GroupSource):
    """Read a data set whose columns are those of one of three schemas.

    - *Texts*: a query with a positive and perhaps negatives, each a text or a list of texts. There are no ids, so
      equal texts are one query, or one passage, with a hash of the text as its id. The corpus is all passages.
    - *Tevatron*: ``query_id``, ``query``, ``positive_passages`` and ``negative_passages``, lists of
      ``{docid, title, text}``, perhaps with a larger corpus of its own; or ``positive_document_ids`` and
      ``negative_document_ids`` with such a corpus (``docid``, ``title``, ``text`` or ``contents``).
    - *BEIR*: the configurations ``corpus`` and ``queries``, and ``qrels`` as a data set of its own.

    Negatives were not judged: they are in the triplets, but not in the judgements. Titles are read where there are any.
    """

    def __init__(
        self, path: Path | str, config: str | None = None, corpus: Path | str | None = None,
        qrels: Path | str | None = None, splits: Mapping[str, str | None] | None = None,
        query_column: str | None = None, positive_column: str | None = None,
        negative_columns: Sequence[str] | None = None, dev_share: float | None = None, dev_seed: int = 0,
        streaming: bool = True, revision: str | None = None, encoding: str | None = None, max_bad_rows: float = 0.001,
        name: str | None = None,
    ) -> None:  # fmt: skip
        if dev_share is not None and not 0 <= dev_share < 1:
            raise ValueError(f"dev_share={dev_share} must be a fraction of the queries, from 0 to less than 1")
        if qrels is not None and corpus is not None:
            raise ValueError("qrels belongs to BEIR's schema, data.corpus to Tevatron's: set one of them")
        super().__init__(name or Path(path).name, max_bad_rows)
        check_encoding(encoding)
        data = partial(HubData, streaming=streaming, encoding=encoding)
        self._data = data(path, config, revision=revision)
        self._beir = [data(path, part, revision=revision) for part in ("corpus", "queries")] if qrels else []
        self._corpus = data(corpus, key="corpus") if corpus else next(iter(self._beir), None)
        self._rows = data(qrels, key="qrels") if qrels else self._data
        self._encoding = [encoding] if encoding else []
        self._wanted_splits = dict(splits or {})
        self._columns = (query_column, positive_column, None if negative_columns is None else tuple(negative_columns))
        self._dev_share, self._dev_seed = dev_share, dev_seed
        self.judged_negatives = qrels is not None

    @cached_property
    def _names(self) -> dict[str, str]:
        return split_names(self._rows, self._wanted_splits)

    @property
    def _divides_train(self) -> bool:
        return "train" in self._names and "dev" not in self._names and self._dev_share != 0

    def splits(self) -> tuple[str, ...]:
        return tuple(split for split in SPLITS if split in self._names or (split == "dev" and self._divides_train))

    def triplets(self) -> Iterator[pa.RecordBatch] | None:
        """Every (query, positive, negative) of ``train``, query by query; None where there are no negatives."""
        return super().triplets() if self._schema.has_negatives else None

    def fingerprint(self) -> str:
        read = [self._rows, *self._beir] if self._corpus is None or self._beir else [self._rows, self._corpus]
        settings = (*self._encoding, sorted(self._names.items()), self._columns, self._dev_share, self._dev_seed)
        return self._key("huggingface", *(data.fingerprint() for data in read), *settings)

    @cached_property
    def _schema(self) -> Schema:
        if self._beir:
            return QrelsColumns(BEIR_QRELS, self._beir_queries())
        split = next(iter(self._names.values()))
        schema = recognize(self._data.schema(split), f"{self._data.label} {split}", *self._columns)
        if isinstance(schema, TevatronColumns):
            if schema.ids_only and self._corpus is None:
                raise UserError(
                    f"The column {schema.fields.names[2]} of {self._data.label} holds ids: set data.corpus to the data "
                    "set of the passages (docid, title, text)"
                )
            return replace(schema, ids_only=self._corpus is not None)
        if self._corpus is not None:
            raise UserError(
                f"data.corpus is for Tevatron's schema, and the columns {', '.join(schema.fields.names)} of "
                f"{self._data.label} are texts: leave data.corpus out"
            )
        return schema

    def _beir_queries(self) -> pa.Table:
        data, tables = self._beir[1], [QUERIES.empty_table()]
        for split in data.files:
            usual, columns = (names.QUERY_ID, (*names.TEXT, *names.QUERY)), data.schema(split).names
            found = [names.first_of(each, columns) or each[0] for each in usual]
            data.require(split, found)
            for rows in data.rows(split, pa.schema(dict.fromkeys(found, pa.string()))):
                bad, total = BadRows(self.max_bad_rows), 0
                for table, _ in rows.read(bad):
                    with column_types(rows.place):
                        tables.append(pa.table([text_of(table[name], name) for name in found], QUERIES))
                    total += len(table)
                bad.check(total)
                self._report(rows.place, bad)
        return pa.concat_tables(tables).combine_chunks()

    def _parts(self, fields: bool = False) -> Iterator[Part]:
        if self._corpus is not None:
            for split in self._corpus.files:
                columns = PassageColumns.from_names(self._corpus.schema(split).names)
                yield from self._parts_of(None, self._corpus, split, columns, fields and self._has_others)
        alone = fields and self._corpus is None and self._has_others
        for split, name in self._names.items():
            yield from self._parts_of(split, self._rows, name, self._schema, alone)

    @cached_property
    def _has_others(self) -> bool:
        """Whether passages have scalars beside id, title and text."""
        if self._corpus is None:
            used = set(self._schema.fields.names)
            columns = [self._data.schema(name) for name in self._names.values()]
            return isinstance(self._schema, TextColumns) and any(set(scalars(each)) - used for each in columns)
        schemas = [self._corpus.schema(split) for split in self._corpus.files]
        return any(set(scalars(each)) - {*PassageColumns.from_names(each.names).fields.names} for each in schemas)

    def _parts_of(self, split: str | None, data: HubData, name: str, schema: Schema, others: bool) -> Iterator[Part]:
        closed = self._corpus is not None and split is not None
        if isinstance(schema, QrelsColumns):
            found = data.judgements(name, schema.fields)
        else:
            data.require(name, schema.required)
            found = data.rows(name, schema.fields, others)
        for rows in found:
            yield Part(split, str(rows.place), partial(self._groups, rows, schema), closed, schema.has_ids)

    def _groups(self, rows: Rows, schema: Schema, bad: BadRows) -> Iterator[Groups]:
        for table, numbers in rows.read(bad):
            with column_types(rows.place):
                groups = schema.groups(table, numbers)
            yield groups

    def _divided(self, links: dict[str, Links]) -> dict[str, Links]:
        if not self._divides_train:
            return links
        train = links["train"]
        dev = draw_dev(percentiles(train.queries["text"].to_pylist(), self._dev_seed), self._dev_share, 0.05)
        return {**links, "train": train.part(~dev), "dev": train.part(dev)}
