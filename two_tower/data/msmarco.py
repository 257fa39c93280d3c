"""`data=msmarco_v1_1` and `data=msmarco_v2_1`: `microsoft/ms_marco` from the hub, or its Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.data.base import CORPUS, MS_MARCO, QUERIES, SPLITS
from two_tower.data.reading.arrow import as_text, empty, flat_lists, list_fields, list_type, text_of
from two_tower.data.reading.groups import GroupSource, Part
from two_tower.data.reading.hub import HubData, split_names
from two_tower.data.reading.schemas import Groups, Schema
from two_tower.errors import UserError, one_of
from two_tower.ragged import expand_ranges

_LISTS = {"is_selected": pa.int32(), "passage_text": pa.string()}


@dataclass(frozen=True)
class _Columns(Schema):
    """``query_id``, ``query`` and ``passages``, lists of marks and of texts."""

    key: str = "text"
    needed = 3

    def groups(self, table: pa.Table, rows: np.ndarray) -> Groups:
        (lengths, selected), (_, texts) = flat_lists(table["passages"], _LISTS)
        query_ids = as_text(table["query_id"], "query_id")
        owner, place = expand_ranges(np.zeros_like(lengths), lengths)
        ids = pc.binary_join_element_wise(query_ids.take(pa.array(owner)), pa.array(place).cast(pa.string()), "-")
        passages = pa.table([pc.fill_null(ids, ""), empty(len(ids)), text_of(texts)], CORPUS)
        queries = pa.table([query_ids, text_of(table["query"])], QUERIES)
        grades = pc.fill_null(selected.cast(pa.int32()), 0).to_numpy()
        return Groups(rows, queries, owner, grades, passages)


class MsMarco(GroupSource):
    """Questions to a search engine, each with about ten passages that it showed; a person marked the answers.

    A marked passage (``is_selected``) is relevant, the others of its query were judged irrelevant: they are grade 0 in
    the judgements and the negatives of the triplets. They may answer the query too, so as negatives they have noise.
    Queries without a marked passage are left out (3 % in v1.1, 38 % in v2.1), their passages are not.

    A passage's id is ``QUERY-NUMBER``: the query that it came with, and its place there from 0. A text that came
    with several queries is one passage, with the id of its first appearance in the order of ``corpus_splits``.
    """

    repeated_queries = False
    judged_negatives = True
    licence = MS_MARCO

    def __init__(
        self, version: str = "v1.1", path: Path | str = "microsoft/ms_marco", streaming: bool = True,
        revision: str | None = None, corpus_splits: Sequence[str] = ("train", "dev"), unique_passages: bool = True,
        encoding: str | None = None, max_bad_rows: float = 0.001, name: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(name or f"msmarco-{version}", max_bad_rows)
        for split in corpus_splits:
            if split not in SPLITS:
                raise ValueError(f"corpus_splits names {split!r}; {one_of(split, SPLITS)}")
        self.corpus_splits = tuple(split for split in SPLITS if split in corpus_splits)
        if not self.corpus_splits:
            raise ValueError("corpus_splits is empty: name at least one of train, dev, test")
        self.unique_passages = unique_passages
        config = None if any(Path(path).expanduser().glob("*.parquet")) else version  # files of one version
        self._data = HubData(path, config, streaming, revision, encoding=encoding)

    def splits(self) -> tuple[str, ...]:
        return tuple(split for split in self.corpus_splits if split != "test")  # it has no marked passages

    def fingerprint(self) -> str:
        return self._key("msmarco", self._data.fingerprint(), self.corpus_splits, self.unique_passages)

    def _no_split(self, split: str) -> UserError:
        if split == "test":
            return UserError(f"The split test of {self.name} has no marked passages: nothing can be evaluated on it")
        if split in SPLITS:
            return UserError(f"The split {split} of {self.name} is not among data.corpus_splits")
        return super()._no_split(split)

    def _parts(self, fields: bool = False) -> Iterator[Part]:
        names = split_names(self._data)
        for split in self.corpus_splits:
            if split not in names:
                raise UserError(f"{self._data.label} has no split {split}: leave it out of data.corpus_splits")
            schema = self._columns(names[split])
            yield from (Part(split, rows, schema) for rows in self._data.rows(names[split], schema))

    def _columns(self, name: str) -> _Columns:
        self._data.require(name, ("query_id", "query", "passages"))
        kind = self._data.schema(name).field("passages").type
        if not {*_LISTS} <= {*list_fields(kind)}:
            raise UserError(
                f"{self._data.label} {name}: the column passages must hold lists {' and '.join(_LISTS)}, "
                f"not {list_fields(kind)}"
            )
        fields = {"query_id": pa.string(), "query": pa.string(), "passages": list_type(kind, _LISTS)}
        return _Columns(pa.schema(fields), "text" if self.unique_passages else "id")
