"""What a data source provides: a corpus, queries by split, judgements (qrels), perhaps training triplets.

String ids exist only here and in what is written out; everything behind `two_tower.data` counts in rows.
`Loader` holds the keys of ``conf/data/_loader.yaml``, which all sources share.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from two_tower.cache import key_of, notice
from two_tower.errors import BadRows, UserError, at_least, one_of
from two_tower.store import split_rows

CORPUS = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.string())])
# A fourth column of `search_corpus`: a JSON object of what else a passage has (texts, numbers, booleans), or "".
FIELDS = "fields"
QUERIES = pa.schema([("id", pa.string()), ("text", pa.string())])
QRELS = pa.schema([("query_id", pa.string()), ("document_id", pa.string()), ("grade", pa.int32())])
TRIPLETS = pa.schema([("query_id", pa.string()), ("positive_id", pa.string()), ("negative_id", pa.string())])
# Margin: a teacher's score of the positive minus its score of the negative.
SCORED_TRIPLETS = TRIPLETS.append(pa.field("margin", pa.float32()))
TEXT_TRIPLETS = pa.schema([("query", pa.string()), ("positive", pa.string()), ("negative", pa.string())])

# And what others call them.
SPLITS = {"train": ("train",), "dev": ("dev", "validation", "valid", "val"), "test": ("test",)}
JUDGED_ENOUGH = 50  # validation queries: with fewer, a mean says little
READING = 6  # raise whenever the same files would be read as other rows


@dataclass(frozen=True)
class Loader:
    """How training batches are made; the YAML has the defaults."""

    batch_size: int | None
    num_workers: int
    train_split: str
    validation_split: str
    max_examples: int
    examples: Literal["judged", "passages"]
    exclude_same_id: bool
    unseen_share: float = 0.0
    unseen_ids: Path | str | None = None
    new_share: float = 0.0
    global_batch_size: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.unseen_share < 1:
            raise ValueError(f"unseen_share={self.unseen_share} must be a share of the passages, from 0 to less than 1")
        if not 0 <= self.new_share < 1:
            raise ValueError(f"new_share={self.new_share} must be a share of the examples, from 0 to less than 1")
        if self.new_share and self.examples != "passages":
            raise ValueError("new_share is for passages to learn from a teacher: set data.examples=passages")
        at_least(1, batch_size=self.batch_size, global_batch_size=self.global_batch_size)
        at_least(0, num_workers=self.num_workers, max_examples=self.max_examples)


LOADER_KEYS = get_type_hints(Loader)  # with their types


def full_text(batch: pa.RecordBatch | pa.Table) -> pa.Array | pa.ChunkedArray:
    """What a tower and BM25 read of passages, rows of `CORPUS`: title, blank, text; without a title only the text."""
    title, text = batch.column("title"), batch.column("text")
    if not pc.max(pc.binary_length(title)).as_py():  # no title at all: nothing to copy
        return text
    joined = pc.binary_join_element_wise(title, text, " ")
    return pc.if_else(pc.equal(pc.binary_length(title), 0), text, joined)


def percentile(key: str, seed: int = 0) -> float:
    """A number from 0 to below 100, by which ``dev`` is split off: an item keeps its side when others come or go.

    SHA-1, unlike `key_of`: the splits of ``data=pydocs``, and so all published figures, were made with it.
    """
    number = int(hashlib.sha1((f"{seed} {key}" if seed else key).encode()).hexdigest()[:8], 16)
    return number % 100 + number // 100 / (2**32 // 100 + 1)


def percentiles(queries: Iterable[str], seed: int) -> np.ndarray:
    """(Q,) `percentile` of each query.

    Queries that differ only in case and white space have the same: one would give the other away.
    """
    return np.array([percentile(" ".join(query.casefold().split()), seed) for query in queries])


def draw_dev(draws: np.ndarray, share: float | None, usual: float) -> np.ndarray:
    """Which queries become ``dev`` by their `percentiles`, (Q,) bool: ``share`` of them.

    Without a share ``usual``, or `JUDGED_ENOUGH` queries if these are more, but not more than half.
    """
    if share is not None:
        return draws < 100 * share
    fewest = np.sort(draws)[: min(JUDGED_ENOUGH, len(draws) // 2)]
    return (draws < 100 * usual) | np.isin(draws, fewest)


MS_MARCO = "non-commercial research only, by Microsoft's terms for MS MARCO"


def check_dev_share(share: float | None) -> None:
    """Raise a ValueError for a share with which one side of a `divided` source would be empty; None passes."""
    if share is not None and not 0 < share < 1:
        raise ValueError(f"dev_share={share} must be between 0 and 1: validation needs queries of its own")


def divided(draws: np.ndarray, share: float | None) -> np.ndarray:
    """`draw_dev` of a source without splits of its own, (Q,) bool: a tenth, but one query at least is on each side."""
    return (draw_dev(draws, share, 0.1) | (draws == draws.min())) & (draws != draws.max())


class Source(ABC):
    """A collection in the field's standard form. All methods read lazily and may be called again.

    A source of your own implements `corpus`, `splits`, `queries`, `qrels` and `fingerprint`; `triplets` too where
    it has some. Two bases do most of that: `reading.tables.TableSource` for passages, queries and judgements in
    separate tables, `reading.groups.GroupSource` for rows that hold a query with its passages. docs/data.md has an
    example. ``name`` is for folders and messages; ``max_bad_rows`` is the fraction of a file's rows that may be bad;
    ``licence`` says in a few words what its texts may be used for, where that is the same for whatever it reads.
    """

    licence: ClassVar[str | None] = None

    def __init__(self, name: str, max_bad_rows: float = 0) -> None:
        BadRows(max_bad_rows)  # checks the limit now, not after the first file
        self.name, self.max_bad_rows = name, max_bad_rows
        self._key_parts: list[str] = []
        self.bad_rows: dict[str, BadRows] = {}  # of each file that was read to its end, by its place

    @abstractmethod
    def corpus(self) -> Iterator[pa.RecordBatch]:
        """All passages, rows of the schema `CORPUS`, perhaps with `FIELDS`, in batches of bounded size.

        Ids are unique.
        """

    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """The splits that have judgements, of ``train``, ``dev`` and ``test``."""

    @abstractmethod
    def queries(self, split: str) -> pa.Table:
        """The queries of a split that have judgements, rows of the schema `QUERIES`, in the order of the source."""

    @abstractmethod
    def qrels(self, split: str) -> pa.Table:
        """Judgements of a split, rows of the schema `QRELS`; see `relevant_grade`."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A short hash that changes whenever any text, id or judgement changes; see `_key`."""

    def triplets(self) -> Iterator[pa.RecordBatch] | None:
        """Explicit training triplets, rows of the schema `TRIPLETS` or `SCORED_TRIPLETS`; None where there are none."""
        return None

    def text_triplets(self) -> Iterator[pa.RecordBatch] | None:
        """Training triplets that come as texts without ids, rows of the schema `TEXT_TRIPLETS`, or None."""
        return None

    def relevant_grade(self, split: str) -> int:
        """The lowest grade of a split that counts as relevant where a metric knows only yes and no."""
        return 1

    def search_corpus(self) -> Iterator[pa.RecordBatch]:
        """The passages as the search index shows them: what `corpus` holds back too, and perhaps a column `FIELDS`."""
        return self.corpus()

    def estimated_size(self) -> int | None:
        """About how many passages there are, for a progress bar; None where one would have to read them all."""
        return None

    def facts(self) -> dict[str, Any]:
        """What a run or an index keeps of the data it was made of, to notice when it has changed."""
        facts = {"name": self.name, "fingerprint": self.fingerprint(), "parts": self._key_parts}
        return {**facts, "splits": [*self.splits()]}

    def _key(self, *parts: object) -> str:
        """A fingerprint of ``parts`` (of a file, its name and its hash) and of how files are read."""
        self._key_parts = [str(part) for part in parts]
        return key_of(READING, self.max_bad_rows, *parts)

    def _no_split(self, split: str) -> UserError:
        """What to raise where a split is asked for that does not exist."""
        return UserError(f"{self.name} has no split {split!r}: {one_of(split, self.splits())}")

    def _report(self, file: object, bad: BadRows) -> None:
        """Keep the bad rows of a file that was read to its end, and warn of them; a UserError if they are too many."""
        bad.check()
        self.bad_rows[str(file)] = bad
        if summary := bad.summary():
            notice(f"{file}: {summary}.")


