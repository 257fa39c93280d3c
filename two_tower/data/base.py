"""What every data source gives: a corpus, queries by split, judgements (qrels), perhaps explicit triplets.

String ids exist only here and in what is written out; everything behind `two_tower.data` counts in rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["CORPUS", "QRELS", "QUERIES", "SCORED_TRIPLETS", "TEXT_TRIPLETS", "TRIPLETS", "Source", "full_text"]

CORPUS = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.string())])
QUERIES = pa.schema([("id", pa.string()), ("text", pa.string())])
QRELS = pa.schema([("query_id", pa.string()), ("document_id", pa.string()), ("grade", pa.int32())])
TRIPLETS = pa.schema([("query_id", pa.string()), ("positive_id", pa.string()), ("negative_id", pa.string())])
# A teacher's score of the positive less that of the negative, where the data brings them.
SCORED_TRIPLETS = TRIPLETS.append(pa.field("margin", pa.float32()))
TEXT_TRIPLETS = pa.schema([("query", pa.string()), ("positive", pa.string()), ("negative", pa.string())])


def full_text(batch: pa.RecordBatch | pa.Table) -> pa.Array | pa.ChunkedArray:
    """What a tower and BM25 read of a passage: its title, a blank, its text (only the text without a title).

    Args:
        batch: rows of the schema `CORPUS`; title and text are never null.
    """
    title, text = batch.column("title"), batch.column("text")
    if not pc.max(pc.binary_length(title)).as_py():  # no title at all: nothing to copy
        return text
    joined = pc.binary_join_element_wise(title, text, " ")
    return pc.if_else(pc.equal(pc.binary_length(title), 0), text, joined)


class Source(ABC):
    """A collection in the field's standard form. All methods read lazily and may be called again.

    Attributes:
        name: short name for folders and messages, e.g. ``pydocs``.
    """

    name: str

    @abstractmethod
    def corpus(self) -> Iterator[pa.RecordBatch]:
        """All passages, rows of the schema `CORPUS`, in batches of bounded size; ids are unique."""

    def about(self) -> int | None:
        """About how many passages there are, for a progress bar; None where that takes reading them all."""
        return None

    def search_corpus(self) -> Iterator[pa.RecordBatch]:
        """The passages as the live index shows them; differs from `corpus` only where a part is held back."""
        return self.corpus()

    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """The splits that have judgements, of ``train``, ``dev``, ``test``."""

    @abstractmethod
    def qrels(self, split: str) -> pa.Table:
        """Judgements of a split, rows of the schema `QRELS`; see `relevant_grade`.

        Raises:
            UserError: the split does not exist.
        """

    @abstractmethod
    def queries(self, split: str) -> pa.Table:
        """The queries of a split (those that have judgements), rows of the schema `QUERIES`, in file order.

        Raises:
            UserError: the split does not exist.
        """

    def relevant_grade(self, split: str) -> int:
        """The least grade of a split that counts as relevant where a metric knows only yes and no."""
        return 1

    def triplets(self) -> Iterator[pa.RecordBatch] | None:
        """Explicit training triplets, rows of the schema `TRIPLETS` or `SCORED_TRIPLETS`; None where there are none."""
        return None

    def text_triplets(self) -> Iterator[pa.RecordBatch] | None:
        """Training triplets that come as texts without ids, rows of the schema `TEXT_TRIPLETS`, or None."""
        return None

    @abstractmethod
    def fingerprint(self) -> str:
        """A short hash that changes whenever any text, id or judgement changes."""
