"""`data=passages`: a file of passages, to embed and search; it has no queries to train on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.cache import file_fingerprint, notice
from two_tower.data.base import CORPUS
from two_tower.data.reading.columns import ColumnFile, TsvFile, open_columns
from two_tower.data.reading.file_source import FileSource
from two_tower.data.reading.rows import BadRows
from two_tower.data.reading.unique import HashSet, hash_rows
from two_tower.errors import UserError, one_of

__all__ = ["Passages"]

# What columns are usually called, best first.
_USUAL = {
    "text": ("text", "passage", "document", "contents", "content", "body", "abstract", "passage_text"),
    "title": ("title", "passage_title", "document_title"),
    "id": ("_id", "id", "docid", "doc_id", "passage_id", "document_id", "pid"),
}


class Passages(FileSource):
    """Read the passages of a CSV, TSV, JSON lines or Parquet file, one in each row.

    Bad rows (no text, wrong number of columns, invalid UTF-8, an id again) are left out and counted up to a limit.

    Args:
        path: the file; ``.csv``, ``.tsv`` (without quoting) and ``.jsonl`` may be compressed (``.gz``). A TSV file of
            two columns, id and text, needs no header.
        text_column: the column with the passages; None finds one by its usual names, and so on:
        title_column: with their titles, if there is one.
        id_column: with their ids, if there is one; without, the number of the row is the id.
        max_bad_rows: the fraction of rows that may be bad before reading is an error.
        repair_encoding: whether to repair UTF-8 that was encoded twice.
        name: short name; by default the file's.

    Raises:
        UserError: the file cannot be read, or a column does not exist or cannot be found.
    """

    def __init__(
        self,
        path: str,
        text_column: str | None = None,
        title_column: str | None = None,
        id_column: str | None = None,
        max_bad_rows: float = 0.001,
        repair_encoding: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(max_bad_rows, repair_encoding)
        self.path = Path(path).expanduser()
        self.name = name or self.path.name.removesuffix(".gz").rpartition(".")[0]
        given = {"text": text_column, "title": title_column, "id": id_column}
        self._file, self._columns = _find_columns(open_columns(self.path), given)

    def about(self) -> int | None:
        """About how many rows the file has."""
        return self._file.about()

    def corpus(self) -> Iterator[pa.RecordBatch]:
        """All passages, in file order.

        Raises:
            UserError: at the end, where too many rows were bad or there was no passage.
        """
        bad, seen, some = BadRows(self.max_bad_rows), HashSet(), False
        required = [name for role, name in self._columns.items() if role != "title"]
        for read, rows in self._file.read(list(self._columns.values()), required, bad):
            table = self._complete(read.rename_columns(list(self._columns)), rows)
            again = seen.add(hash_rows(table["id"])) if "id" in self._columns else np.zeros(len(table), bool)
            for row in np.flatnonzero(again):
                bad.add("id that another row had before", self.path, int(rows[row]), table["id"][int(row)].as_py())
            table = table.filter(pa.array(~again)) if again.any() else table
            some = some or len(table) > 0
            yield from table.cast(CORPUS).to_batches()
        if not some:
            raise UserError(f"{self.path} holds no row with a passage")
        self._report(self.path, bad)

    def splits(self) -> tuple[str, ...]:
        """None."""
        return ()

    def queries(self, split: str) -> pa.Table:
        """There are none.

        Raises:
            UserError: always.
        """
        raise UserError(f"{self.name} holds passages only, no queries: data=passages is for embed.py")

    def qrels(self, split: str) -> pa.Table:
        """There are none.

        Raises:
            UserError: always.
        """
        return self.queries(split)

    def fingerprint(self) -> str:
        """Hash of the file's bytes and of how it is read."""
        return self._key(file_fingerprint(self.path), self._columns)

    def _complete(self, table: pa.Table, rows: np.ndarray) -> pa.Table:
        """Ids, titles and texts; a row's number for an id, and "" for a title, where there is none."""
        table = self._repaired(table, *(name for name in ("title", "text") if name in self._columns))
        if "id" not in self._columns:
            table = table.append_column("id", pc.cast(pa.array(rows), pa.string()))
        if "title" not in self._columns:
            table = table.append_column("title", pa.repeat(pa.scalar(""), len(table)))
        return table.select(CORPUS.names)


def _find_columns(file: ColumnFile, given: Mapping[str, str | None]) -> tuple[ColumnFile, dict[str, str]]:
    """Which column of the file has which role; a TSV file that turns out to have no header is opened as such.

    Raises:
        UserError: a column that was given does not exist, or there is none with text.
    """
    names = file.names()
    for role, name in given.items():
        if name is not None and name not in names:
            raise UserError(f"data.{role}_column={name} is no column of {file.path}; {one_of(name, names)}")
    columns = {role: name for role, name in given.items() if name is not None}
    free = {name.lower(): name for name in names if name not in columns.values()}
    for role, usual in _USUAL.items():
        found = next((free[name] for name in usual if name in free), None)
        if role not in columns and found is not None:
            columns[role] = found
    if not columns and isinstance(file, TsvFile) and len(names) == 2:
        notice(f"{file.path}: no usual name in the first line, so its columns are taken for id and text.")
        return TsvFile(file.path, header=False), {"id": "1", "text": "2"}
    if "text" not in columns:
        raise UserError(
            f"{file.path} has no column with a usual name for a passage ({', '.join(_USUAL['text'])}): "
            f"set data.text_column to one of its columns, {', '.join(names)[:200]}"
        )
    return file, columns
