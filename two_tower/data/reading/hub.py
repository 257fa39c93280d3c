"""Data sets of the Hugging Face hub, and local folders laid out like them, as Arrow tables.

`datasets` finds the files of a split, and reads the hub's. Local files are read here: for `datasets` the first
malformed line is an error of the whole file, and its CSV reader takes texts such as ``NA`` for missing.
"""

from __future__ import annotations

import atexit
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from two_tower.cache import file_fingerprint, key_of
from two_tower.data.base import SPLITS
from two_tower.data.reading.arrow import scalars
from two_tower.data.reading.content import check_encoding
from two_tower.data.reading.qrels import qrels_rows
from two_tower.data.reading.rows import Rows, TableFile
from two_tower.data.reading.schemas import QrelsColumns, Schema
from two_tower.data.reading.table_files import ColumnFile, open_table
from two_tower.errors import UserError, one_of

if TYPE_CHECKING:
    from datasets import Dataset, DatasetBuilder, IterableDataset

# Rows of a table: 1,000 are read faster than 250 or 4,000 (134,000 rows/s, 110,000 and 108,000).
_ROWS = 1000


class HubData:
    """One configuration of a data set; nothing is opened before it is needed.

    ``path`` is OWNER/NAME on the hub, or a local folder or file, and ``key`` the setting that it comes from, for
    messages. The configuration ``name`` of a local folder is its subfolder of that name, if it has one.
    """

    def __init__(
        self, path: Path | str, name: str | None = None, streaming: bool = True, revision: str | None = None,
        key: str = "path", encoding: str | None = None,
    ) -> None:  # fmt: skip
        check_encoding(encoding)
        path, self.encoding = str(path), encoding
        self.path, self.name, self.streaming, self.revision, self._key = path, name, streaming, revision, f"data.{key}"
        self.label = f"{path} {name}" if name else path  # for messages
        local = Path(path).expanduser()
        self.local = local if local.exists() else None
        if self.local is None and (path.startswith(("/", ".", "~")) or path.count("/") > 1):
            raise ValueError(
                f"{key}={path} does not exist: give a folder or file, or OWNER/NAME of a data set on the hub"
            )

    @cached_property
    def _builder(self) -> DatasetBuilder:
        from datasets import load_dataset_builder

        # Its readers log what they raise; the user is told once. And a README need not describe itself.
        for name in ("datasets.packaged_modules", "datasets.load", "huggingface_hub.repocard"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with self._errors():
            if self.local is None:
                return load_dataset_builder(self.path, self.name, revision=self.revision)
            # "/.", for else it refuses a folder that has a loading script, NAME/NAME.py, whatever else is there.
            inner = self.local / self.name if self.name else self.local
            if inner.is_dir():
                return load_dataset_builder(f"{inner}/.")
            return load_dataset_builder(f"{self.local}/.", self.name)  # its README says which files those are

    @cached_property
    def files(self) -> Mapping[str, list[str]]:
        """The files of each split, by the library's names of splits."""
        if self.local is not None and self.local.is_file():
            return {"train": [str(self.local)]}
        return {str(split): list(files) for split, files in self._builder.config.data_files.items()}

    @cached_property
    def _tables(self) -> Mapping[str, Sequence[TableFile]]:
        """Each split's local files, or what the library reads."""
        if self.local is None:
            return {split: [_Streamed(self, split)] for split in self.files}
        return {split: [open_table(Path(name), self.encoding) for name in names] for split, names in self.files.items()}

    def schema(self, split: str) -> pa.Schema:
        return self._tables[split][0].schema

    def require(self, split: str, columns: Sequence[str]) -> None:
        """Raise a UserError unless every file of a split has these columns."""
        for table in self._tables[split]:
            for column in columns:
                if column not in table.schema.names:
                    raise UserError(f"{table.path} has no column {column}, but {', '.join(table.schema.names)}")

    def rows(self, split: str, schema: Schema, others: bool = False) -> list[Rows]:
        """The rows of each file of a split, with the columns of a schema; local files have any form of judgements.

        With ``others``, a column `FIELDS` has all other scalars, if there are any.
        """
        tables = self._tables[split]
        if isinstance(schema, QrelsColumns) and not any(isinstance(table, ColumnFile) for table in tables):
            return [qrels_rows(Path(str(table.path)), self.encoding, schema.fields.names) for table in tables]
        self.require(split, schema.required)
        others = others and any(set(scalars(table.schema)) - {*schema.fields.names} for table in tables)
        return [Rows(table.path, partial(table.read, schema.fields, others=others)) for table in tables]

    def fingerprint(self) -> str:
        """A hash of the local files' contents, or the commit on the hub; nothing is downloaded for it."""
        if self.local is None:
            return key_of(self.path, self.name, self._builder.hash)
        files = [(split, Path(file)) for split, files in sorted(self.files.items()) for file in files]
        read_as = [self.encoding] if self.encoding else []
        return key_of(*((split, file.name, file_fingerprint(file)) for split, file in files), *read_as)

    @contextmanager
    def opened(self, split: str) -> Iterator[IterableDataset | Dataset]:
        """A split of the hub, to be read in here: whatever goes wrong becomes a UserError."""
        with self._errors(split):
            if self.streaming:
                found = self._builder.as_streaming_dataset(split=split)
            else:
                self._builder.download_and_prepare()
                found = self._builder.as_dataset(split=split)
            yield found.with_format("arrow")

    @contextmanager
    def _errors(self, split: str = "") -> Iterator[None]:
        try:
            yield
        except (UserError, MemoryError):
            raise
        except Exception as error:  # the library and its file systems raise a dozen unrelated types
            raise UserError(self._explanation(error, split)) from error

    def _explanation(self, error: Exception, split: str) -> str:
        what = f"{self.label} {split}".rstrip()
        cause = _cause(error)
        if self.local is not None:
            return f"{what} cannot be read ({cause}): {self._key} must be a folder of Parquet, JSON or CSV files"
        if isinstance(error, FileNotFoundError):
            return f"{what} is not on the hub ({cause}): correct {self._key}, OWNER/NAME or a folder of Parquet files"
        return (
            f"{what} cannot be read from the hub ({cause}): check the name and the network, or download "
            f"its files and set {self._key}=FOLDER"
        )


class _Streamed(ColumnFile):
    """A split that `datasets` reads."""

    def __init__(self, data: HubData, split: str) -> None:
        self._data, self._split, self.path = data, split, f"{data.label} {split}"

    @cached_property
    def schema(self) -> pa.Schema:
        with self._data.opened(self._split) as rows:  # a stream may not know its columns before it is read
            return next(iter(rows.iter(batch_size=1))).schema if rows.features is None else rows.features.arrow_schema

    def tables(self, names: Sequence[str]) -> Iterator[pa.Table]:
        _let_threads_end()
        with self._data.opened(self._split) as rows:
            for table in rows.iter(batch_size=_ROWS):
                yield table.select([name for name in names if name in table.column_names])


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().split("\n")[0] or type(error).__name__


@cache
def _let_threads_end() -> None:
    # Arrow closes a streamed Parquet file in another thread; if Python ends first, the process aborts (2 of 8
    # programs that ended right after reading, none of 20 that waited).
    atexit.register(time.sleep, 0.1)


def split_names(data: HubData, chosen: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Our names of splits (train, dev, test) to the library's: those that the user chose, or the usual ones."""
    found, names = list(data.files), {}
    for split, usual in SPLITS.items():
        given = (chosen or {}).get(split)
        if given is not None and given not in found:
            raise UserError(f"data.splits.{split}={given} does not exist in {data.label}; {one_of(given, found)}")
        name = given or next((name for name in usual if name in found), None)
        if name is not None:
            names[split] = name
    if not names:
        if len(found) != 1:
            raise UserError(f"{data.label} has the splits {', '.join(found)}: choose with data.splits.train=SPLIT")
        names = {"train": found[0]}
    return names
