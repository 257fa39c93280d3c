"""What all parts of the doctor share: findings, and the signals that diagnoses read.

Signals are plain numbers, so that they fit in a checkpoint and in ``signals.json``. Rates are shares of 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a run or with a collection."""

    evidence: str  # what was measured, with numbers
    cause: str  # the likeliest; empty where the evidence says it
    remedy: str  # a configuration override to try, or what else to do
    # error: this run cannot become good. warning: it is worse than it could be, or its figures mean less than they
    # seem to. info: worth knowing.
    severity: Literal["info", "warning", "error"] = "warning"
    id: str = ""  # which kind of thing, a stable name: for a run, that of the diagnosis
    step: int = 0  # training steps made when it was found

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("id", "severity", "step", "evidence", "cause", "remedy")}


@dataclass
class DataSignals:
    """The collection as it is trained on, measured on samples in about 10 ms."""

    shared: float  # mean share of a training query's different words that its positive has
    shared_by_chance: float  # the same with another query's positive
    shared_error: float  # standard error of the difference of the two
    shifts: list[tuple[int, float]]  # (k, share): the same with the positive of the example k rows further on
    validation_shared: float  # both for the validation queries
    validation_shared_by_chance: float
    query_length: float  # mean tokens of a training query
    positive_length: float  # of its positive
    validation_query_length: float  # of a validation query
    document_length: float  # of a passage
    unknown_in_queries: float  # share of the validation queries' tokens that are not in the vocabulary
    unknown_in_documents: float  # of the passages' tokens
    cut_queries: float  # share of the validation queries that are as long as the tokenizer allows
    cut_documents: float  # of the passages
    leaked: float  # share of the validation queries that are equal to a training query
    leaked_with_answer: float  # share that has a relevant passage in common with it, too
    copied: float  # share of the training positives that contain their whole query word by word
    pairs: int = 0  # training pairs that were compared
    validation_queries: int = 0
    unjudged_copies: float = 0.0  # share of their relevant passages with a copy that is not judged
    crowd: float = 0.0  # share of the passages that are the most frequent text, if it is there ten times or more


@dataclass
class WordSignals:
    """The word vectors that training starts from; NaN where they were not compared, being random and trained."""

    pretrained: bool  # at least in part
    frozen: bool  # to the end of training
    coverage: float | None  # share of the corpus' tokens whose word has a vector of its own; None if unknown
    together: float = math.nan  # mean cosine of the centred vectors of words that stand near each other
    apart: float = math.nan  # the same of words from different passages
    error: float = math.nan  # standard error of the difference of the two
    direction: float = math.nan  # mean cosine of two words' vectors, not centred: near 1, all point in one direction
    own: float | None = None  # with a map of all words, known at the end: the length of what each has besides, of 1

    @property
    def meaningful(self) -> bool:  # whether words that are used together have vectors that are nearer than by chance
        return self.together - self.apart > 4 * self.error


@dataclass
class TeachingSignals:
    """What a run learns from a teacher."""

    texts: int  # passages that have its vectors
    passages: int  # of the collection
    pieces: float  # that a word of the passages is to it, on average; NaN if it does not tell
    unread: float  # share of these that it does not know


@dataclass
class Step:
    """One training step, as the loss reports it; NaN where it does not."""

    step: int  # steps made, this one included
    loss: float
    positive: float = math.nan  # mean score of queries and positives
    negative: float = math.nan  # mean score of queries and negatives
    accuracy: float = math.nan  # share of the queries whose positive is above all negatives


@dataclass
class Probe:
    """A close look at a part of one training batch: its first queries, their positives and negatives."""

    step: int  # steps made, this one included
    first_epoch: bool  # in which no example was seen before
    queries: int  # that were looked at
    candidates: float  # mean number of negatives of a query
    loss: float  # of this part of the batch
    # What the loss would be if all scores were equal (the margin; the logarithm of the number of documents). 0 for a
    # loss that also learns from a teacher: scores alone do not say what it would be.
    trivial: float
    ideal: float  # if every positive scored as high and every negative as low as this similarity allows
    positive: float  # mean score of the positives
    negative: float  # of the negatives
    hardest: float  # of each query's nearest negative
    accuracy: float  # share of the queries whose positive is above all negatives
    active: float  # share of the queries that still learn: some negative's score has a gradient
    single: bool  # whether at most one negative of each query has a gradient, of several that it has
    known_negatives: float  # share of the queries with a negative that is known to be relevant
    copies: float  # share of the queries with a negative that is a near copy of the positive
    alignment: float  # mean squared distance of a query and its positive, both of length 1
    uniformity: float  # logarithm of the mean of exp(-2 squared distance) of two documents of length 1; 0: collapsed
    rank: float  # effective rank of the documents' vectors (RankMe: exp of the entropy of the singular values)
    cosine: float  # mean of two documents' vectors
    norm: float  # mean length of the documents' vectors
    not_finite: bool  # whether a vector or score is NaN or infinite
    # By part of the model:
    gradients: dict[str, float] = field(default_factory=dict)  # norm of the gradient
    without_gradient: dict[str, float] = field(default_factory=dict)  # share of the trainable numbers without one
    frozen: dict[str, float] = field(default_factory=dict)  # share of the numbers that are not trained
    updates: dict[str, float] = field(default_factory=dict)  # length of the step's change / length of what it changed
    rate: float = 1.0  # the learning rate / the schedule's largest
    positives: list[int] = field(default_factory=list)  # histogram of the scores in equal parts of the limits
    negatives: list[int] = field(default_factory=list)
    limits: tuple[float, float] = (-1.0, 1.0)

    @property
    def position(self) -> float:
        """The loss / that of equal scores: 1 is no better than chance; NaN where that is 0."""
        return self.loss / self.trivial if self.trivial else math.nan

    @property
    def chance(self) -> float:
        return 1 / (1 + self.candidates)  # the accuracy of guessing


