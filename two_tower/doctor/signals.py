"""What the doctor knows of a run: plain numbers, so that they fit in a checkpoint and in ``doctor.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from two_tower.doctor.probe import Probe

__all__ = ["Check", "Clock", "DataSignals", "IndexSignals", "Signals", "Step", "WordSignals"]


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
    """The word vectors that training starts from; NaN where they were not compared, being random and learned.

    Attributes:
        pretrained: whether they come from elsewhere, at least in part.
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
    together: float = math.nan
    apart: float = math.nan
    error: float = math.nan
    direction: float = math.nan

    @property
    def meaningful(self) -> bool:
        """Whether words that are used together have vectors that are nearer than by chance."""
        return self.together - self.apart > 4 * self.error


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
        untouched: share of the vocabulary that was never updated; known of the last check only, else NaN.
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
        damage: what cannot be read of it, in a sentence; empty where all can.
    """

    path: str
    checkpoint: bool
    tokenizer: bool
    similarity: str
    checked: int = 0
    difference: float = 0.0
    damage: str = ""


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
        parts: dict[str, Any] = {"data": DataSignals, "words": WordSignals, "index": IndexSignals, "clock": Clock}
        rows: dict[str, Any] = {"steps": Step, "probes": Probe, "checks": Check}
        made = dict(plain)
        made |= {name: kind(**made[name]) for name, kind in parts.items() if made.get(name)}
        made |= {name: [kind(**row) for row in made.get(name, ())] for name, kind in rows.items()}
        return cls(**made, config=config or {})
