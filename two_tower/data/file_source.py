"""What all sources that read files share: a limit for bad rows, their report, the repair of texts."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa

from two_tower.data.archive import Member
from two_tower.data.rows import BadRows
from two_tower.data.source import Source

__all__ = ["FileSource"]

_log = logging.getLogger(__name__)


class FileSource(Source):
    """A source that leaves bad rows out, counts them by kind, and warns of each file's once.

    Args:
        max_bad_rows: the fraction of a file's rows that may be bad before reading it is an error.
        repair_encoding: whether to repair UTF-8 that was encoded twice.

    Attributes:
        bad_rows: the bad rows of each file that was read to its end, by the file's place.

    Raises:
        UserError: the limit is no fraction.
    """

    def __init__(self, max_bad_rows: float, repair_encoding: bool) -> None:
        BadRows(max_bad_rows)  # checks the limit now, not after the first file
        self.max_bad_rows, self.repair_encoding = max_bad_rows, repair_encoding
        self.bad_rows: dict[str, BadRows] = {}

    def bad_rows_summary(self) -> str | None:
        """What was left out of the files read so far, or None where all rows were good."""
        found = [(file, bad.summary()) for file, bad in self.bad_rows.items()]
        return "; ".join(f"{file}: {text}" for file, text in found if text) or None

    def _report(self, file: Path | Member | str, bad: BadRows) -> None:
        """Keep a file's bad rows, and warn of them the first time that it was read to its end."""
        summary = bad.summary()
        if summary and str(file) not in self.bad_rows:
            _log.warning("%s: %s.", file, summary)
        self.bad_rows[str(file)] = bad

    def _repaired(self, table: pa.Table, *columns: str) -> pa.Table:
        """The table with repaired texts in ``columns``, where that was asked for."""
        if self.repair_encoding:
            from two_tower.data.repair import repair_encoding

            for name in columns:
                table = table.set_column(table.column_names.index(name), name, repair_encoding(table[name]))
        return table