class PartOfSource(Source):
    """Some passages of a source, (n,) int64 ascending rows, with all its queries and judgements.

    Its fingerprint is its own, so a figure measured on a part is never taken for one of the whole.
    """

    def __init__(self, source: Source, rows: np.ndarray) -> None:
        super().__init__(source.name)
        self.source, self.rows = source, rows

    def corpus(self) -> Iterator[pa.RecordBatch]:
        return take_rows(self.source.corpus(), self.rows)

    def splits(self) -> tuple[str, ...]:
        return self.source.splits()

    def qrels(self, split: str) -> pa.Table:
        return self.source.qrels(split)

    def queries(self, split: str) -> pa.Table:
        return self.source.queries(split)

    def relevant_grade(self, split: str) -> int:
        return self.source.relevant_grade(split)

    def fingerprint(self) -> str:
        rows = xxhash.xxh3_128_hexdigest(self.rows.astype(np.int64).tobytes())
        return key_of("part", self.source.fingerprint(), rows)


def take_rows(pieces: Iterable[Any], rows: np.ndarray) -> Iterator[Any]:
    """Ascending rows of consecutive Arrow arrays or batches, as copies; holds one piece at a time."""
    return (piece.take(pa.array(own)) for piece, own in split_rows(pieces, rows) if len(own))
