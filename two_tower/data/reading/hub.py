"""Data sets of the Hugging Face hub, and local files in the same formats, read through `datasets` as Arrow tables."""

from __future__ import annotations

import atexit
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from two_tower.cache import file_fingerprint, key_of
from two_tower.data.reading.repair import repair_encoding
from two_tower.data.reading.rows import BadRows
from two_tower.errors import UserError, one_of

if TYPE_CHECKING:
    from datasets import Dataset, DatasetBuilder, IterableDataset

__all__ = ["HubData", "column_types", "flat_lists", "list_fields", "list_lengths", "split_names", "text_of"]

# Rows of a table: 1,000 are read faster than 250 or 4,000 (134,000 rows/s, 110,000 and 108,000).
_ROWS = 1000
_FORMATS = {".parquet": "parquet", ".json": "json", ".jsonl": "json"}
# Split -> what others call it.
_SPLITS = {"train": ("train",), "dev": ("dev", "validation", "valid", "val"), "test": ("test",)}


class HubData:
    """One configuration of a data set.

    Nothing is opened before it is asked for.

    Args:
        path: OWNER/NAME on the hub, or a local folder or file (Parquet, JSON lines).
        name: the configuration; in a local folder its subfolder of that name, where there is one.
        streaming: read over the network as needed, every time; otherwise download once, to the library's cache.
        revision: branch, tag or commit on the hub; None is the newest.
        key: the setting that ``path`` comes from, for messages.

    Attributes:
        label: path and configuration, for messages.

    Raises:
        UserError: a local path that does not exist.
    """

    def __init__(
        self,
        path: str,
        name: str | None = None,
        streaming: bool = True,
        revision: str | None = None,
        key: str = "data.path",
    ) -> None:
        self.path, self.name, self.streaming, self.revision, self._key = path, name, streaming, revision, key
        self.label = f"{path} {name}" if name else path
        local = Path(path).expanduser()
        self.local = local if local.exists() else None
        if self.local is None and (path.startswith(("/", ".", "~")) or path.count("/") > 1):
            raise UserError(
                f"{key}={path} does not exist: give a folder or file, or OWNER/NAME of a data set on the hub"
            )

    @cached_property
    def _builder(self) -> DatasetBuilder:
        from datasets import load_dataset_builder

        with self._errors():
            if self.local is None:
                return load_dataset_builder(self.path, self.name, revision=self.revision)
            if self.local.is_dir():
                inner = self.local / self.name if self.name else self.local
                if inner.is_dir():
                    return load_dataset_builder(str(inner))
                return load_dataset_builder(str(self.local), self.name)  # its README says which files those are
            stem = self.local.name.removesuffix(".gz")
            if (kind := _FORMATS.get(Path(stem).suffix)) is None:
                raise UserError(f"{self.path} is none of the formats that are read: {', '.join(_FORMATS)}")
            return load_dataset_builder(kind, data_files=str(self.local))

    @cached_property
    def files(self) -> Mapping[str, list[str]]:
        """The files of each split, by the library's names of splits."""
        return {str(split): list(files) for split, files in self._builder.config.data_files.items()}

    def _open(self, split: str) -> IterableDataset | Dataset:
        with self._errors(split):
            if self.streaming:
                return self._builder.as_streaming_dataset(split=split).with_format("arrow")
            self._builder.download_and_prepare()
            return self._builder.as_dataset(split=split).with_format("arrow")

    def schema(self, split: str) -> pa.Schema:
        """The columns of a split."""
        opened = self._open(split)
        if opened.features is not None:
            return opened.features.arrow_schema
        with self._errors(split):  # a stream that does not tell before it is read
            return next(iter(opened.iter(batch_size=1))).schema

    def require(self, split: str, columns: Sequence[str]) -> None:
        """Check that a split has these columns.

        Raises:
            UserError: one is missing.
        """
        found = self.schema(split).names
        for column in columns:
            if column not in found:
                raise UserError(f"{self.label} {split} has no column {column}, but {', '.join(found)}")

    def tables(self, split: str, columns: Sequence[str], bad: BadRows) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """The rows of a split, read anew each time.

        Args:
            split: the library's name of it.
            columns: the columns to keep, those of them that there are.
            bad: takes the rows that are no valid UTF-8; they are left out.

        Yields:
            Up to 1,000 rows, and the number (from 1) of each in the split, int64.

        Raises:
            UserError: it cannot be read.
        """
        _let_threads_end()
        batches, first = iter(self._open(split).iter(batch_size=_ROWS)), 1
        while True:
            with self._errors(split):
                table = next(batches, None)
            if table is None:
                return
            table = table.select([name for name in columns if name in table.column_names])
            numbers = np.arange(first, first + len(table))
            first += len(table)
            valid = _valid(table)
            for row in numbers[~valid]:
                bad.add("invalid UTF-8", f"{self.label} {split}", int(row))
            yield (table, numbers) if valid.all() else (table.filter(pa.array(valid)), numbers[valid])

    def fingerprint(self) -> str:
        """A hash of the local files' contents, or the commit on the hub; nothing is downloaded for it."""
        if self.local is None:
            return key_of(self.path, self.name, self._builder.hash)
        files = [(split, Path(file)) for split, files in sorted(self.files.items()) for file in files]
        return key_of(*((split, file.name, file_fingerprint(file)) for split, file in files))

    @contextmanager
    def _errors(self, split: str = "") -> Iterator[None]:
        """The library and its file systems raise a dozen unrelated types; each becomes one sentence."""
        try:
            yield
        except (UserError, MemoryError):
            raise
        except Exception as error:
            raise UserError(self._explanation(error, f"{self.label} {split}".rstrip())) from error

    def _explanation(self, error: Exception, what: str) -> str:
        cause = str(error).strip().split("\n")[0] or type(error).__name__
        if self.local is not None:
            return f"{what} cannot be read ({cause}): {self._key} must be a folder of Parquet or JSON lines files"
        if isinstance(error, FileNotFoundError):
            return f"{what} is not on the hub ({cause}): correct {self._key}, OWNER/NAME or a folder of Parquet files"
        return (
            f"{what} cannot be read from the hub ({cause}): check the name and the network, or download "
            f"its Parquet files and set {self._key}=FOLDER"
        )


