"""Data sets of the Hugging Face hub, and local folders laid out like them, as Arrow tables.

`datasets` finds the files of a split, and reads the hub's and Parquet. Local files of lines (JSON objects, CSV,
TSV) are read here: for `datasets` the first malformed line is an error of the whole file, and its CSV reader
takes texts such as ``NA`` for missing.
"""

from __future__ import annotations

import atexit
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from two_tower.cache import file_fingerprint, key_of
from two_tower.data.reading.columns import CsvFile, TsvFile
from two_tower.data.reading.formats import NestedJsonRows, TsvRows, first_objects
from two_tower.data.reading.rows import BYTE_ORDER_MARK, Rows, Tables, open_bytes, read_rows, readable, without_invalid
from two_tower.errors import BadRows, UserError, one_of

if TYPE_CHECKING:
    from datasets import Dataset, DatasetBuilder, IterableDataset

# Rows of a table: 1,000 are read faster than 250 or 4,000 (134,000 rows/s, 110,000 and 108,000).
_ROWS = 1000
_FORMATS = {
    ".parquet": "parquet", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "csv",
}  # fmt: skip
# Split -> what others call it.
_SPLITS = {"train": ("train",), "dev": ("dev", "validation", "valid", "val"), "test": ("test",)}


class HubData:
    """One configuration of a data set; nothing is opened before it is needed.

    ``path`` is OWNER/NAME on the hub, or a local folder or file, and ``key`` the setting that it comes from, for
    messages. The configuration ``name`` of a local folder is its subfolder of that name, if it has one.
    """

    def __init__(
        self, path: Path | str, name: str | None = None, streaming: bool = True, revision: str | None = None,
        key: str = "path",
    ) -> None:  # fmt: skip
        path = str(path)
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

        # Its readers log what they raise; the user is told once.
        logging.getLogger("datasets.packaged_modules").setLevel(logging.CRITICAL)
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

    @cached_property
    def _line_files(self) -> Mapping[str, list[Path]]:
        if self.local is None:
            return {}
        files = {split: [Path(file) for file in names] for split, names in self.files.items()}
        return {split: paths for split, paths in files.items() if all(map(_is_line_file, paths))}

    def schema(self, split: str) -> pa.Schema:
        return next(self._schemas(split))[1]

    def require(self, split: str, columns: Sequence[str]) -> None:
        """Raise a UserError unless every file of a split has these columns."""
        for place, schema in self._schemas(split):
            for column in columns:
                if column not in schema.names:
                    raise UserError(f"{place} has no column {column}, but {', '.join(schema.names)}")

    def rows(self, split: str, fields: pa.Schema) -> list[Rows]:
        """The rows of a split: those of each local file of lines, with its own row numbers, or all together.

        ``fields`` are the columns to read, and what they hold where a file has no types of its own.
        """
        if split in self._line_files:
            return [Rows(file, partial(_read_lines, file, fields)) for file in self._line_files[split]]
        return [Rows(f"{self.label} {split}", partial(self._tables, split, fields.names))]

    def fingerprint(self) -> str:
        """A hash of the local files' contents, or the commit on the hub; nothing is downloaded for it."""
        if self.local is None:
            return key_of(self.path, self.name, self._builder.hash)
        files = [(split, Path(file)) for split, files in sorted(self.files.items()) for file in files]
        return key_of(*((split, file.name, file_fingerprint(file)) for split, file in files))

    def _open(self, split: str) -> IterableDataset | Dataset:
        with self._errors(split):
            if self.streaming:
                return self._builder.as_streaming_dataset(split=split).with_format("arrow")
            self._builder.download_and_prepare()
            return self._builder.as_dataset(split=split).with_format("arrow")

    def _schemas(self, split: str) -> Iterator[tuple[Path | str, pa.Schema]]:
        """Each file that is read on its own, else the split, and its columns."""
        if split in self._line_files:
            yield from ((file, _column_types(file)) for file in self._line_files[split])
            return
        opened = self._open(split)
        with self._errors(split):  # a stream may not know its columns before it is read
            known = opened.features is not None
            schema = opened.features.arrow_schema if known else next(iter(opened.iter(batch_size=1))).schema
        yield f"{self.label} {split}", schema

    def _tables(self, split: str, columns: Sequence[str], bad: BadRows) -> Tables:
        """Up to 1,000 rows of the columns that exist, and their numbers in the split; invalid UTF-8 is bad."""
        _let_threads_end()
        batches, first, unread = iter(self._open(split).iter(batch_size=_ROWS)), 1, BadRows(bad.max_bad_rows)
        while True:
            with self._errors(split):
                table = next(batches, None)
            if table is None:
                break
            numbers = np.arange(first, first + len(table))
            first += len(table)
            table = table.select([name for name in columns if name in table.column_names])
            yield without_invalid(table, numbers, f"{self.label} {split}", unread)
        bad.include(unread)

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
            cut = next((file for file in self.files[split] if _is_cut(Path(file))), None) if split else None
            if cut is not None:
                return f"{cut} cannot be read to its end ({cause}): get a whole copy of it"
            return f"{what} cannot be read ({cause}): {self._key} must be a folder of Parquet or JSON lines files"
        if isinstance(error, FileNotFoundError):
            return f"{what} is not on the hub ({cause}): correct {self._key}, OWNER/NAME or a folder of Parquet files"
        return (
            f"{what} cannot be read from the hub ({cause}): check the name and the network, or download "
            f"its files and set {self._key}=FOLDER"
        )


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().split("\n")[0] or type(error).__name__


