"""`data=pairs`: a user's own pairs of a query and a passage that answers it, in one file."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.cache import notice
from two_tower.data.base import CORPUS, FIELDS, TRIPLETS, check_dev_share, divided, percentiles
from two_tower.data.passages import Passages
from two_tower.data.reading import names
from two_tower.data.reading.arrow import Column, blank, empty, kept, leave_out
from two_tower.data.reading.content import bare_name
from two_tower.data.reading.rows import Rows, Tables, read_all
from two_tower.data.reading.table_files import find_columns, open_tables
from two_tower.data.reading.tables import TableSource
from two_tower.data.reading.unique import Numbering, OneText, hash_rows, hexadecimal
from two_tower.errors import BadRows, UserError

_USUAL = {"query": names.QUERY, "positive": names.POSITIVE, "title": names.TITLE, "negative": names.NEGATIVE}
_ROLES = (*_USUAL, "query_id", "passage_id")
# What has an id, and the texts that an id stands for.
_TEXTS_OF = {"query_id": ("query",), "passage_id": ("title", "positive")}
_SPLITS = ("train", "dev")


class PairsSource(TableSource):
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
        check_dev_share(dev_share)
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

    def splits(self) -> tuple[str, ...]:
        return _SPLITS

    def qrels(self, split: str) -> pa.Table:
        if split not in _SPLITS:
            raise self._no_split(split)
        judged = super().qrels("")  # of both, which are read together
        return judged.filter(pa.array(self._among(split, judged["query_id"])))

    def triplets(self) -> Iterator[pa.RecordBatch] | None:
        return self._triplets() if "negative" in self.table else None

    def fingerprint(self) -> str:
        corpus = [] if self._corpus is None else self._corpus.table.fingerprint()
        return self._key(*self.table.fingerprint(), *corpus, self.dev_share, self.dev_seed)

    def _passage_rows(self, fields: bool = False) -> list[Rows]:
        return [Rows(self.path, partial(self._passages_of, fields))]

    def _query_rows(self, split: str) -> list[Rows]:
        return [self._columns("query_id", "query")]

    def _judgement_rows(self, split: str) -> Rows:
        return self._columns("query_id", "passage_id", "grade")

    def _columns(self, *chosen: str) -> Rows:
        return Rows(self.path, lambda bad: ((table.select(chosen), rows) for table, rows in self._pairs(bad)))

    def _passages_of(self, fields: bool, bad: BadRows) -> Tables:
        """The passages of the corpus, whose bad rows it counts itself, and those of the pairs that it lacks."""
        if self._corpus is not None:
            for batch in self._corpus.search_corpus() if fields else self._corpus.corpus():
                yield pa.Table.from_batches([batch]), np.arange(len(batch))
        for table, rows in self._pairs(bad, fields):
            nothing = empty(len(table))
            positives = table.rename_columns({"passage_id": "id", "positive": "text"})
            negatives = pa.table([table["negative_id"], nothing, table["negative"]], CORPUS)
            if FIELDS in table.column_names:
                negatives = negatives.append_column(FIELDS, nothing)
            both = pa.concat_tables([positives.select(negatives.column_names), negatives])
            yield kept(both, np.tile(rows, 2), ~blank(both["text"]))

    def _triplets(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches(self._columns("query_id", "passage_id", "negative_id")):
            wanted = self._among("train", batch["query_id"]) & ~blank(batch["negative_id"])
            yield batch.rename_columns(TRIPLETS.names).filter(pa.array(wanted))

    def _among(self, split: str, query_ids: Column) -> np.ndarray:
        """Which (N,) queries are of a split, (N,) bool."""
        _, ids = self._all_queries(split)
        return self._is_dev[ids.find(hash_rows(query_ids))] == (split == "dev")

    @cached_property
    def _is_dev(self) -> np.ndarray:
        """Which of all queries are of dev, (Q,) bool: at least one is and one is not."""
        draws = percentiles(self._all_queries("dev")[0]["text"].to_pylist(), self.dev_seed)
        if draws.min() == draws.max():
            raise UserError(f"{self.path} holds only one query: training and validation need one each at least")
        return divided(draws, self.dev_share)

    def _pairs(self, bad: BadRows, fields: bool = False) -> Tables:
        """The good rows: id and text of query, positive and negative, title, grade; "" for what is missing.

        A passage that the corpus has comes with its id there and without a text.
        """
        nothing, found = True, np.zeros(3, int)
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
            yield table, rows
        if nothing:
            bad.check()  # else it is not said what is wrong with all rows
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
        negatives = hexadecimal(hash_rows(pa.chunked_array([empty(len(table))]), columns["negative"]))
        columns["negative_id"] = pc.if_else(pc.equal(columns["negative"], ""), "", negatives)
        return pa.table({**columns, "grade": pa.repeat(pa.scalar(1, pa.int32()), len(table))})

    def _looked_up(
        self, table: pa.Table, rows: np.ndarray, bad: BadRows, place: object
    ) -> tuple[pa.Table, np.ndarray, np.ndarray]:
        """The rows with the ids that their passages have in the corpus; how many were found by id, text, and not."""
        ids, texts, names_of = self._known
        by_id = ids.find(hash_rows(table["passage_id"])) >= 0
        by_text = np.where(by_id, -1, texts.find(hash_rows(table["positive"])))
        new = ~by_id & (by_text < 0)
        lost = new & blank(table["positive"])
        columns = dict(zip(table.column_names, table.columns, strict=True))
        negative = texts.find(hash_rows(columns["negative"]))
        for role, text, at, known in (
            ("passage_id", "positive", by_text, ~new), ("negative_id", "negative", negative, negative >= 0),
        ):  # fmt: skip
            columns[role] = pc.coalesce(names_of.take(pa.array(at, mask=at < 0)), columns[role])
            columns[text] = pc.if_else(pa.array(known), "", columns[text])
        kind, details = "unknown passage_id", table["passage_id"]
        table, rows = leave_out(pa.table(columns), rows, lost, kind, place, bad, details)
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
