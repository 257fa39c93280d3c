"""The Lightning data module: a source's texts as training batches, in a reproducible order."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import lightning as L
import numpy as np

from two_tower.cache import key_of
from two_tower.data.base import SPLITS, Loader, Source
from two_tower.data.stream import triplets
from two_tower.data.stream.batch import Batches, BatchLoader
from two_tower.data.stream.corpus import Corpus, Split, trained_tokenizer
from two_tower.data.stream.token_store import TokenWriter
from two_tower.data.stream.triplets import EveryPassage, ExampleSubset, TrainingSet
from two_tower.data.stream.unseen import learned_part
from two_tower.errors import UserError, one_of
from two_tower.negatives.base import Collection, NegativeMask, Negatives, Positives
from two_tower.negatives.in_batch import InBatchNegatives
from two_tower.tokenizer.base import Tokenizer
from two_tower.tokenizer.word import WordTokenizer

log = logging.getLogger(__name__)

# Examples in a batch where none are asked for: judged pairs, passages for a teacher; batches of few in an epoch.
USUAL_BATCH, TAUGHT_BATCH, FEWEST_BATCHES = 512, 2048, 4


def usual_batch(examples: int, most: int = USUAL_BATCH) -> int:
    """The size of a batch where none is asked for: so that few examples, too, make several steps an epoch."""
    return max(1, min(most, examples, max(FEWEST_BATCHES, examples // FEWEST_BATCHES)))


@dataclass(frozen=True)
class Taught:
    """What a teacher brings into training besides its vectors."""

    common_words: Callable[[], Sequence[str]] = list  # to be in the vocabulary whether or not the texts have them
    sample: int | None = None  # passages to learn from; None for all
    known: np.ndarray | None = None  # hashes of the texts that the run has learned from which this one starts


class TripletData(L.LightningDataModule):
    """Training examples and the validation split of a source; ``seed`` decides the order and the extra negatives."""

    def __init__(
        self,
        source: Source,
        tokenizer: WordTokenizer,
        tokenizer_path: Path,
        negatives: Negatives,
        in_batch_negatives: bool,
        loader: Loader,
        seed: int = 0,
        taught: Taught = Taught(),
    ) -> None:
        super().__init__()
        self.source, self.negatives, self.in_batch_negatives = source, negatives, in_batch_negatives
        self.loader, self.seed, self.taught = loader, seed, taught
        self._tokenizer, self._tokenizer_path = tokenizer, tokenizer_path
        self._check_negatives()
        self._check_splits()
        self._batches: Batches | None = None
        self._batch_loader: BatchLoader | None = None
        self._position = {"epoch": 0, "batch": 0}

    def _check_splits(self) -> None:
        names = {"validation_split": self.loader.validation_split}
        if not self.trains_on_texts:
            names["train_split"] = self.loader.train_split
        splits = self.source.splits()
        for key, split in names.items():
            if split not in splits:
                if not splits and split in SPLITS:
                    self.source.qrels(split)  # raises an error that names the missing file
                raise UserError(f"data.{key}={split} does not exist in {self.source.name}; {one_of(split, splits)}.")

    def _check_negatives(self) -> None:
        negatives, source, loader = self.negatives, self.source, self.loader
        has_texts = source.text_triplets() is not None
        judged = not self.trains_on_texts and loader.train_split in source.splits()
        if negatives.needs_collection and has_texts and not judged:
            raise UserError(
                f"These negatives are looked up for training queries with judgements, and {source.name} trains on "
                "triplets of texts: use negatives=given."
            )
        if negatives.needs_triplets and source.triplets() is None and not has_texts:
            raise UserError(
                f"negatives=given needs data with triplets, and {source.name} has none: "
                "use negatives=in_batch, random, bm25, ann or mixed (without given)."
            )
        if loader.examples == "passages" and (negatives.needs_collection or negatives.needs_triplets):
            raise UserError(
                "data.examples=passages brings in passages without mined or given negatives: use negatives=in_batch "
                "or random."
            )
        if self.taught.sample is not None and not (
            loader.examples == "passages" and isinstance(negatives, InBatchNegatives)
        ):
            raise UserError(
                "teacher.sample leaves passages without a teacher's vectors, which these negatives bring in: use "
                "data.examples=passages negatives=in_batch."
            )

    @property
    def trains_on_texts(self) -> bool:
        """Whether the examples are the source's triplets of texts, whose queries belong to no split."""
        return self.negatives.needs_triplets and self.source.text_triplets() is not None

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer, trained if its file does not exist yet."""
        if not self._tokenizer_path.exists():
            trained = trained_tokenizer(self.learned, self._tokenizer, self.loader.train_split)
            if trained.rule:  # else pieces make up any word
                room = self._tokenizer.vocabulary_size - len(trained)
                trained = trained.extended(trained.spelled(self.taught.common_words())[:room])
            trained.save(self._tokenizer_path)
        return Tokenizer.load(self._tokenizer_path)

    def open(self) -> None:
        """Parse and tokenize what is not in the token store yet, and open everything; logs how much that was."""
        start, before = time.perf_counter(), TokenWriter.written
        _ = self.corpus, self.training_set, self.validation, self.searched
        log.info(
            "%s: %d texts parsed and tokenised, the others from the token store; open after %.2f s.",
            self.source.name, TokenWriter.written - before, time.perf_counter() - start,
        )  # fmt: skip

    @cached_property
    def learned(self) -> Source:
        """What may be learned of the source; nothing else reaches the vocabulary, the towers or what is mined."""
        return learned_part(self.source, self.loader)

    @cached_property
    def corpus(self) -> Corpus:
        """The passages that are learned."""
        return Corpus.load(self.learned, self.tokenizer)

    @cached_property
    def searched(self) -> Corpus:
        """The passages that validation ranks, also those that are kept out of training."""
        return self.corpus if self.learned is self.source else Corpus.load(self.source, self.tokenizer)

    @cached_property
    def train(self) -> Split:
        """The training queries, with judgements in rows of ``corpus``."""
        return self._split(self.corpus, self.loader.train_split)

    @cached_property
    def validation(self) -> Split:
        """The validation queries, with judgements in rows of ``searched``."""
        return self._split(self.searched, self.loader.validation_split)

    def _split(self, corpus: Corpus, name: str) -> Split:
        return Split.load(corpus, name, self.tokenizer, self.loader.exclude_same_id)

    @property
    def batches(self) -> Batches:
        """The training batches of this process; all of them if there is no trainer yet."""
        trainer = self.trainer
        place = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        if self._batches is not None and (self._batches.rank, self._batches.ranks) == place:
            return self._batches
        examples = len(self.training_set.examples)
        most = USUAL_BATCH if self.loader.examples == "judged" else TAUGHT_BATCH
        key, per = ("global_batch_size", 1) if self.loader.global_batch_size else ("batch_size", place[1])
        size = per * (getattr(self.loader, key) or usual_batch(examples // place[1], most))
        if size < place[1]:
            raise UserError(f"data.{key}={size} leaves some of {place[1]} processes without an example.")
        batches = Batches(self.training_set, self.negatives, self.negative_mask, size, self.seed, *place)
        if len(batches) == 0:
            few = f"data.{key}={size // per} is more than the {examples} training examples of {self.source.name}"
            raise UserError(f"{few}: set data.{key}={max(1, examples // per)} or less.")
        dropped = examples - len(batches) * size
        log.info("%d batches an epoch; the last %d examples of its order are left out.", len(batches), dropped)
        self._batches = batches
        return batches

    @property
    def negative_mask(self) -> NegativeMask:
        """Decides which documents are negatives of which query."""
        training, known = self.training_set, self.negatives.mask_known_positives
        return NegativeMask(training.positives, self.in_batch_negatives, known, training.judged)

    @cached_property
    def training_set(self) -> TrainingSet:
        """The examples of an epoch."""
        if self.loader.examples == "judged":
            return self.judged
        return replace(self.judged, examples=self._every_passage, judged=False)

    @property
    def taught_rows(self) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
        """The rows of the queries and of the passages that a teacher must encode; None for all."""
        return self._every_passage.rows() if self.taught.sample else (None, None)

    @cached_property
    def _every_passage(self) -> EveryPassage:
        every = EveryPassage.spread(len(self.train), len(self.corpus), self.taught.sample)
        if not self.loader.new_share:
            return every
        if self.taught.known is None:
            raise UserError("data.new_share needs a run that it starts from, and what that has learned: set init_from.")
        return every.with_share(np.flatnonzero(self.corpus.is_new(self.taught.known)), self.loader.new_share)

    @cached_property
    def judged(self) -> TrainingSet:
        """The judged pairs, or the data's own triplets where the strategy needs them."""
        if not self.negatives.needs_triplets:
            training = triplets.judged_pairs(self.corpus, self.train)
        elif self.trains_on_texts:
            training = triplets.text_triplets(self.learned, self.tokenizer)
        else:
            training = triplets.id_triplets(self.corpus, self.train)
        if 0 < self.loader.max_examples < len(training.examples):
            training = replace(training, examples=ExampleSubset(self.loader.max_examples, training.examples))
        if not self.trains_on_texts:
            self.negatives.prepare(self._collection(training.positives))
        return training

    @property
    def has_margins(self) -> bool:
        """Whether the batches have a teacher's scores of the given negatives."""
        only_given = self.negatives.needs_triplets and not self.negatives.needs_collection
        return only_given and self.training_set.examples.take(np.zeros(1, np.int64)).margins is not None

    @property
    def collection(self) -> Collection:
        """The queries and passages that negatives are mined from."""
        return self._collection(self.training_set.positives)

    def _collection(self, positives: Positives) -> Collection:
        corpus, split, words = self.corpus, self.train, self.tokenizer
        return Collection(
            queries=split.texts,
            texts=corpus.texts,
            order=corpus.order,
            pairs=split.relevant,
            positives=positives,
            rule=words.rule,
            fingerprint=key_of(self.learned.fingerprint(), split.name, words.fingerprint, split.same is not None),
            folder=self._tokenizer_path.parent / "negatives",
        )

    @property
    def batches_per_epoch(self) -> int:
        return len(self.batches)

    def setup(self, stage: str) -> None:
        if stage == "fit":
            _ = self.batches

    def train_dataloader(self) -> BatchLoader:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        self._batch_loader = BatchLoader(self.batches, self.loader.num_workers, pin_memory=on_gpu)
        self._batch_loader.load_state_dict(self._position)
        return self._batch_loader

    def state_dict(self) -> dict[str, int]:
        # Lightning saves the loader's own state too, but does not restore it from a checkpoint between two epochs.
        return self._batch_loader.state_dict() if self._batch_loader else self._position

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._position = dict(state_dict)
