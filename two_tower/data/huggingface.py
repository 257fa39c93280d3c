"""`data=huggingface`: dual-encoder data from the hub, or from local files, in the usual schemas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import pyarrow as pa

from two_tower.data.base import QUERIES, SPLITS, draw_dev, percentiles
from two_tower.data.reading import names
from two_tower.data.reading.groups import GroupSource, Links, Part
from two_tower.data.reading.hub import HubData, split_names
from two_tower.data.reading.schemas import PassageColumns, QrelsColumns, Schema, TevatronColumns, recognize
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
        data = partial(HubData, streaming=streaming, encoding=encoding)
        self._data = data(path, config, revision=revision)
        self._beir = [data(path, part, revision=revision) for part in ("corpus", "queries")] if qrels else []
        self._corpus = data(corpus, key="corpus") if corpus else next(iter(self._beir), None)
        self._rows = data(qrels, key="qrels") if qrels else self._data
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
        settings = (sorted(self._names.items()), self._columns, self._dev_share, self._dev_seed)
        return self._key("huggingface", *(data.fingerprint() for data in read), *settings)

    @cached_property
    def _schema(self) -> Schema:
        if self._beir:
            return QrelsColumns(self._beir_queries())
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
        tables = [QUERIES.empty_table()]
        for part in _passages(self._beir[1], False, names.QUERY_ID, (*names.TEXT, *names.QUERY)):
            bad = BadRows(self.max_bad_rows)
            tables += [groups.passages.select(QUERIES.names) for groups in part.schema.read(part.rows, bad)]
            self._report(part.rows.place, bad)
        return pa.concat_tables(tables).combine_chunks()

    def _parts(self, fields: bool = False) -> Iterator[Part]:
        schema = self._schema
        if self._corpus is not None:
            yield from _passages(self._corpus, fields, names.ID, names.TEXT, names.TITLE)
        for split, name in self._names.items():
            tables = self._rows.rows(name, schema, others=fields and self._corpus is None)
            yield from (Part(split, rows, schema) for rows in tables)

    def _divided(self, links: dict[str, Links]) -> dict[str, Links]:
        if not self._divides_train:
            return links
        train = links["train"]
        dev = draw_dev(percentiles(train.queries["text"].to_pylist(), self._dev_seed), self._dev_share, 0.05)
        return {**links, "train": train.part(~dev), "dev": train.part(dev)}


def _passages(data: HubData, fields: bool, *usual: Sequence[str]) -> Iterator[Part]:
    """The tables of ids and texts of a data set, whose columns have usual names."""
    for name in data.files:
        schema = PassageColumns.from_names(data.schema(name).names, *usual)
        yield from (Part(None, rows, schema) for rows in data.rows(name, schema, fields))
