"""What all sources that read files share: a limit for bad rows, their report, the repair of texts."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from two_tower.cache import key_of, notice
from two_tower.data.base import Source
from two_tower.data.reading.archive import Member
from two_tower.data.reading.rows import BadRows

__all__ = ["FileSource"]

# Raise whenever the same files would be read as other rows.
READING = 2


class FileSource(Source):
    """A source that leaves bad rows out, counts them by kind and says so.

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

    def _key(self, *parts: object) -> str:
        """A fingerprint of ``parts`` and of all else that decides what is read, or refused."""
        return key_of(READING, self.max_bad_rows, self.repair_encoding, *parts)

    def _report(self, file: Path | Member | str, bad: BadRows) -> None:
        """Keep the bad rows of a file that was read to its end, and warn of them."""
        self.bad_rows[str(file)] = bad
        summary = bad.summary()
        if summary:
            notice(f"{file}: {summary}.")

    def _repaired(self, table: pa.Table, *columns: str) -> pa.Table:
        """The table with repaired texts in ``columns``, where that was asked for."""
        if self.repair_encoding:
            from two_tower.data.reading.repair import repair_encoding

            for name in columns:
                table = table.set_column(table.column_names.index(name), name, repair_encoding(table[name]))
        return table
