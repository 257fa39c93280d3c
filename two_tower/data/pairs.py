"""`data=pairs`: a user's own pairs of a query and a passage that answers it, in one file."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.cache import notice
from two_tower.data.base import CORPUS, FIELDS, QRELS, QUERIES, TRIPLETS, Source, draw_dev, percentiles
from two_tower.data.passages import Passages
from two_tower.data.reading import names
from two_tower.data.reading.arrow import empty, leave_out
from two_tower.data.reading.content import bare_name
from two_tower.data.reading.rows import read_all
from two_tower.data.reading.table_files import find_columns, open_tables
from two_tower.data.reading.unique import Numbering, OneText, hash_rows, hexadecimal
from two_tower.errors import BadRows, UserError, one_of

_USUAL = {"query": names.QUERY, "positive": names.POSITIVE, "title": names.TITLE, "negative": names.NEGATIVE}
_ROLES = (*_USUAL, "query_id", "passage_id")
# What has an id, and the texts that an id stands for.
_TEXTS_OF = {"query_id": ("query",), "passage_id": ("title", "positive")}
_SPLITS = ("train", "dev")


class PairsSource(Source):
    """A table with a query and one passage that answers it in each row, in a file or in the files of a folder.

    Equal passages are one document, equal queries one query with several relevant documents. All passages are in the
    corpus of both splits. With ``corpus``, a table of its own, its passages are the corpus, and the answers are looked
    up there: by their ids where the pairs have such a column, else by their texts; those that are not there are added.
    """

    def __init__(
        self, path: Path | str, query_column: str | None = None, positive_column: str | None = None,
        title_column: str | None = None, negative_column: str | None = None, query_id_column: str | None = None,
        passage_id_column: str | None = None, corpus: Path | str | None = None, dev_share: float | None = None,
        dev_seed: int = 0, encoding: str | None = None, max_bad_rows: float = 0.001, name: str | None = None,
    ) -> None:  # fmt: skip
        if dev_share is not None and not 0 < dev_share < 1:
            raise ValueError(f"dev_share={dev_share} must be between 0 and 1: validation needs queries of its own")
        self.path, self.dev_share, self.dev_seed = Path(path).expanduser(), dev_share, dev_seed
        super().__init__(name or bare_name(self.path), max_bad_rows)
        chosen = {
            "query": query_column, "positive": positive_column, "title": title_column, "negative": negative_column,
            "query_id": query_id_column, "passage_id": passage_id_column,
        }  # fmt: skip
        self._corpus = None if corpus is None else Passages(corpus, encoding=encoding, max_bad_rows=max_bad_rows)
        usual = _USUAL if corpus is None else {**_USUAL, "passage_id": names.PASSAGE_ID}
        tables, required = open_tables(self.path, encoding), ("query", "positive")
        if corpus is not None and (passage_id_column or names.first_of(names.PASSAGE_ID, tables[0].schema.names)):
            required = ("query", "passage_id")
        self.table = find_columns(tables, chosen, usual, required, ("query", "positive"))

    def corpus(self, fields: bool = False) -> Iterator[pa.RecordBatch]:
        seen = Numbering()
        fields = fields and (self.table.has_others or (self._corpus is not None and self._corpus.table.has_others))
        columns = [*CORPUS.names, FIELDS] if fields else CORPUS.names
        for batch in () if self._corpus is None else self._corpus.corpus(fields):
            seen.add(hash_rows(pa.chunked_array([batch["id"]])))
            yield from _with_fields(pa.Table.from_batches([batch]), columns).to_batches()
        for table in self._pairs(fields):
            passages = table.rename_columns({"passage_id": "id", "positive": "text"})
            negatives = table.filter(pc.not_equal(table["negative"], ""))
            others = pa.table([negatives["negative_id"], empty(len(negatives)), negatives["negative"]], CORPUS)
            both = pa.concat_tables([_with_fields(passages, columns), _with_fields(others, columns)])
            new = seen.add(hash_rows(both["id"]))[1] & pc.not_equal(both["text"], "").to_numpy()
            yield from both.filter(pa.array(new)).to_batches()

    def search_corpus(self) -> Iterator[pa.RecordBatch]:
        return self.corpus(fields=True)

    def splits(self) -> tuple[str, ...]:
        return _SPLITS

    def queries(self, split: str) -> pa.Table:
        """The queries of a split, in the order of their first rows."""
        return self._part(split)[1]

    def qrels(self, split: str) -> pa.Table:
        return self._part(split)[2]

    def triplets(self) -> Iterator[pa.RecordBatch] | None:
        return self._triplets() if "negative" in self.table else None

    def fingerprint(self) -> str:
        corpus = [] if self._corpus is None else self._corpus.table.fingerprint()
        return self._key(*self.table.fingerprint(), *corpus, self.dev_share, self.dev_seed)

    def _triplets(self) -> Iterator[pa.RecordBatch]:
        ids = self._part("train")[0]
        for table in self._pairs():
            wanted = _among(ids, table["query_id"]) & pc.not_equal(table["negative"], "").to_numpy()
            triplets = table.select(["query_id", "passage_id", "negative_id"]).rename_columns(TRIPLETS.names)
            yield from triplets.filter(pa.array(wanted)).to_batches()

    def _part(self, split: str) -> tuple[Numbering, pa.Table, pa.Table]:
        """The ids of the queries of a split, the queries, and their judgements."""
        if split not in _SPLITS:
            raise UserError(f"{self.name} has no split {split!r}: {one_of(split, _SPLITS)}")
        return self._parts[split]

    @cached_property
    def _parts(self) -> dict[str, tuple[Numbering, pa.Table, pa.Table]]:
        seen_queries, seen_pairs, queries, pairs = Numbering(), Numbering(), [], []
        for table in self._pairs():
            queries.append(_first_times(seen_queries, table.select(["query_id", "query"]), 1))
            pairs.append(_first_times(seen_pairs, table.select(["query_id", "passage_id"]), 2))
        distinct = pa.concat_tables(queries).rename_columns(QUERIES.names)
        grades = pa.repeat(pa.scalar(1, pa.int32()), sum(map(len, pairs)))
        qrels = pa.table([*pa.concat_tables(pairs).columns, grades], QRELS)
        is_dev, parts = self._draw_dev(distinct["text"]), {}
        for split, chosen in (("train", ~is_dev), ("dev", is_dev)):
            ids, own = Numbering(), distinct.filter(pa.array(chosen))
            ids.add(hash_rows(own["id"]))
            parts[split] = ids, own, qrels.filter(pa.array(_among(ids, qrels["query_id"])))
        return parts

    def _draw_dev(self, queries: pa.ChunkedArray) -> np.ndarray:
        """Which queries are of dev, (Q,) bool: at least one is and one is not."""
        draws = percentiles(queries.to_pylist(), self.dev_seed)
        if draws.min() == draws.max():
            raise UserError(f"{self.path} holds only one query: training and validation need one each at least")
        return (draw_dev(draws, self.dev_share, 0.1) | (draws == draws.min())) & (draws != draws.max())

    def _pairs(self, fields: bool = False) -> Iterator[pa.Table]:
        """The good rows: id and text of query, positive and negative, and the title; "" for what is missing."""
        bad, nothing, found = BadRows(self.max_bad_rows), True, np.zeros(3, int)
        own = ("query_id",) if self._corpus else _TEXTS_OF  # a passage's id may be of the corpus, with its text
        checks = {role: OneText() for role in own if role in self.table}
        filled = [("query",), ("positive", "passage_id")] if self._corpus else [("query",), ("positive",)]
        filled += [(role,) for role in checks]
        for place, table, rows in read_all(self.table.rows(_ROLES, filled, fields), bad):
            table = self._complete(table)
            for role, check in checks.items():
                wrong = check.contradictions(table[role], *(table[text] for text in _TEXTS_OF[role]))
                kind = "id that another text had before"
                table, rows = leave_out(table, rows, wrong, kind, place, bad, table[role])
            if self._corpus is not None:
                table, rows, how = self._looked_up(table, rows, bad, place)
                found += how
            nothing = nothing and not len(table)
            yield table
        self._report(self.path, bad)
        if nothing:
            raise UserError(f"{self.path} holds no row with a query and a passage")
        if self._corpus is not None:
            notice(
                f"{self.path}: of the answers, {found[0]} are passages of {self._corpus.path} by their ids, "
                f"{found[1]} by their texts; {found[2]} are not there and were added."
            )

    def _complete(self, table: pa.Table) -> pa.Table:
        """Texts without white space around them, and ids for those that have none: a hash of the texts."""
        columns = dict(zip(table.column_names, table.columns, strict=True))
        columns |= {name: pc.utf8_trim_whitespace(columns[name]) for name in _USUAL}
        for role, texts in _TEXTS_OF.items():
            hashes = hexadecimal(hash_rows(*(columns[text] for text in texts)))
            columns[role] = pc.if_else(pc.equal(columns[role], ""), hashes, columns[role])
        negatives = hash_rows(pa.chunked_array([empty(len(table))]), columns["negative"])
        return pa.table({**columns, "negative_id": hexadecimal(negatives)})

    def _looked_up(
        self, table: pa.Table, rows: np.ndarray, bad: BadRows, place: object
    ) -> tuple[pa.Table, np.ndarray, np.ndarray]:
        """The rows with the ids that their passages have in the corpus; how many were found by id, text, and not."""
        ids, texts, names_of = self._known
        by_id = _among(ids, table["passage_id"])
        by_text = np.where(by_id, -1, texts.find(hash_rows(table["positive"])))
        new = ~by_id & (by_text < 0)
        lost = new & pc.equal(table["positive"], "").to_numpy()
        for column, text in (("passage_id", by_text), ("negative_id", texts.find(hash_rows(table["negative"])))):
            own = names_of.take(pa.array(text, mask=text < 0))
            table = table.set_column(table.column_names.index(column), column, pc.coalesce(own, table[column]))
        table, rows = leave_out(table, rows, lost, "unknown passage_id", place, bad, table["passage_id"])
        return table, rows, np.array([by_id, by_text >= 0, new & ~lost]).sum(axis=1)

    @cached_property
    def _known(self) -> tuple[Numbering, Numbering, pa.Array]:
        """The ids of the corpus; its texts, by number; and the id of the first passage with each text."""
        ids, texts, first = Numbering(), Numbering(), []
        assert self._corpus is not None
        for batch in self._corpus.corpus():
            table = pa.Table.from_batches([batch])
            ids.add(hash_rows(table["id"]))
            _, new = texts.add(hash_rows(pc.utf8_trim_whitespace(table["text"])))
            first.append(table["id"].filter(pa.array(new)).combine_chunks())
        return ids, texts, pa.concat_arrays(first)


def _among(ids: Numbering, column: pa.ChunkedArray) -> np.ndarray:
    """Which of (N,) ids are known, (N,) bool."""
    return ids.find(hash_rows(column)) >= 0


def _first_times(seen: Numbering, table: pa.Table, columns: int) -> pa.Table:
    """The rows whose first ``columns`` have not been seen before."""
    return table.filter(pa.array(seen.add(hash_rows(*table.columns[:columns]))[1]))


def _with_fields(table: pa.Table, columns: list[str]) -> pa.Table:
    """These columns, "" for `FIELDS` where there are none."""
    if FIELDS in columns and FIELDS not in table.column_names:
        table = table.append_column(FIELDS, empty(len(table)))
    return table.select(columns)
