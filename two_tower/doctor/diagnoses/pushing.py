"""What can be wrong with the negatives that queries are pushed away from."""

from __future__ import annotations

import math

from two_tower.doctor.finding import Diagnosis, Finding
from two_tower.doctor.signals import Signals

__all__ = ["EasyNegatives", "FalseNegatives", "HardestNegativeCollapse"]

EARLY, ENOUGH = 10, 20  # steps before which nothing is said
IDLE = 0.05  # share of the queries that learn something, or of the loss that is left
AT_TRIVIAL = 0.97  # of the loss of equal scores: no better
FEW, RIGHT, FAR = 8, 0.75, 0.25  # candidates a query, share of the queries, of BM25's figure
KNOWN, COPIES = 0.05, 0.1  # shares of the queries


class HardestNegativeCollapse(Diagnosis):
    """Pulling at the hardest negative alone makes all vectors equal: the loss goes to the margin and stays."""

    id = "hardest_negative_collapse"
    explained_by = ("learning_rate_too_high", "no_gradient", "batch_dependent")

    def examine(self, signals: Signals) -> Finding | None:
        """See `Diagnosis.examine`."""
        last = signals.probes[-2:]
        if len(last) < 2 or last[-1].step < ENOUGH or not all(p.single and p.position > AT_TRIVIAL for p in last):
            return None
        probe = last[-1]
        return self.found(
            signals,
            "error",
            f"Each query is pushed away from its nearest negative only. The loss is {probe.loss:.3f}, with equal "
            f"scores it would be {probe.trivial:.3f}; positives score {probe.positive:.3f}, nearest negatives "
            f"{probe.hardest:.3f}; two documents have a mean cosine of {probe.cosine:.3f}.",
            "the hardest negatives of an untrained model pull all vectors to one point",
            "loss.select=semi_hard" if signals.setting("loss.select") == "hardest" else "loss=in_batch",
        )


class FalseNegatives(Diagnosis):
    """Queries are pushed away from passages that answer them."""

    id = "false_negatives"

    def examine(self, signals: Signals) -> Finding | None:
        """See `Diagnosis.examine`."""
        probes = signals.probes
        if len(probes) < 2:
            return None
        known = sum(p.known_negatives for p in probes) / len(probes)
        copies = sum(p.copies for p in probes) / len(probes)
        if known <= KNOWN and copies <= COPIES:
            return None
        masked = signals.setting("negatives.mask_known_positives") is not False
        return self.found(
            signals,
            "warning",
            f"{known:.0%} of the queries are pushed away from a passage that is known to be relevant to them, "
            f"{copies:.0%} from a near copy of their positive.",
            "the mined negatives contain unjudged answers" if masked else "known answers are not masked",
            "negatives.relative_margin=0.05 negatives.first_rank=10"
            if masked
            else "negatives.mask_known_positives=true",
        )


class EasyNegatives(Diagnosis):
    """Negatives so far away that nothing is left to learn. Said in the first epoch only: later it is memory."""

    id = "easy_negatives"
    explained_by = ("leakage", "no_gradient", "learning_rate_too_high")

    def examine(self, signals: Signals) -> Finding | None:
        """See `Diagnosis.examine`."""
        return self._nothing_left(signals) or self._means_nothing(signals)

    def _nothing_left(self, signals: Signals) -> Finding | None:
        first = [p for p in signals.probes if p.first_epoch and p.step >= EARLY]
        last = first[-2:]
        if len(last) < 2:
            return None
        active = sum(p.active for p in last) / 2
        position = sum(p.position for p in last) / 2
        if active >= IDLE and not position < IDLE / 2:
            return None
        probe = last[-1]
        return self.found(
            signals,
            "warning",
            f"{active:.0%} of the queries still learn something, in pairs never seen before: positives score "
            f"{probe.positive:.2f}, negatives {probe.negative:.2f}; the loss is {position:.0%} of that of equal "
            "scores.",
            "the negatives have nothing to do with the queries",
            self._remedy(signals),
        )

    def _means_nothing(self, signals: Signals) -> Finding | None:
        """Nearly all triplets are right, and hardly any query finds its passage among all of them."""
        check, bm25 = next(reversed(signals.checks), None), signals.baseline.get("bm25", math.nan)
        # Of pairs never seen before: others may have been learnt by heart.
        first = [p for p in signals.probes if p.first_epoch and p.step >= EARLY]
        if check is None or len(first) < 2 or first[-1].candidates > FEW:
            return None
        right = sum(p.accuracy for p in first) / len(first)
        if not (right > RIGHT and check.value < FAR * bm25):
            return None
        return self.found(
            signals,
            "warning",
            f"In the first epoch {right:.0%} of the training queries had their positive above all of their "
            f"{first[-1].candidates:.0f} candidates, and {signals.monitor} against all passages is "
            f"{check.value:.3f} (BM25: {bm25:.3f}).",
            "to be nearer than one random passage in two is far from being nearer than all",
            "loss=in_batch negatives=in_batch",
        )

    def _remedy(self, signals: Signals) -> str:
        if signals.component("negatives") in ("BM25Negatives", "ANNNegatives", "MixedNegatives"):
            return "loss=in_batch"
        return "negatives=bm25"
