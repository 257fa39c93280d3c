"""What can be wrong with the steps: their size, what they reach, and what becomes of them."""

from __future__ import annotations

import math
from statistics import median

from two_tower.doctor.finding import Diagnosis, Finding
from two_tower.doctor.probe import Probe
from two_tower.doctor.signals import Signals

__all__ = ["LearningRateTooHigh", "LearningRateTooLow", "NoGradient", "Overfitting", "rounded"]

TOO_LARGE = 0.5  # of its own length that a step changes the vectors by
TOO_SMALL = 5e-4
USUAL = 0.002  # the learning rate to begin with where nothing can be told from a larger one than 1
GOOD = 0.03  # what steps of runs that learn well begin with
PROGRESS, STEPS = 0.05, 50  # of the loss of equal scores, in so many steps
ENOUGH = 20  # steps
SURE = 3.0  # standard errors
WITHOUT = 0.2  # of a part's numbers


def rounded(value: float) -> str:
    """A learning rate to one digit."""
    return f"{float(f'{value:.0e}'):g}"


class NoGradient(Diagnosis):
    """Part of the model cannot learn: cut off from the loss, or frozen by mistake."""

    id = "no_gradient"
    explained_by = ("learning_rate_too_high",)

    def examine(self, signals: Signals) -> Finding | None:
        """See `Diagnosis.examine`."""
        return self._cut_off(signals) or self._random_and_frozen(signals) or self._frozen(signals)

    def _cut_off(self, signals: Signals) -> Finding | None:
        # Where no query pulls at anything there is nothing to pass on.
        probes = [p for p in signals.probes if p.active > 0 and not p.not_finite]
        if len(probes) < 2:
            return None
        least = {part: min(p.without_gradient.get(part, 0.0) for p in probes) for part in probes[0].without_gradient}
        part, share = max(least.items(), key=lambda pair: pair[1], default=("", 0.0))
        if share < WITHOUT:
            return None
        return self.found(
            signals,
            "error" if share > 1 - WITHOUT else "warning",
            f"{share:.0%} of the trainable numbers of the {part} had no gradient in {len(probes)} steps.",
            "they do not take part in the vectors, or something between them and the loss cuts the gradient off "
            "(detach, no_grad, a conversion to NumPy)",
            "the tower without that, or requires_grad_(False) where it is meant",
        )

    def _random_and_frozen(self, signals: Signals) -> Finding | None:
        words = signals.words
        if words is None or not words.frozen or words.meaningful:
            return None
        return self.found(
            signals,
            "warning",
            f"The word vectors are frozen, and those of words that stand side by side are no nearer than others "
            f"(cosine {words.together:.3f} and {words.apart:.3f}).",
            "random word vectors are kept as they are: they can learn no meaning",
            "embedding.freeze=false",
        )

    def _frozen(self, signals: Signals) -> Finding | None:
        if not signals.probes:
            return None
        for part, share in signals.probes[-1].frozen.items():
            if share > 0.5 and not part.endswith("words"):
                return self.found(
                    signals,
                    "warning",
                    f"{share:.0%} of the numbers of the {part} are not trained (requires_grad is false).",
                    "it was frozen, perhaps for another purpose",
                    "requires_grad_(True), if that was not meant",
                )
        return None


class LearningRateTooHigh(Diagnosis):
    """Steps so large that they destroy what was there, up to numbers that are none."""

    id = "learning_rate_too_high"

    def examine(self, signals: Signals) -> Finding | None:
        """See `Diagnosis.examine`."""
        lost = next((s for s in signals.steps if not math.isfinite(s.loss)), None)
        largest, part, probe = max(
            ((value, part, p) for p in signals.probes for part, value in p.updates.items() if math.isfinite(value)),
            key=lambda found: found[0],
            default=(0.0, "", None),
        )
        if lost is not None or (signals.probes and signals.probes[-1].not_finite):
            at = lost.step if lost is not None else signals.probes[-1].step
            before = next((s.loss for s in reversed(signals.steps) if math.isfinite(s.loss)), math.nan)
            return self.found(
                signals,
                "error",
                f"The loss is no number any more since step {at} (before: {before:.3g}); the largest step changed the "
                f"{part or 'weights'} by {largest:.2g} of their length.",
                "training diverged" if largest > TOO_LARGE / 5 else "training diverged, or the loss divides by zero",
                _lower(signals, max(largest, 1.0)),
            )
        if probe is None or largest < TOO_LARGE:
            return None
        return self.found(
            signals,
            "warning",
            f"Step {probe.step} changed the {part} by {largest:.2g} of their length; {GOOD} is usual at the start.",
            "the learning rate is too high: what the vectors knew is overwritten, and words are thrown about at random",
            _lower(signals, largest),
        )