@dataclass
class Check:
    """A check of the validation."""

    name: str
    step: int  # steps made
    epoch: float  # epochs done; 1.5 is in the middle of the second
    value: float  # of the monitored metric
    accuracy: float = math.nan  # mean of the training steps since the last check
    below_untrained: float = math.nan  # standard errors (paired by query) below the untrained towers; NaN if unknown
    below_best: float = math.nan  # the same for the best check before
    untouched: float = math.nan  # share of the words that were never updated; known of the last check only


@dataclass
class UnseenSignals:
    """The monitored metric at the best check, by whether the passages that are looked for were learned from."""

    seen: float
    unseen: float
    bm25_seen: float  # of BM25 for the same queries; NaN where it is not measured
    bm25_unseen: float
    error: float  # standard error of what `memorised` gives

    @property
    def memorised(self) -> float:
        """How much more the towers lose with new passages than BM25 does, which knows none."""
        bm25 = self.bm25_seen - self.bm25_unseen
        return self.seen - self.unseen - (0.0 if math.isnan(bm25) else bm25)


@dataclass
class Clock:
    """Where the time goes: medians of the parts of a step in seconds, so that one slow step does not count."""

    steps: int = 0  # that were timed
    data: float = 0.0  # waiting for the batch
    forward: float = 0.0  # towers and loss
    backward: float = 0.0  # gradients
    optimizer: float = 0.0  # the rest of the step
    validation: float = 0.0  # share of the run's time, all checks
    doctor: float = 0.0  # seconds that the doctor took

    @property
    def whole(self) -> float:
        return self.data + self.forward + self.backward + self.optimizer


@dataclass
class IndexSignals:
    """An index beside the run that it should belong to."""

    path: str
    problems: list[str] = field(default_factory=list)  # how it does not fit the run
    checked: int = 0  # passages that were encoded again
    difference: float = 0.0  # the largest difference of a stored vector from that, in relation to its length


@dataclass
class Signals:
    """Everything that diagnoses read; lists are in the order of steps."""

    config: Mapping[str, Any] = field(default_factory=dict)  # plain values; may lack anything
    data: DataSignals | None = None  # None before training has started
    words: WordSignals | None = None  # None where there is no word table
    teaching: TeachingSignals | None = None  # None without a teacher
    # Largest difference between the vector of a text by itself and in a batch, in relation to its length.
    alone: float = math.nan
    broken: float = 0.0  # share of the numbers of the checkpoint that are NaN or infinite
    changed: str = ""  # which data is not what it was when the run began
    baseline: dict[str, float] = field(default_factory=dict)  # monitored metric of bm25 and untrained, where known
    steps: list[Step] = field(default_factory=list)  # thinned out where there are very many
    probes: list[Probe] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)
    index: IndexSignals | None = None
    unseen: UnseenSignals | None = None  # None where all passages are learned
    total_steps: int | None = None  # of the whole training, None if unknown
    monitor: str = "mrr@10"  # the metric that decides which check is best
    similarity: str = "cosine"

    @property
    def step(self) -> int:
        return max((rows[-1].step for rows in (self.steps, self.probes, self.checks) if rows), default=0)

    def setting(self, key: str) -> Any:  # noqa: ANN401
        """The value of a dotted key of the configuration, None where there is none."""
        value: Any = self.config
        for name in key.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    def component(self, group: str) -> str:
        """The class that a group of the configuration chose, without its module; empty if unknown."""
        return str(self.setting(f"{group}._target_") or "").rpartition(".")[2]

    def to_plain(self) -> dict[str, Any]:
        """Plain values, without the configuration, which the run folder holds."""
        return {name: value for name, value in asdict(self).items() if name != "config"}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], config: Mapping[str, Any]) -> Signals:
        """What `to_plain` gave."""
        parts: dict[str, Any] = {"data": DataSignals, "words": WordSignals, "index": IndexSignals}
        parts |= {"unseen": UnseenSignals, "clock": Clock, "teaching": TeachingSignals}
        rows: dict[str, Any] = {"steps": Step, "probes": Probe, "checks": Check}
        single = {name: kind(**plain[name]) for name, kind in parts.items() if plain.get(name)}
        lists = {name: [kind(**row) for row in plain.get(name, ())] for name, kind in rows.items()}
        return cls(**{**plain, **single, **lists}, config=config)
