"""Validation on a part of the corpus, for corpora too large to encode after every epoch."""

from __future__ import annotations

import logging

import numpy as np

from two_tower.data.stream.corpus import Corpus, Split, part_of
from two_tower.data.stream.module import TripletData
from two_tower.errors import UserError
from two_tower.run import Run
from two_tower.validation.full import FullValidation

__all__ = ["SubsetValidation", "sampled_rows"]

log = logging.getLogger(__name__)


class SubsetValidation(FullValidation):
    """Ranks every judged passage of the validation split and a random sample of the others.

    With fewer passages to be confused with, every figure is higher than against the whole corpus, BM25's
    too: it is measured on the same passages. Compare such figures only with others of the same passages.

    Args:
        run: the run folder.
        metrics: what to compute, see `two_tower.metrics`.
        monitor: the metric that says which check is best (larger is better).
        depth: how many documents per query the run file keeps.
        bm25: compute the lexical baseline.
        every_n_steps: optimizer steps between two checks within an epoch; None = only at the end of epochs.
        hybrid: also measure the fusion with BM25 at each check.
        sample: passages beside the judged ones; all of them where the corpus has no more.
        sample_seed: decides which; not the run's seed, so that runs with other seeds stay comparable.

    Raises:
        UserError: as of `FullValidation`, or ``sample`` or ``sample_seed`` is negative.
    """

    def __init__(
        self,
        run: Run,
        metrics: list[str] | None = None,
        monitor: str = "mrr@10",
        depth: int = 100,
        bm25: bool = True,
        every_n_steps: int | None = None,
        hybrid: bool = False,
        sample: int = 100_000,
        sample_seed: int = 0,
    ) -> None:
        super().__init__(run, metrics, monitor, depth, bm25, every_n_steps, hybrid)
        for key, value in (("sample", sample), ("sample_seed", sample_seed)):
            if value < 0:
                raise UserError(f"validation.{key}={value} must be at least 0.")
        self.sample, self.sample_seed = sample, sample_seed

    def collection(self, data: TripletData) -> tuple[Corpus, Split]:
        """The judged passages and the sample, in the order of the corpus."""
        corpus, split = super().collection(data)
        judged = np.unique(split.qrels.document_rows[split.qrels.present])
        if len(judged) + self.sample >= len(corpus):
            log.info(
                "validation=subset: %d judged passages and a sample of %d are no fewer than the corpus has; "
                "all %d passages are ranked.",
                len(judged),
                self.sample,
                len(corpus),
            )
            return corpus, split
        return part_of(corpus, split, sampled_rows(len(corpus), judged, self.sample, self.sample_seed))


def sampled_rows(documents: int, judged: np.ndarray, sample: int, seed: int) -> np.ndarray:
    """The judged rows and a uniform sample of the others; memory grows with the result, not with the corpus.

    Args:
        documents: N, rows of the corpus.
        judged: (J,) int64, ascending and without repetition.
        sample: how many others, at most N - J.
        seed: equal seeds, equal samples.

    Returns:
        (J + sample,) int64, ascending and without repetition.
    """
    rng = np.random.default_rng(seed)
    others = rng.choice(documents - len(judged), sample, replace=False, shuffle=False)
    # The i-th of the other rows stands behind all judged rows that have at most i others before them.
    others += np.searchsorted(judged - np.arange(len(judged)), others, side="right")
    return np.sort(np.concatenate([judged, others]))
