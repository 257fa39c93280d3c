"""One file with a table, whatever its format: named columns, read in batches of bounded size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import pyarrow as pa

from two_tower.data.reading.rows import Tables, estimated_lines
from two_tower.errors import BadRows


class TableFile(ABC):
    """A file of rows with named columns; ``encoding`` is the user's, see `content.chunks`."""

    def __init__(self, path: Path, encoding: str | None = None) -> None:
        self.path, self.encoding = path, encoding

    @property
    @abstractmethod
    def schema(self) -> pa.Schema:
        """The columns and what they hold, as far as the beginning of the file tells."""

    @abstractmethod
    def read(self, fields: pa.Schema, bad: BadRows, others: frozenset[str] | None = None) -> Tables:
        """The columns ``fields``, of these types; what the file or a row lacks is null.

        With ``others``, columns to leave out, a column `FIELDS` with a JSON object of all other scalars of each row.
        """

    def estimated_size(self) -> int | None:
        """About how many rows there are; None where one would have to read them all."""
        return estimated_lines(self.path)
