"""`data=msmarco_v1_1` and `data=msmarco_v2_1`: `microsoft/ms_marco` from the hub, or its Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.data.base import CORPUS, QUERIES, SPLITS
from two_tower.data.reading.arrow import as_text, column_types, flat_lists, list_fields, list_type, text_of
from two_tower.data.reading.content import check_encoding
from two_tower.data.reading.groups import Groups, GroupSource, Part
from two_tower.data.reading.hub import HubData, split_names
from two_tower.data.reading.rows import Rows
from two_tower.data.reading.unique import hash_rows
from two_tower.errors import BadRows, UserError, one_of
from two_tower.ragged import expand_ranges

_COLUMNS = ("query_id", "query", "passages")
_LISTS = {"is_selected": pa.int32(), "passage_text": pa.string()}


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
        files_of_one_version = any(Path(path).expanduser().glob("*.parquet"))
        check_encoding(encoding)
        config = None if files_of_one_version else version
        self._data = HubData(path, config, streaming, revision, encoding=encoding)

    def splits(self) -> tuple[str, ...]:
        return tuple(split for split in self.corpus_splits if split != "test")  # it has no marked passages

    def fingerprint(self) -> str:
        return self._key(
            "msmarco",
            self._data.fingerprint(),
            *filter(None, [self._data.encoding]),
            self.corpus_splits,
            self.unique_passages,
        )

    def _no_split(self, split: str) -> str:
        if split == "test":
            return f"The split test of {self.name} has no marked passages, so nothing can be evaluated on it"
        if split in SPLITS:
            return f"The split {split} of {self.name} is not among data.corpus_splits"
        return super()._no_split(split)

    def _parts(self, fields: bool = False) -> Iterator[Part]:
        names = split_names(self._data)
        for split in self.corpus_splits:
            if split not in names:
                raise UserError(f"{self._data.label} has no split {split}: leave it out of data.corpus_splits")
            self._data.require(names[split], _COLUMNS)
            kind = self._data.schema(names[split]).field("passages").type
            if not {*_LISTS} <= {*list_fields(kind)}:
                raise UserError(
                    f"{self._data.label} {names[split]}: the column passages must hold lists {' and '.join(_LISTS)}, "
                    f"not {list_fields(kind)}"
                )
            kinds = (pa.string(), pa.string(), list_type(kind, _LISTS))
            for rows in self._data.rows(names[split], pa.schema(list(zip(_COLUMNS, kinds, strict=True)))):
                yield Part(split, str(rows.place), partial(self._read_rows, rows))

    def _read_rows(self, rows: Rows, bad: BadRows) -> Iterator[Groups]:
        for table, numbers in rows.read(bad):
            with column_types(rows.place):
                (lengths, _), (text_lengths, _) = flat_lists(table["passages"], _LISTS)
                uneven = lengths != text_lengths
                bad.add_where(uneven, "lists of unequal length", rows.place, numbers)
                if uneven.any():
                    table, numbers = table.filter(pa.array(~uneven)), numbers[~uneven]
                groups = self._groups(table, numbers)
            yield groups

    def _groups(self, table: pa.Table, rows: np.ndarray) -> Groups:
        (lengths, selected), (_, texts) = flat_lists(table["passages"], _LISTS)
        query_ids = as_text(table["query_id"], "query_id")
        owner, place = expand_ranges(np.zeros_like(lengths), lengths)
        ids = pc.binary_join_element_wise(query_ids.take(pa.array(owner)), pa.array(place).cast(pa.string()), "-")
        texts = text_of(texts)
        passages = pa.table([pc.fill_null(ids, ""), pa.repeat("", len(ids)), texts], CORPUS)
        queries = pa.table([query_ids, text_of(table["query"])], QUERIES)
        grades = pc.fill_null(selected.cast(pa.int32()), 0).to_numpy()
        keys = hash_rows(passages["text" if self.unique_passages else "id"])
        return Groups(rows, queries, owner, grades, passages, keys)