def _valid(table: pa.Table) -> np.ndarray:
    """Which rows hold nothing but UTF-8, (N,) bool."""
    try:
        table.validate(full=True)
    except pa.ArrowInvalid:
        if len(table) == 1:
            return np.zeros(1, bool)
        half = len(table) // 2
        return np.concatenate([_valid(table.slice(0, half)), _valid(table.slice(half))])
    return np.ones(len(table), bool)


@cache
def _let_threads_end() -> None:
    # Arrow closes a streamed Parquet file in another thread; if Python ends first, the process aborts (2 of 8
    # programs that ended right after reading, none of 20 that waited).
    atexit.register(time.sleep, 0.1)


def split_names(data: HubData, chosen: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Our names of splits (train, dev, test) to the library's.

    Args:
        data: the data set.
        chosen: names that the user gave; None finds it by its usual names.

    Raises:
        UserError: a given name does not exist, or no split has a usual name.
    """
    found, names = list(data.files), {}
    for split, usual in _SPLITS.items():
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


def text_of(column: pa.Array | pa.ChunkedArray, repair: bool = False) -> pa.Array:
    """Texts and ids as strings, whole numbers in decimal digits; empty where there is none.

    Args:
        column: (N,) texts or numbers.
        repair: whether to repair UTF-8 that was encoded twice.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    text = pc.fill_null(column.cast(pa.string()), "")
    return repair_encoding(text) if repair else text


def flat_lists(column: pa.ChunkedArray, fields: Sequence[str]) -> list[tuple[np.ndarray, pa.Array]]:
    """The lists in a column, one after another.

    Args:
        column: (N,) structs of lists, or lists of structs: data sets have both for the same.
        fields: fields of the structs.

    Returns:
        For each field how long the list of each row is, (N,) int64 (0 where it is null), and all its elements.
    """
    array = column.combine_chunks()
    lists = [pc.struct_field(array if pa.types.is_struct(array.type) else pc.list_flatten(array), f) for f in fields]
    if pa.types.is_struct(array.type):
        return [(list_lengths(values), pc.list_flatten(values)) for values in lists]
    return [(list_lengths(array), values) for values in lists]


def list_fields(kind: pa.DataType) -> list[str]:
    """The names of the fields in structs of lists, or lists of structs; none for other types."""
    inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    return [field.name for field in inner] if pa.types.is_struct(inner) else []


def list_lengths(lists: pa.Array) -> np.ndarray:
    """How long each list is, (N,) int64; 0 for nulls."""
    return pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)


@contextmanager
def column_types(label: str) -> Iterator[None]:
    """Around work with columns whose types come from a file.

    Raises:
        UserError: a column cannot be what it should.
    """
    try:
        yield
    except pa.ArrowException as error:
        cause = str(error).split("\n")[0]
        raise UserError(f"{label} has a column that does not hold what its name says ({cause})") from error