def _is_cut(path: Path) -> bool:
    """Whether it is a Parquet file without its end, where its index is."""
    try:
        pq.read_metadata(path)
    except (OSError, pa.ArrowInvalid):
        return path.suffix == ".parquet"
    return False


@cache
def _let_threads_end() -> None:
    # Arrow closes a streamed Parquet file in another thread; if Python ends first, the process aborts (2 of 8
    # programs that ended right after reading, none of 20 that waited).
    atexit.register(time.sleep, 0.1)


def split_names(data: HubData, chosen: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Our names of splits (train, dev, test) to the library's: those that the user chose, or the usual ones."""
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


# Local files of lines


def _kind(path: Path) -> str | None:
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    return "tsv" if suffix == ".tsv" else _FORMATS.get(suffix)


def _is_line_file(path: Path) -> bool:
    """Whether the file's rows are lines; a ``.json`` file may be one list of objects instead."""
    if not path.name.removesuffix(".gz").lower().endswith(".json"):
        return _kind(path) in ("json", "csv", "tsv")
    with readable(path), open_bytes(path) as file:
        return not file.read(1 << 12).removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"[")


def _column_types(path: Path) -> pa.Schema:
    """The columns of a file and their types: for JSON by the first 1,000 lines, else strings."""
    if _kind(path) == "json":
        return pa.schema(list(_type_of(first_objects(path))))
    file = CsvFile(path) if _kind(path) == "csv" else TsvFile(path)
    return pa.schema([(name, pa.string()) for name in file.names()])


def _read_lines(path: Path, fields: pa.Schema, bad: BadRows) -> Tables:
    """The rows of a file, with the columns ``fields``; what the file or a row lacks is null."""
    unread = BadRows(bad.max_bad_rows)
    for table, numbers in _tables(path, fields, unread):
        missing = pa.nulls(len(table), pa.string())
        columns = [table[name] if name in table.column_names else missing for name in fields.names]
        yield pa.table(columns, fields.names), numbers
    bad.include(unread)


def _tables(path: Path, fields: pa.Schema, bad: BadRows) -> Tables:
    if _kind(path) == "json":
        numbers = _with_numbers(pa.struct(list(fields)), pa.struct(list(_column_types(path))))
        return read_rows(path, NestedJsonRows(fields, pa.schema(list(numbers))), bad)
    if _kind(path) == "csv":
        file = CsvFile(path)
        return file.read([name for name in fields.names if name in file.names()], (), bad)
    names = TsvFile(path).names()
    typed = [fields.field(name) if name in fields.names else pa.field(name, pa.string()) for name in names]
    return read_rows(path, TsvRows(pa.schema(typed), frozenset({names[0].lower()})), bad)


def _with_numbers(wanted: pa.DataType, found: pa.DataType) -> pa.DataType:
    """The wanted type with int64 for strings where the file has whole numbers."""
    if pa.types.is_struct(wanted) and pa.types.is_struct(found):
        types = {field.name: field.type for field in found}
        return pa.struct([(f.name, _with_numbers(f.type, types.get(f.name, f.type))) for f in wanted])
    if pa.types.is_list(wanted) and pa.types.is_list(found):
        return pa.list_(_with_numbers(wanted.value_type, found.value_type))
    return found if pa.types.is_string(wanted) and pa.types.is_int64(found) else wanted


def _type_of(values: list[Any]) -> pa.DataType:
    """The type of most of the values; string where all are null."""
    kinds: tuple[Any, ...] = (str, list, dict, (int, float))
    groups = {kind: [value for value in values if isinstance(value, kind)] for kind in kinds}
    kind = max(groups, key=lambda kind: len(groups[kind]))
    if kind is str or not groups[kind]:
        return pa.string()
    if kind is list:
        return pa.list_(_type_of([item for value in groups[list] for item in value]))
    if kind is dict:
        names = dict.fromkeys(name for value in groups[dict] for name in value)
        return pa.struct([(name, _type_of([value.get(name) for value in groups[dict]])) for name in names])
    return pa.int64() if all(type(value) is int for value in groups[kind]) else pa.float64()
