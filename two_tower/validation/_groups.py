"""Validation queries by whether their answers were learned from: a model may know these by heart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from two_tower.data.stream.corpus import Corpus, Split, part_of
from two_tower.metrics import mean
from two_tower.validation._evaluate import Evaluation

SEEN, UNSEEN, NEW = GROUPS = ("seen", "unseen", "new")
NAMES = {SEEN: "seen", UNSEEN: "unseen", NEW: "among new"}  # for people


@dataclass(frozen=True, eq=False)
class QueryGroups:
    """Which of Q queries look for passages that were learned from, and which for new ones.

    ``seen`` are those all of whose relevant passages were, ``unseen`` those none of whose; others are neither. A third
    group, ``new``, are the unseen ones once more, ranked among new passages only.
    """

    seen: np.ndarray  # (Q,) bool
    unseen: np.ndarray  # (Q,) bool
    corpus: Corpus  # the new passages alone
    split: Split  # all queries, with judgements in rows of these

    @classmethod
    def find(cls, corpus: Corpus, split: Split, new: np.ndarray) -> QueryGroups | None:
        """None where no query is unseen; ``new`` (N,) bool are the passages of the corpus that are."""
        queries, documents = split.relevant
        relevant, unseen = (np.bincount(queries[mask], minlength=len(split)) for mask in (slice(None), new[documents]))
        if not (unseen == relevant)[relevant > 0].any():
            return None
        part, its_split = part_of(corpus, split, np.flatnonzero(new))
        judged = relevant > 0
        return cls(judged & (unseen == 0), judged & (unseen == relevant), part, its_split)

    def of(self, group: str) -> np.ndarray:
        """(Q,) bool: the queries of a group."""
        return self.seen if group == SEEN else self.unseen

    def measure(self, rank: Callable[[Corpus, Split], Evaluation], whole: Evaluation) -> Evaluation:
        """The evaluation ``whole`` of all queries, with the means of each group; ``rank`` makes such evaluations."""
        among_new = rank(self.corpus, self.split)
        figures = {
            f"{group}/{metric}": value
            for group in GROUPS
            if self.of(group).any()
            for metric, value in mean(self.per_query(group, (among_new if group == NEW else whole).per_query)).items()
        }
        return replace(whole, groups=figures, seconds=whole.seconds + among_new.seconds)

    def per_query(self, group: str, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Of the values of all queries, by metric, those of a group."""
        return {metric: its[self.of(group)] for metric, its in values.items()}


def means_by_group(system: str, figures: Mapping[str, float], metrics: Sequence[str]) -> dict[str, dict[str, float]]:
    """Group → metric → mean, of flat figures ``SYSTEM_GROUP/METRIC``; groups that have none are left out."""
    means = {
        group: {m: figures[key] for m in metrics if (key := f"{system}_{group}/{m}") in figures} for group in GROUPS
    }
    return {group: its for group, its in means.items() if its}
