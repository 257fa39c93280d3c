"""The Lightning data module: a source's text as token batches of triplets, in a reproducible order."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import lightning as L
import numpy as np

from two_tower.cache import key_of
from two_tower.data.base import Source
from two_tower.data.stream.batch import Batches, BatchLoader
from two_tower.data.stream.corpus import Corpus, Split, trained_tokenizer
from two_tower.data.stream.pseudo import KINDS, PseudoQueries
from two_tower.data.stream.token_store import TokenWriter
from two_tower.data.stream.triplets import (
    Pairs,
    Some,
    TrainingSet,
    WithPassages,
    id_triplets,
    judged_pairs,
    text_triplets,
)
from two_tower.errors import UserError, one_of
from two_tower.negatives.base import Collection, Negatives, Positives
from two_tower.tokenizer.base import Tokenizer
from two_tower.tokenizer.word import WordTokenizer

__all__ = ["TripletData"]

log = logging.getLogger(__name__)

SPLITS = ("train", "dev", "test")

# What an epoch consists of.
EXAMPLES = ("judged", "passages", "both")


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
        max_examples: train on so many only, spread evenly over all; 0 for all.
        pseudo_queries: pieces of each passage that are trained on as queries, at most; 0 for none.
        pseudo_kinds: of which kinds, see `two_tower.data.stream.pseudo.pieces`.
        examples: what an epoch consists of. ``judged``: the judged pairs, or the data's own triplets; ``passages``:
            every passage once, beside a training query that says nothing of it, for a loss that learns from a
            teacher (such a pair is and has no candidate, so that it teaches no other loss anything); ``both``.

    Raises:
        UserError: a split that the source does not have, or no triplets or judged queries where ``negatives`` needs
            them.
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
        max_examples: int = 0,
        pseudo_queries: int = 0,
        pseudo_kinds: list[str] | None = None,
        examples: str = "judged",
    ) -> None:
        super().__init__()
        self.source, self.negatives, self.share_batch = source, negatives, share_batch
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.train_split, self.validation_split = train_split, validation_split
        if negatives.needs_collection and source.text_triplets() is not None:
            self._need_judged_queries()
        wanted = {"validation_split": validation_split}
        if not self.trains_on_texts:
            wanted["train_split"] = train_split
        for key, split in wanted.items():
            if split not in source.splits():
                if not source.splits() and split in SPLITS:
                    source.qrels(split)  # says itself what is not there
                raise UserError(
                    f"data.{key}={split} does not exist in {source.name}; {one_of(split, source.splits())}."
                )
        if negatives.needs_triplets and source.triplets() is None and source.text_triplets() is None:
            raise UserError(
                f"negatives=given needs data with triplets, and {source.name} has none: "
                "use negatives=in_batch, random, bm25, ann or mixed (without given)."
            )
        self._tokenizer, self._tokenizer_path = tokenizer, tokenizer_path
        self._max_examples = max_examples
        self._pseudo, self._kinds = pseudo_queries, list(pseudo_kinds or KINDS[:1])
        self._kind = examples
        self._check_extra_examples()
        self._batches: Batches | None = None
        self._loader: BatchLoader | None = None
        self._position = {"epoch": 0, "batch": 0}

    def _check_extra_examples(self) -> None:
        """Refuse kinds that do not exist, and strategies that have no negatives for them."""
        if self._kind not in EXAMPLES:
            raise UserError(f"data.examples={self._kind} does not exist; {one_of(self._kind, EXAMPLES)}")
        for kind in self._kinds:
            if kind not in KINDS:
                raise UserError(f"data.pseudo_kinds: {kind} does not exist; {one_of(kind, KINDS)}")
        mined = self.negatives.needs_collection or self.negatives.needs_triplets
        if mined and (self._pseudo or self._kind != "judged"):
            raise UserError(
                "data.pseudo_queries, data.examples=passages and both bring in passages without mined or given "
                "negatives: use negatives=in_batch or random."
            )

    def _need_judged_queries(self) -> None:
        """Refuse a strategy that looks for documents where the training queries have no judgements."""
        if self.trains_on_texts or self.train_split not in self.source.splits():
            raise UserError(
                f"These negatives are looked up for training queries with judgements, and {self.source.name} trains "
                "on triplets of texts: use negatives=given."
            )

    @property
    def trains_on_texts(self) -> bool:
        """Whether the examples are the source's triplets of texts, whose queries belong to no split."""
        return self.negatives.needs_triplets and self.source.text_triplets() is not None

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer: read if it exists, else trained on the corpus and the training queries."""
        if not self._tokenizer_path.exists():
            trained_tokenizer(self.source, self._tokenizer, self.train_split).save(self._tokenizer_path)
        return Tokenizer.load(self._tokenizer_path)

    def open(self) -> None:
        """Open everything in the token store, after parsing and tokenising what is not there yet; says so."""
        start, before = time.perf_counter(), TokenWriter.written
        _ = self.corpus, self.training_set, self.validation
        log.info(
            "%s: %d texts parsed and tokenised, the others from the token store; open after %.2f s.",
            self.source.name, TokenWriter.written - before, time.perf_counter() - start,
        )  # fmt: skip

    @cached_property
    def corpus(self) -> Corpus:
        """The passages."""
        return Corpus.load(self.source, self.tokenizer)

    @cached_property
    def train(self) -> Split:
        """The training queries."""
        return Split.load(self.corpus, self.train_split, self.tokenizer)

    @cached_property
    def validation(self) -> Split:
        """The validation queries."""
        return Split.load(self.corpus, self.validation_split, self.tokenizer)

    @property
    def batches(self) -> Batches:
        """The training batches of this process, which are all of them until a trainer says otherwise.

        Raises:
            UserError: too little data for one batch.
        """
        trainer = self.trainer
        place = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        if self._batches is None or (self._batches.rank, self._batches.ranks) != place:
            self._batches = self._batches_of(*place)
        return self._batches

    def _batches_of(self, rank: int, ranks: int) -> Batches:
        batches = Batches(self.training_set, self.negatives, self.batch_size, self.seed, self.share_batch, rank, ranks)
        examples = len(self.training_set.examples)
        if len(batches) == 0:
            raise UserError(
                f"data.batch_size={self.batch_size} is more than the {examples} training examples "
                f"of {self.source.name}: set data.batch_size={max(1, examples // ranks)} or less."
            )
        dropped = examples - len(batches) * ranks * self.batch_size
        log.info("%d batches an epoch; the last %d examples of its order are left out.", len(batches), dropped)
        return batches

    @cached_property
    def training_set(self) -> TrainingSet:
        """The training examples: pairs as in `judged`, pseudo-queries with their passages, passages by themselves."""
        made = self.judged
        if self._kind == "passages":
            nothing = np.zeros(0, np.int64)
            made = replace(made, examples=Pairs(nothing, nothing))
        if self.pseudo is not None:
            made = self.pseudo.added_to(made, self.train, self.corpus.hashes)
        if self._kind != "judged":
            every = WithPassages(made.examples, len(self.corpus), len(self.train))
            made = replace(made, examples=every, paired=False)
        return made

    @cached_property
    def judged(self) -> TrainingSet:
        """The judged pairs, or the data's own triplets where the strategy needs them."""
        made = self._examples()
        if 0 < self._max_examples < len(made.examples):
            made = replace(made, examples=Some(made.examples, self._max_examples))
        if not self.trains_on_texts:
            self.negatives.prepare(self._collection(made.positives))
        return made

    @property
    def has_margins(self) -> bool:
        """Whether the batches bring a teacher's scores of the given negatives."""
        only_given = self.negatives.needs_triplets and not self.negatives.needs_collection
        return only_given and self.training_set.examples.margins(np.zeros(1, np.int64)) is not None

    @cached_property
    def pseudo(self) -> PseudoQueries | None:
        """Pieces of passages as queries; None without any."""
        if not self._pseudo:
            return None
        return PseudoQueries.load(self.corpus, self.tokenizer, self._pseudo, self._kinds, self.train_split)

    @property
    def collection(self) -> Collection:
        """What negatives are mined from."""
        return self._collection(self.training_set.positives)

    def _collection(self, positives: Positives) -> Collection:
        corpus, split = self.corpus, self.train
        relevant = split.qrels.relevant(split.threshold) & split.qrels.present
        return Collection(
            queries=split.texts,
            texts=corpus.texts,
            order=corpus.order,
            pairs=(split.qrels.query_rows[relevant], split.qrels.document_rows[relevant]),
            positives=positives,
            split_camel_case=self.tokenizer.split_camel_case,
            fingerprint=key_of(self.source.fingerprint(), split.name, self.tokenizer.fingerprint),
            folder=self._tokenizer_path.parent / "negatives",
        )

    def _examples(self) -> TrainingSet:
        if not self.negatives.needs_triplets:
            return judged_pairs(self.corpus, self.train)
        if self.trains_on_texts:
            return text_triplets(self.source, self.tokenizer)
        return id_triplets(self.corpus, self.train)

    def candidates(self, query_rows: np.ndarray, document_rows: np.ndarray) -> np.ndarray:
        """See `Batches.candidates`; the queries may be those of the batches of several processes."""
        return self.batches.candidates(query_rows, document_rows)

    def marked(
        self, query_rows: np.ndarray, document_rows: np.ndarray, positive_rows: np.ndarray | None = None
    ) -> np.ndarray:
        """(B, M) bool: which documents from outside the batch must not be negatives of which query.

        Those known to be relevant to it; with ``negatives.mask_known=false`` its own positive only.

        Args:
            query_rows: (B,) rows of training queries.
            document_rows: (M,) rows of any documents.
            positive_rows: (B,) rows of the queries' own positives; needed only without ``mask_known``.
        """
        if self.negatives.mask_known:
            return self.training_set.positives.mark(query_rows, document_rows)
        own = np.full(len(query_rows), -1) if positive_rows is None else positive_rows
        return own[:, None] == document_rows[None, :]

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
