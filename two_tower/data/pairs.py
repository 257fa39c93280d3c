"""`data=pairs`: a user's own pairs of a query and a passage that answers it, in one file."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.cache import file_fingerprint
from two_tower.data.base import CORPUS, QRELS, QUERIES, TRIPLETS, Source, draw_dev, percentiles
from two_tower.data.reading.columns import find_columns, name_of
from two_tower.data.reading.unique import Numbering, OneText, hash_rows, hexadecimal
from two_tower.errors import BadRows, UserError, one_of

# What columns are usually called, best first.
_USUAL = {
    "query": ("query", "question", "anchor", "query_text", "search_query", "sentence1"),
    "positive": ("passage", "document", "positive", "answer", "text", "passage_text", "context", "sentence2"),
    "title": ("title", "passage_title", "document_title"),
    "negative": ("negative", "hard_negative", "negative_passage", "negative_1"),
}
# What has an id, and the texts that an id stands for.
_TEXTS_OF = {"query_id": ("query",), "passage_id": ("title", "positive")}
_SPLITS = ("train", "dev")


class PairsSource(Source):
    """A CSV, TSV, JSON lines or Parquet file with a query and one passage that answers it in each row.

    Equal passages are one document, equal queries one query with several relevant documents. All passages are in the
    corpus of both splits. A TSV file of two columns needs no header.
    """

    def __init__(
        self,
        path: Path | str,
        query_column: str | None = None,
        positive_column: str | None = None,
        title_column: str | None = None,
        negative_column: str | None = None,
        query_id_column: str | None = None,
        passage_id_column: str | None = None,
        dev_share: float | None = None,
        dev_seed: int = 0,
        max_bad_rows: float = 0.001,
        name: str | None = None,
    ) -> None:
        if dev_share is not None and not 0 < dev_share < 1:
            raise ValueError(f"dev_share={dev_share} must be between 0 and 1: validation needs queries of its own")
        self.path, self.dev_share, self.dev_seed = Path(path).expanduser(), dev_share, dev_seed
        super().__init__(name or name_of(self.path), max_bad_rows)
        chosen = {
            "query": query_column, "positive": positive_column, "title": title_column, "negative": negative_column,
            "query_id": query_id_column, "passage_id": passage_id_column,
        }  # fmt: skip
        required = ("query", "positive")
        self._file, self._columns = find_columns(self.path, chosen, _USUAL, required, required)

    def corpus(self) -> Iterator[pa.RecordBatch]:
        seen = Numbering()
        for table in self._pairs():
            passages = table.select(["passage_id", "title", "positive"]).rename_columns(CORPUS.names)
            negatives = table.filter(pc.not_equal(table["negative"], ""))
            titles = pa.chunked_array([pa.repeat(pa.scalar(""), len(negatives))])
            others = pa.table([negatives["negative_id"], titles, negatives["negative"]], CORPUS)
            both = pa.concat_tables([passages, others])
            yield from both.filter(pa.array(seen.add(hash_rows(both["id"]))[1])).to_batches()

    def splits(self) -> tuple[str, ...]:
        return _SPLITS

    def queries(self, split: str) -> pa.Table:
        """The queries of a split, in the order of their first rows."""
        queries, is_dev, _ = self._judged
        return queries.filter(pa.array(is_dev == self._wants_dev(split)))

    def qrels(self, split: str) -> pa.Table:
        wants_dev, qrels = self._wants_dev(split), self._judged[2]
        return qrels.filter(pa.array(self._is_dev(qrels["query_id"]) == wants_dev))

    def triplets(self) -> Iterator[pa.RecordBatch] | None:
        return self._triplets() if "negative" in self._columns else None

    def fingerprint(self) -> str:
        file = f"{self.path.name} {file_fingerprint(self.path)}"
        return self._key(file, self._columns, self.dev_share, self.dev_seed)

    def _triplets(self) -> Iterator[pa.RecordBatch]:
        for table in self._pairs():
            wanted = ~self._is_dev(table["query_id"]) & pc.not_equal(table["negative"], "").to_numpy()
            triplets = table.select(["query_id", "passage_id", "negative_id"]).rename_columns(TRIPLETS.names)
            yield from triplets.filter(pa.array(wanted)).to_batches()

    def _wants_dev(self, split: str) -> bool:
        if split not in _SPLITS:
            raise UserError(f"{self.name} has no split {split!r}: {one_of(split, _SPLITS)}")
        return split == "dev"

    def _is_dev(self, query_ids: pa.ChunkedArray) -> np.ndarray:
        return self._dev_ids.find(hash_rows(query_ids)) >= 0

    @cached_property
    def _dev_ids(self) -> Numbering:
        ids = Numbering()
        ids.add(hash_rows(self.queries("dev")["id"]))
        return ids

    @cached_property
    def _judged(self) -> tuple[pa.Table, np.ndarray, pa.Table]:
        """All queries, which of them are of dev (Q,) bool, and all judgements."""
        seen_queries, seen_pairs = Numbering(), Numbering()
        queries, pairs = [], []
        for table in self._pairs():
            rows = table.select(["query_id", "query"]).rename_columns(QUERIES.names)
            queries.append(rows.filter(pa.array(seen_queries.add(hash_rows(rows["id"]))[1])))
            rows = table.select(["query_id", "passage_id"])
            pairs.append(rows.filter(pa.array(seen_pairs.add(hash_rows(*rows.columns))[1])))
        distinct = pa.concat_tables(queries)
        query_ids, document_ids = pa.concat_tables(pairs).columns
        grades = pa.chunked_array([pa.repeat(pa.scalar(1, pa.int32()), len(query_ids))])
        return distinct, self._draw_dev(distinct["text"]), pa.table([query_ids, document_ids, grades], QRELS)

    def _draw_dev(self, queries: pa.ChunkedArray) -> np.ndarray:
        """Which queries are of dev, (Q,) bool: at least one is and one is not."""
        draws = percentiles(queries.to_pylist(), self.dev_seed)
        if draws.min() == draws.max():
            raise UserError(f"{self.path} holds only one query: training and validation need one each at least")
        return (draw_dev(draws, self.dev_share, 0.1) | (draws == draws.min())) & (draws != draws.max())

    def _pairs(self) -> Iterator[pa.Table]:
        """The good rows: id and text of query, positive and negative, and the title; "" for what is missing."""
        bad, empty = BadRows(self.max_bad_rows), True
        checks = {role: OneText() for role in _TEXTS_OF if role in self._columns}
        required = [name for role, name in self._columns.items() if role not in ("title", "negative")]
        for table, rows in self._file.read(list(self._columns.values()), required, bad):
            table = self._complete(table.rename_columns(list(self._columns)))
            for role, check in checks.items():
                wrong = check.contradictions(table[role], *(table[text] for text in _TEXTS_OF[role]))
                bad.add_where(wrong, "id that another text had before", self.path, rows, table[role])
                table, rows = table.filter(pa.array(~wrong)), rows[~wrong]
            empty = empty and not len(table)
            yield table
        if empty:
            raise UserError(f"{self.path} holds no row with a query and a passage")
        self._report(self.path, bad)

    def _complete(self, table: pa.Table) -> pa.Table:
        nothing = pa.chunked_array([pa.repeat(pa.scalar(""), len(table))])
        for name in _USUAL:
            if name not in self._columns:
                table = table.append_column(name, nothing)
        for role, texts in _TEXTS_OF.items():
            if role not in self._columns:
                table = table.append_column(role, hexadecimal(hash_rows(*(table[text] for text in texts))))
        return table.append_column("negative_id", hexadecimal(hash_rows(nothing, table["negative"])))
