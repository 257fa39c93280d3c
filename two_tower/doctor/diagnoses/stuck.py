"""A loss that does not move, and vectors that are all the same."""

from __future__ import annotations

import math

from two_tower.doctor.finding import Diagnosis, Finding
from two_tower.doctor.probe import Probe
from two_tower.doctor.signals import Signals

__all__ = ["Collapsed", "StuckAtChance", "StuckAtMargin"]

PROBES = 3  # newest ones that must agree
ENOUGH = 20  # steps for vectors to part
PATIENCE = 25  # steps for a loss to move
ONE_DIRECTION = 0.97
PARTED = 0.01  # by how much the mean cosine must fall to say that vectors part
SAME_WORDS = 0.8  # mean cosine of word vectors from which they point in one direction
RIGHT = 3  # times as often as by chance
STILL = (0.97, 1.05)  # of the loss of equal scores
LONG, HARDLY = 100, 0.75  # steps, and the share of it that is too much after them
UNREACHABLE = 0.7  # of it that even a perfect model would pay

CAUSES = (
    "batch_dependent",
    "misaligned_pairs",
    "no_gradient",
    "learning_rate_too_high",
    "learning_rate_too_low",
    "hardest_negative_collapse",
)


class Collapsed(Diagnosis):
    """All texts have nearly the same vector."""

    id = "collapsed"
    explained_by = CAUSES

    def examine(self, signals: Signals) -> Finding | None:
        """See `Diagnosis.examine`."""
        last = signals.probes[-2:]
        if len(last) < 2 or last[-1].step < ENOUGH:
            return None
        part = signals.probes[0].cosine - last[-1].cosine
        if not all(p.cosine > ONE_DIRECTION for p in last) or part > PARTED:
            return None
        probe = last[-1]
        return self.found(
            signals,
            "error",
            f"Two documents have a mean cosine of {probe.cosine:.3f}, their vectors an effective rank of "
            f"{probe.rank:.1f} (of {probe.queries} and more); positives score {probe.positive:.3f}, negatives "
            f"{probe.negative:.3f}.",
            *self._cause(signals),
        )

    def _cause(self, signals: Signals) -> tuple[str, str]:
        words = signals.words
        if words is not None and words.direction > SAME_WORDS:
            normalised = signals.setting("embedding.normalize")
            return (
                f"the word vectors themselves point in one direction (mean cosine {words.direction:.2f})",
                "embedding.normalize=true" if normalised is False else "embedding=random",
            )
        if signals.component("loss") == "TripletLoss":
            return "the loss does not pull documents apart from each other", "loss=in_batch negatives=in_batch"
        return "nothing pulls documents apart", "loss=in_batch negatives=in_batch"


class _Stuck(Diagnosis):
    """What a loss that sits at the value of equal scores has in common, whatever it is called."""

    explained_by = (*CAUSES, "collapsed")
    at_chance: bool

    def examine(self, signals: Signals) -> Finding | None:
        """See `Diagnosis.examine`."""
        if not signals.probes or _is_chance(signals.probes[-1]) is not self.at_chance:
            return None
        return self._unreachable(signals) or self._still(signals) or self._hardly(signals)

    def _unreachable(self, signals: Signals) -> Finding | None:
        """A temperature or margin that no towers can live up to."""
        probe = signals.probes[-1]
        # Of other similarities nobody knows how far apart scores may come.
        if signals.similarity != "cosine" or not probe.trivial or not probe.ideal / probe.trivial > UNREACHABLE:
            return None
        return self.found(
            signals,
            "warning",
            f"The loss is {probe.loss:.3f}; with equal scores it would be {probe.trivial:.3f}, and {probe.ideal:.3f} "
            "if every positive had cosine 1 and every negative 0.",
            *self._too_much(signals),
        )

    def _still(self, signals: Signals) -> Finding | None:
        last = signals.probes[-PROBES:]
        if len(last) < PROBES or last[-1].step < PATIENCE or not all(STILL[0] < p.position < STILL[1] for p in last):
            return None
        probe = last[-1]
        if max(p.accuracy for p in last[1:]) > RIGHT * probe.chance:
            return None  # slow, but it learns
        return self.found(
            signals,
            "error",
            f"The loss is {probe.loss:.3f} and would be {probe.trivial:.3f} with equal scores, since step "
            f"{last[0].step}: positives score {probe.positive:.3f}, negatives {probe.negative:.3f}, and "
            f"{probe.accuracy:.0%} of the queries are right (by chance {probe.chance:.0%}).",
            *self._nothing_learnt(signals),
        )

    def _hardly(self, signals: Signals) -> Finding | None:
        """Up and down, but never far from where it began."""
        last = [p for p in signals.probes if p.step >= LONG][-PROBES:]
        position = sum(p.position for p in last) / PROBES
        if len(last) < PROBES or not HARDLY < position < STILL[1]:
            return None
        frozen = signals.words is not None and signals.words.frozen
        return self.found(
            signals,
            "warning",
            f"After {last[-1].step} steps the loss is still {position:.0%} of that of equal scores "
            f"({last[-1].trivial:.3f}), and {last[-1].accuracy:.0%} of the queries are right (by chance "
            f"{last[-1].chance:.0%}).",
            *(
                ("the word vectors are frozen, and what is left cannot learn the task", "embedding.freeze=false")
                if frozen
                else self._nothing_learnt(signals)
            ),
        )

    def _too_much(self, signals: Signals) -> tuple[str, str]:
        raise NotImplementedError

    def _nothing_learnt(self, signals: Signals) -> tuple[str, str]:
        raise NotImplementedError


def _is_chance(probe: Probe) -> bool:
    """Whether equal scores cost the logarithm of the candidates, as in a cross-entropy, or a constant."""
    expected = math.log1p(probe.candidates)
    return abs(probe.trivial - expected) <= 0.1 * expected


class StuckAtChance(_Stuck):
    """A cross-entropy at the logarithm of the candidates: no better than guessing."""

    id = "stuck_at_chance"
    at_chance = True

    def _too_much(self, signals: Signals) -> tuple[str, str]:
        temperature = signals.setting("loss.temperature")
        which = f"loss.temperature={temperature}" if temperature is not None else "the temperature"
        return f"{which} is too high: all candidates count nearly the same", "loss.temperature=0.05"

    def _nothing_learnt(self, signals: Signals) -> tuple[str, str]:
        return "nothing that queries and passages have in common reaches the vectors", "embedding=glove"


class StuckAtMargin(_Stuck):
    """A triplet loss at its margin: positives and negatives score the same."""

    id = "stuck_at_margin"
    at_chance = False

    def _too_much(self, signals: Signals) -> tuple[str, str]:
        margin = signals.setting("loss.margin")
        which = f"loss.margin={margin}" if margin is not None else "the margin"
        return (
            f"{which} is more than scores can differ by: every triplet pulls with full force, for ever",
            "loss.margin=0.3",
        )

    def _nothing_learnt(self, signals: Signals) -> tuple[str, str]:
        return (
            "one random negative a query teaches little to a model that knows nothing",
            "loss=in_batch negatives=in_batch",
        )
