"""`data=passages`: passages to embed and search; there are no queries to train on."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from two_tower.data.base import CORPUS
from two_tower.data.reading import names
from two_tower.data.reading.content import bare_name
from two_tower.data.reading.rows import Rows, Tables
from two_tower.data.reading.table_files import find_columns, open_tables
from two_tower.data.reading.tables import TableSource
from two_tower.errors import BadRows, UserError

_USUAL = {"text": names.TEXT, "title": names.TITLE, "id": names.ID}


class Passages(TableSource):
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

    def splits(self) -> tuple[str, ...]:
        return ()

    def fingerprint(self) -> str:
        return self._key(*self.table.fingerprint())

    def _passage_rows(self, fields: bool = False) -> list[Rows]:
        tables = self.table.rows(CORPUS.names, [("id",), ("text",)], fields)
        return tables if "id" in self.table else [Rows(rows.place, partial(self._numbered, rows)) for rows in tables]

    def _numbered(self, rows: Rows, bad: BadRows) -> Tables:
        """Rows with their numbers as ids, behind the name of their file where there are several."""
        for table, numbers in rows.read(bad):
            ids = pc.cast(pa.array(numbers), pa.string())
            if len(self.table.files) > 1:
                ids = pc.binary_join_element_wise(Path(str(rows.place)).name, ids, ":")
            yield table.set_column(0, "id", ids), numbers

    def _query_rows(self, split: str) -> list[Rows]:
        return [self._judgement_rows(split)]

    def _judgement_rows(self, split: str) -> Rows:
        raise UserError(f"{self.name} holds passages only, no queries: data=passages is for embed.py")
