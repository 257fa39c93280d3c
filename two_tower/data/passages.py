"""`data=passages`: passages to embed and search; there are no queries to train on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from two_tower.data.base import CORPUS, Source
from two_tower.data.reading import names
from two_tower.data.reading.arrow import leave_out
from two_tower.data.reading.content import bare_name
from two_tower.data.reading.rows import read_all
from two_tower.data.reading.table_files import find_columns, open_tables
from two_tower.data.reading.unique import Numbering, hash_rows
from two_tower.errors import BadRows, UserError

_USUAL = {"text": names.TEXT, "title": names.TITLE, "id": names.ID}


class Passages(Source):
    """A table with a passage in each row, in a file or in the files of a folder; of id and text it needs no header."""

    def __init__(
        self, path: Path | str, text_column: str | None = None, title_column: str | None = None,
        id_column: str | None = None, encoding: str | None = None, max_bad_rows: float = 0.001, name: str | None = None,
    ) -> None:  # fmt: skip
        self.path = Path(path).expanduser()
        super().__init__(name or bare_name(self.path), max_bad_rows)
        chosen = {"text": text_column, "title": title_column, "id": id_column}
        self.table = find_columns(open_tables(self.path, encoding), chosen, _USUAL, ("text",), ("id", "text"))

    def estimated_size(self) -> int | None:
        return self.table.estimated_size()

    def corpus(self, fields: bool = False) -> Iterator[pa.RecordBatch]:
        bad, seen, empty = BadRows(self.max_bad_rows), Numbering(), True
        for place, table, rows in read_all(self.table.rows(CORPUS.names, [("id",), ("text",)], fields), bad):
            if "id" not in self.table:
                numbers = pc.cast(pa.array(rows), pa.string())
                several = len(self.table.files) > 1
                ids = pc.binary_join_element_wise(Path(str(place)).name, numbers, ":") if several else numbers
                table = table.set_column(0, "id", ids)
            else:
                wrong = ~seen.add(hash_rows(table["id"]))[1]
                table, _ = leave_out(table, rows, wrong, "id that another row had before", place, bad, table["id"])
            empty = empty and not len(table)
            yield from table.to_batches()
        self._report(self.path, bad)
        if empty:
            raise UserError(f"{self.path} holds no row with a passage")

    def search_corpus(self) -> Iterator[pa.RecordBatch]:
        return self.corpus(fields=True)

    def splits(self) -> tuple[str, ...]:
        return ()

    def queries(self, split: str) -> pa.Table:
        raise UserError(f"{self.name} holds passages only, no queries: data=passages is for embed.py")

    def qrels(self, split: str) -> pa.Table:
        return self.queries(split)

    def fingerprint(self) -> str:
        return self._key(*self.table.fingerprint())
