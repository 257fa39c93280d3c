"""What the doctor knows of a run: plain numbers, so that they fit in a checkpoint and in ``doctor.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Check", "Clock", "DataSignals", "IndexSignals", "Probe", "Signals", "Step", "WordSignals"]


@dataclass
class DataSignals:
    """The collection, of samples that take milliseconds; rates are shares of 1.

    Attributes:
        shared: mean share of a training query's different words that its positive has.
        shared_by_chance: the same with another query's positive.
        shared_error: standard error of the difference of the two.
        shifts: ``(k, share)``: the same with the positive of the example k rows further on.
        validation_shared: as ``shared``, for the validation queries.
        validation_shared_by_chance: as ``shared_by_chance``.
        query_length: mean tokens of a training query.
        positive_length: mean tokens of its positive.
        validation_query_length: mean tokens of a validation query.
        document_length: mean tokens of a passage.
        unknown_in_queries: share of the validation queries' tokens that are not in the vocabulary.
        unknown_in_documents: share of the passages' tokens.
        cut_queries: share of the validation queries that are as long as the tokenizer lets them be.
        cut_documents: share of the passages.
        leaked: share of the validation queries whose tokens are those of a training query.
        leaked_with_answer: share that has a relevant passage in common with it, too.
        copied: share of the training positives that contain their whole query word by word.
    """

    shared: float
    shared_by_chance: float
    shared_error: float
    shifts: list[tuple[int, float]]
    validation_shared: float
    validation_shared_by_chance: float
    query_length: float
    positive_length: float
    validation_query_length: float
    document_length: float
    unknown_in_queries: float
    unknown_in_documents: float
    cut_queries: float
    cut_documents: float
    leaked: float
    leaked_with_answer: float
    copied: float


@dataclass
class WordSignals:
    """The word vectors that training starts from.

    Attributes:
        pretrained: whether they come from elsewhere, as far as the configuration tells.
        frozen: whether they are kept as they are, to the end of training.
        coverage: share of the corpus' tokens whose word has a vector of its own; None where that is not known.
        together: mean cosine of the centred vectors of words that stand side by side.
        apart: the same of words from different passages.
        error: standard error of the difference of the two.
        direction: mean cosine of two words' vectors, as they are: near 1, all point in one direction.
    """

    pretrained: bool
    frozen: bool
    coverage: float | None
    together: float
    apart: float
    error: float
    direction: float

    @property
    def meaningful(self) -> bool:
        """Whether words that are used together have vectors that are nearer than by chance."""
        return self.together - self.apart > 5 * self.error


@dataclass
class Step:
    """One training step, as the loss reports it; NaN where it does not.

    Attributes:
        step: how many steps were made with it.
        loss: its loss.
        positive: mean score of queries and positives.
        negative: mean score of queries and candidates.
        accuracy: share of the queries whose positive is above all candidates.
    """

    step: int
    loss: float
    positive: float = math.nan
    negative: float = math.nan
    accuracy: float = math.nan


@dataclass
class Probe:
    """A close look at a part of one training batch: its first queries, their positives and further documents.

    Attributes:
        step: how many steps were made with it.
        first_epoch: whether it was in the first epoch, in which no example has been seen before.
        queries: queries looked at.
        candidates: mean candidates of each.
        loss: the loss of the part.
        trivial: what the loss would be if all scores were equal (the margin, the logarithm of the candidates).
        ideal: what it would be if every positive scored as high and every candidate as low as this similarity allows.
        positive: mean score of the positives.
        negative: mean score of the candidates.
        hardest: mean score of each query's nearest candidate.
        accuracy: share of the queries whose positive is above all candidates.
        active: share of the queries that still pull at anything: with a gradient on some candidate's score.
        single: whether at most one candidate of each query has a gradient, of several that it has.
        known_negatives: share of the queries that are pushed away from a document that is known to be relevant.
        copies: share of the queries that are pushed away from a near copy of their positive.
        alignment: mean squared distance of a query and its positive, both of length 1.
        uniformity: logarithm of the mean of exp(-2 squared distance) of two documents of length 1; 0 is collapsed.
        rank: effective rank of the documents' vectors (RankMe: exp of the entropy of the singular values).
        cosine: mean cosine of two documents' vectors.
        norm: mean length of the documents' vectors.
        not_finite: whether a vector or score is infinite or not a number.
        gradients: part of the model → norm of its gradient.
        without_gradient: part of the model → share of its trainable numbers whose tensor has no gradient, or zeros.
        frozen: part of the model → share of its numbers that are not trained.
        updates: part of the model → length of the step's change in relation to what it changed.
        rate: the learning rate in relation to the schedule's largest.
        positives: histogram of the positives' scores, counts of `Probe.BINS` equal parts of ``limits``.
        negatives: histogram of the candidates' scores.
        limits: the smallest and the largest score of the histograms.
    """

    BINS = 40

    step: int
    first_epoch: bool
    queries: int
    candidates: float
    loss: float
    trivial: float
    ideal: float
    positive: float
    negative: float
    hardest: float
    accuracy: float
    active: float
    single: bool
    known_negatives: float
    copies: float
    alignment: float
    uniformity: float
    rank: float
    cosine: float
    norm: float
    not_finite: bool
    gradients: dict[str, float] = field(default_factory=dict)
    without_gradient: dict[str, float] = field(default_factory=dict)
    frozen: dict[str, float] = field(default_factory=dict)
    updates: dict[str, float] = field(default_factory=dict)
    rate: float = 1.0
    positives: list[int] = field(default_factory=list)
    negatives: list[int] = field(default_factory=list)
    limits: tuple[float, float] = (-1.0, 1.0)

    @property
    def position(self) -> float:
        """The loss in relation to that of equal scores: 1 is no better than chance; NaN where that is 0."""
        return self.loss / self.trivial if self.trivial else math.nan

    @property
    def chance(self) -> float:
        """The accuracy of a coin: one out of the positive and the candidates."""
        return 1 / (1 + self.candidates)


@dataclass
class Check:
    """A check of the validation.

    Attributes:
        name: what it is called.
        step: how many steps were made.
        epoch: epochs done; 1.5 is in the middle of the second.
        value: of the metric that decides which check is best.
        accuracy: share of training queries whose positive was above all candidates, mean since the last check.
        below_untrained: by how many standard errors (paired by query) it is below the untrained towers; NaN if unknown.
        below_best: the same for the best check before.
        untouched: share of the vocabulary that was never updated; NaN if unknown.
    """

    name: str
    step: int
    epoch: float
    value: float
    accuracy: float = math.nan
    below_untrained: float = math.nan
    below_best: float = math.nan
    untouched: float = math.nan


@dataclass
class Clock:
    """Where the time goes: medians of a step's parts in seconds, so that a slow step now and then does not count.

    Attributes:
        steps: that were timed.
        data: waiting for the batch.
        forward: towers and loss.
        backward: gradients.
        optimizer: the rest of the step.
        validation: share of the run's time, all checks.
        doctor: seconds that the doctor took.
    """

    steps: int = 0
    data: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    optimizer: float = 0.0
    validation: float = 0.0
    doctor: float = 0.0

    @property
    def whole(self) -> float:
        """Seconds of a step."""
        return self.data + self.forward + self.backward + self.optimizer


@dataclass
class IndexSignals:
    """An index beside the run that it should belong to.

    Attributes:
        path: its folder.
        checkpoint: whether its vectors were made with the run's best checkpoint.
        tokenizer: whether with its tokenizer.
        similarity: what they were made for.
        checked: passages that were encoded again.
        difference: the largest difference of a stored vector from that, in relation to its length.
    """

    path: str
    checkpoint: bool
    tokenizer: bool
    similarity: str
    checked: int = 0
    difference: float = 0.0


@dataclass
class Signals:
    """Everything that diagnoses are made of.

    Attributes:
        config: the run's configuration, plain values; may lack anything.
        data: None before training has started.
        words: None where there is no word table.
        alone: largest difference between the vector of a text by itself and in a batch, in relation to its length;
            NaN if unknown.
        baseline: the monitored metric of BM25 and of the untrained towers, where known.
        steps: of the training, thinned out where there are very many.
        probes: close looks, ascending.
        checks: of the validation, ascending.
        clock: where the time goes.
        index: the run's index, if there is one.
        total_steps: of the whole training, None if unknown.
        monitor: the metric that decides which check is best.
        similarity: cosine, dot or euclidean.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    data: DataSignals | None = None
    words: WordSignals | None = None
    alone: float = math.nan
    baseline: dict[str, float] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)
    index: IndexSignals | None = None
    total_steps: int | None = None
    monitor: str = "mrr@10"
    similarity: str = "cosine"

    @property
    def step(self) -> int:
        """Steps made so far."""
        return max((row[-1].step for row in (self.steps, self.probes, self.checks) if row), default=0)

    def setting(self, key: str) -> Any:  # noqa: ANN401
        """The value of a dotted key of the configuration, None where there is none."""
        value: Any = self.config
        for name in key.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    def component(self, group: str) -> str:
        """The class that a group of the configuration chose, without its module; empty where unknown."""
        return str(self.setting(f"{group}._target_") or "").rpartition(".")[2]

    def to_plain(self) -> dict[str, Any]:
        """Plain values, without the configuration, which the run folder holds."""
        plain = asdict(self)
        del plain["config"]
        return plain

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Signals:
        """What `to_plain` gave."""
        made = dict(plain)
        for name, kind in (("data", DataSignals), ("words", WordSignals), ("index", IndexSignals)):
            made[name] = kind(**made[name]) if made.get(name) else None
        for name, kind in (("steps", Step), ("probes", Probe), ("checks", Check)):
            made[name] = [kind(**row) for row in made.get(name, [])]
        return cls(**{**made, "clock": Clock(**made.get("clock", {})), "config": config or {}})
