"""The Lightning data module: a source's text as token batches of triplets, in a reproducible order."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path

import lightning as L
import numpy as np
import pyarrow as pa

from two_tower.data.batch import Batches, BatchLoader, Examples
from two_tower.data.corpus import Corpus, Split, rows_of, text_groups
from two_tower.data.source import Source
from two_tower.errors import UserError
from two_tower.negatives.base import KnownPositives, Negatives
from two_tower.ragged import Ragged
from two_tower.tokenizer.tokenizer import Tokenizer
from two_tower.tokenizer.word import WordTokenizer

__all__ = ["TripletData"]

log = logging.getLogger(__name__)


class TripletData(L.LightningDataModule):
    """Training triplets and the validation split of a source.

    Args:
        source: where the text comes from.
        tokenizer: trains a vocabulary where ``tokenizer_path`` does not exist yet.
        tokenizer_path: the run's ``tokenizer.json``; written once, then read.
        negatives: proposes negatives.
        share_batch: every query uses all documents of the batch as candidates.
        batch_size: examples per process and step.
        num_workers: processes that prepare batches; 0 prepares them in the training process, which is
            faster for text that fits in memory.
        train_split: split to train on.
        validation_split: split to validate on.
        seed: the run's seed.
    """

    def __init__(
        self,
        source: Source,
        tokenizer: WordTokenizer,
        tokenizer_path: Path,
        negatives: Negatives,
        share_batch: bool = True,
        batch_size: int = 512,
        num_workers: int = 0,
        train_split: str = "train",
        validation_split: str = "dev",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.source, self.negatives, self.share_batch = source, negatives, share_batch
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.train_split, self.validation_split = train_split, validation_split
        self._trainer_of_tokenizer, self._tokenizer_path = tokenizer, tokenizer_path
        self._loader: BatchLoader | None = None
        self._position = {"epoch": 0, "batch": 0}

    @cached_property
    def corpus(self) -> Corpus:
        """The passages as text."""
        return Corpus.load(self.source)

    @cached_property
    def train(self) -> Split:
        """The training queries."""
        return Split.load(self.source, self.train_split, self.corpus)

    @cached_property
    def validation(self) -> Split:
        """The validation queries."""
        return Split.load(self.source, self.validation_split, self.corpus)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer: read if it exists, else trained on the corpus and the training queries."""
        if self._tokenizer_path.exists():
            return Tokenizer.load(self._tokenizer_path)
        tokenizer = self._trainer_of_tokenizer.train([self.corpus.texts, self.train.texts])
        tokenizer.save(self._tokenizer_path)
        return tokenizer

    @cached_property
    def documents(self) -> Ragged:
        """Tokens of all passages."""
        return self.tokenizer.encode_documents(self.corpus.texts)

    @cached_property
    def batches(self) -> Batches:
        """The training batches of this process.

        Raises:
            UserError: too little data for one batch, or no triplets where the strategy needs them.
        """
        queries = self.tokenizer.encode_queries(self.train.texts)
        qrels = self.train.qrels
        relevant = qrels.grades > 0
        positives = KnownPositives(
            qrels.query_rows[relevant],
            qrels.document_rows[relevant],
            text_groups(queries),
            text_groups(self.documents),
        )
        examples = self._examples(qrels.query_rows[relevant], qrels.document_rows[relevant])
        trainer = self.trainer
        batches = Batches(
            examples,
            queries,
            self.documents,
            self.negatives,
            positives,
            self.batch_size,
            self.seed,
            self.share_batch,
            trainer.global_rank if trainer else 0,
            trainer.world_size if trainer else 1,
        )
        if len(batches) == 0:
            raise UserError(
                f"data.batch_size={self.batch_size} is more than the {len(examples)} training examples "
                f"of {self.source.name}: set data.batch_size={max(1, len(examples) // batches.ranks)} or less."
            )
        dropped = len(examples) - len(batches) * batches.ranks * self.batch_size
        log.info("%d batches an epoch; the last %d examples of its order are left out.", len(batches), dropped)
        return batches

    def _examples(self, query_rows: np.ndarray, document_rows: np.ndarray) -> Examples:
        if not self.negatives.needs_triplets:
            return Examples(query_rows, document_rows)
        triplets = self.source.triplets()
        if triplets is None:
            raise UserError(
                f"negatives=given needs data with triplets, and {self.source.name} has none: "
                "use negatives=in_batch or negatives=random."
            )
        table = pa.Table.from_batches(triplets)
        query = rows_of(table["query_id"], self.train.ids)
        positive = rows_of(table["positive_id"], self.corpus.ids)
        negative = rows_of(table["negative_id"], self.corpus.ids)
        known = (query >= 0) & (positive >= 0) & (negative >= 0)
        if not known.all():
            log.warning(
                "%s: %d of %d triplets are left out: their query is not of the split %s, or a passage is unknown.",
                self.source.name, int((~known).sum()), len(known), self.train_split,
            )  # fmt: skip
        return Examples(query[known], positive[known], negative[known][:, None])

    @property
    def batches_per_epoch(self) -> int:
        """Steps of this process in an epoch, before gradient accumulation."""
        return len(self.batches)

    def setup(self, stage: str) -> None:
        """Lightning's hook: prepare the batches before the first epoch."""
        if stage == "fit":
            _ = self.batches

    def train_dataloader(self) -> BatchLoader:
        """Resumable loader of this process' batches."""
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        self._loader = BatchLoader(self.batches, self.num_workers, pin_memory=on_gpu)
        self._loader.load_state_dict(self._position)
        return self._loader

    def state_dict(self) -> dict[str, int]:
        """The position of the next batch.

        Lightning keeps the loader's own state too, but restores it only for checkpoints written within
        an epoch, not for those written between two.
        """
        return self._loader.state_dict() if self._loader else self._position

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue at a saved position."""
        self._position = dict(state_dict)