def _lower(signals: Signals, largest: float) -> str:
    rate = signals.setting("optimizer.lr")
    if rate is None:
        return "a lower learning rate"
    lower = rate * min(0.1, GOOD / largest)
    return f"optimizer.lr={rounded(min(lower, USUAL) if rate > 1 else lower)}"


class LearningRateTooLow(Diagnosis):
    """Steps so small that nothing changes."""

    id = "learning_rate_too_low"
    explained_by = ("no_gradient", "learning_rate_too_high")

    def examine(self, signals: Signals) -> Finding | None:
        """See `Diagnosis.examine`."""
        probes = [p for p in signals.probes if p.updates and p.rate > 0.01 and p.active > 0]
        if not probes or probes[-1].step < ENOUGH:
            return None
        ratio = median(max(p.updates.values()) / p.rate for p in probes)
        if ratio > TOO_SMALL or _progress(probes) > PROGRESS * max(1, probes[-1].step / STEPS):
            return None
        rate = signals.setting("optimizer.lr")
        remedy = "a higher learning rate" if rate is None else f"optimizer.lr={rounded(rate * GOOD / max(ratio, 1e-9))}"
        return self.found(
            signals,
            "warning",
            f"A step changes the vectors by {ratio:.1g} of their length ({GOOD} is usual at the start), and in "
            f"{probes[-1].step} steps the loss went from {probes[0].position:.2f} to {probes[-1].position:.2f} of what "
            "equal scores would cost.",
            "the learning rate is too low",
            remedy,
        )


def _progress(probes: list[Probe]) -> float:
    """By how much the loss has fallen, in parts of that of equal scores."""
    first, last = probes[:1], probes[-2:]
    return sum(p.position for p in first) / len(first) - sum(p.position for p in last) / len(last)


class Overfitting(Diagnosis):
    """Training gets better and search worse."""

    id = "overfitting"
    explained_by = (
        "misaligned_pairs",
        "learning_rate_too_high",
        "hardest_negative_collapse",
        "collapsed",
        "stuck_at_chance",
        "stuck_at_margin",
    )

    def examine(self, signals: Signals) -> Finding | None:
        """See `Diagnosis.examine`."""
        if not signals.checks:
            return None
        last, untrained = signals.checks[-1], signals.baseline.get("untrained", math.nan)
        best = max(signals.checks, key=lambda check: check.value)
        learnt = signals.probes[0].accuracy if signals.probes else math.nan
        trained = f"training queries right: {learnt:.0%} at the start, {last.accuracy:.0%} now"
        settled = best is not last or signals.step >= (
            signals.total_steps or math.inf
        )  # what still rises may get there
        if last.below_untrained > SURE and settled and not last.accuracy < learnt:
            return self.found(
                signals,
                "warning",
                f"{signals.monitor} is {last.value:.3f} after {last.name}, below the untrained towers' {untrained:.3f} "
                f"by {last.below_untrained:.1f} standard errors; {trained}.",
                "the towers learn the training pairs by heart",
                self._gentler(signals),
            )
        if best is not last and last.below_best > SURE and not last.accuracy < best.accuracy:
            # The best check is kept: if that is a good one, nothing is lost but time.
            good = best.below_untrained < -SURE or math.isnan(best.below_untrained)
            return self.found(
                signals,
                "info" if good else "warning",
                f"{signals.monitor} fell from {best.value:.3f} ({best.name}) to {last.value:.3f} ({last.name}), by "
                f"{last.below_best:.1f} standard errors; {trained}.",
                "the towers learn the training pairs by heart; best.ckpt holds the better check",
                "callbacks=early_stopping" if len(signals.checks) > 2 else self._gentler(signals),
            )
        return None

    def _gentler(self, signals: Signals) -> str:
        rate = signals.setting("optimizer.lr")
        return "callbacks=early_stopping" if rate is None else f"optimizer.lr={rounded(rate / 10)}"
