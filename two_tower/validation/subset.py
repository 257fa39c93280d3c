"""Validation on a part of the corpus, for corpora too large to encode after every epoch."""

from __future__ import annotations

import logging

import numpy as np

from two_tower.data.stream.corpus import Corpus, Split, part_of
from two_tower.data.stream.module import TripletData
from two_tower.errors import at_least
from two_tower.run import Run
from two_tower.validation.full import FullValidation

log = logging.getLogger(__name__)


class SubsetValidation(FullValidation):
    """Ranks every judged passage of the validation split and a random sample of the others.

    BM25 is measured on the same passages. Compare such figures only with others of the same passages.
    """

    def __init__(  # in full, because the keys of a configuration are checked against it
        self, run: Run, metrics: list[str] | None = None, monitor: str = "mrr@10", depth: int = 100, bm25: bool = True,
        every_n_steps: int | None = None, hybrid: bool = False, sample: int = 100_000, sample_seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(run, metrics, monitor, depth, bm25, every_n_steps, hybrid)
        at_least(0, sample=sample, sample_seed=sample_seed)
        self.sample, self.sample_seed = sample, sample_seed

    def collection(self, data: TripletData) -> tuple[Corpus, Split]:
        """The judged passages and the sample, in the order of the corpus."""
        corpus, split = super().collection(data)
        judged = np.unique(split.qrels.document_rows[split.qrels.present])
        if len(judged) + self.sample >= len(corpus):
            enough = f"{len(judged)} judged passages and a sample of {self.sample} are no fewer than the corpus has"
            log.info(f"validation=subset: {enough}; all {len(corpus)} passages are ranked.")
            return corpus, split
        return part_of(corpus, split, sampled_rows(len(corpus), judged, self.sample, self.sample_seed))


def sampled_rows(documents: int, judged: np.ndarray, sample: int, seed: int) -> np.ndarray:
    """The ``judged`` rows of a corpus and a uniform sample of the others, each once and ascending, int64.

    Memory grows with the result, not with the corpus. ``sample`` is at most the number of the others.
    """
    rng = np.random.default_rng(seed)
    others = rng.choice(documents - len(judged), sample, replace=False, shuffle=False)
    # The i-th unjudged row lies behind all judged rows that have at most i unjudged ones before them.
    others += np.searchsorted(judged - np.arange(len(judged)), others, side="right")
    return np.sort(np.concatenate([judged, others]))
