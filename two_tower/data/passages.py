"""`data=passages`: a file of passages, to embed and search; it has no queries to train on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from two_tower.cache import file_fingerprint
from two_tower.data.base import CORPUS, Source
from two_tower.data.reading.columns import find_columns, name_of
from two_tower.data.reading.unique import Numbering, hash_rows
from two_tower.errors import BadRows, UserError

# What columns are usually called, best first.
_USUAL = {
    "text": ("text", "passage", "document", "contents", "content", "body", "abstract", "passage_text"),
    "title": ("title", "passage_title", "document_title"),
    "id": ("_id", "id", "docid", "doc_id", "passage_id", "document_id", "pid"),
}


class Passages(Source):
    """A CSV, TSV, JSON lines or Parquet file with a passage in each row; a TSV file of id and text needs no header."""

    def __init__(
        self,
        path: Path | str,
        text_column: str | None = None,
        title_column: str | None = None,
        id_column: str | None = None,
        max_bad_rows: float = 0.001,
        name: str | None = None,
    ) -> None:
        self.path = Path(path).expanduser()
        super().__init__(name or name_of(self.path), max_bad_rows)
        chosen = {"text": text_column, "title": title_column, "id": id_column}
        self._file, self._columns = find_columns(self.path, chosen, _USUAL, ("text",), ("id", "text"))

    def estimated_size(self) -> int | None:
        return self._file.estimated_size()

    def corpus(self) -> Iterator[pa.RecordBatch]:
        bad, seen, empty = BadRows(self.max_bad_rows), Numbering(), True
        required = [name for role, name in self._columns.items() if role != "title"]
        for table, rows in self._file.read(list(self._columns.values()), required, bad):
            table = table.rename_columns(list(self._columns))
            if "id" not in self._columns:
                table = table.append_column("id", pc.cast(pa.array(rows), pa.string()))
            else:
                _, new = seen.add(hash_rows(table["id"]))
                bad.add_where(~new, "id that another row had before", self.path, rows, table["id"])
                table = table if new.all() else table.filter(pa.array(new))
            if "title" not in self._columns:
                table = table.append_column("title", pa.repeat(pa.scalar(""), len(table)))
            empty = empty and not len(table)
            yield from table.select(CORPUS.names).cast(CORPUS).to_batches()
        if empty:
            raise UserError(f"{self.path} holds no row with a passage")
        self._report(self.path, bad)

    def splits(self) -> tuple[str, ...]:
        return ()

    def queries(self, split: str) -> pa.Table:
        raise UserError(f"{self.name} holds passages only, no queries: data=passages is for embed.py")

    def qrels(self, split: str) -> pa.Table:
        return self.queries(split)

    def fingerprint(self) -> str:
        return self._key(f"{self.path.name} {file_fingerprint(self.path)}", self._columns)
