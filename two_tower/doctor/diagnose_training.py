"""What can be wrong with the steps: their size, what they reach, how long they take; and the list of all diagnoses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from statistics import median

from two_tower.doctor import diagnose_data, diagnose_vectors
from two_tower.doctor.base import Finding, Signals

ENOUGH = 20  # steps before which most things are not said
TOO_LARGE, TOO_SMALL = 0.5, 5e-4  # by how much of their own length a step changes the vectors
USUAL_RATE = 0.002  # the learning rate to begin with where one above 1 tells nothing
GOOD = 0.03  # what the steps of runs that learn well begin with
PROGRESS, PROGRESS_STEPS = 0.05, 50  # how much of the loss of equal scores must go, in how many steps
SURE = 3.0  # standard errors
WITHOUT = 0.2  # share of a part's numbers
WAITING, WAITING_SECONDS = 0.3, 0.005  # share of a step, seconds
MAX_WORKERS = 8


def learning_rate_too_high(signals: Signals) -> Finding | None:
    """Steps so large that they destroy what was there, up to NaN."""
    updates = [(value, part, p) for p in signals.probes for part, value in p.updates.items() if math.isfinite(value)]
    largest, part, probe = max(updates, key=lambda update: update[0], default=(0.0, "weights", None))
    lost_at = _not_finite_since(signals)
    if lost_at is not None:
        before = next((s.loss for s in reversed(signals.steps) if math.isfinite(s.loss)), math.nan)
        return Finding(
            f"The loss is NaN or infinite since step {lost_at} (before: {before:.3g}); the largest step changed the "
            f"{part} by {largest:.2g} of their length.",
            "training diverged" if largest > TOO_LARGE / 5 else "training diverged, or the loss divides by zero",
            _lower_rate(signals, max(largest, 1.0)),
            severity="error",
        )
    if probe is None or largest < TOO_LARGE:
        return None
    return Finding(
        f"Step {probe.step} changed the {part} by {largest:.2g} of their length; {GOOD} is usual at the start.",
        "the learning rate is too high: what the vectors knew is overwritten, and words are thrown about at random",
        _lower_rate(signals, largest),
    )


def _not_finite_since(signals: Signals) -> int | None:
    lost = next((s.step for s in signals.steps if not math.isfinite(s.loss)), None)
    if lost is None and signals.probes and signals.probes[-1].not_finite:
        return signals.probes[-1].step
    return lost


def _lower_rate(signals: Signals, largest: float) -> str:
    rate = signals.setting("optimizer.lr")
    if rate is None:
        return "a lower learning rate"
    lower = rate * min(0.1, GOOD / largest)
    return f"optimizer.lr={one_digit(min(lower, USUAL_RATE) if rate > 1 else lower)}"


def one_digit(value: float) -> str:
    """A learning rate to one digit."""
    return f"{float(f'{value:.0e}'):g}"


def learning_rate_too_low(signals: Signals) -> Finding | None:
    """Steps so small that nothing changes."""
    probes = [p for p in signals.probes if p.updates and p.rate > 0.01 and p.active > 0]
    if not probes or probes[-1].step < ENOUGH:
        return None
    ratio = median(max(p.updates.values()) / p.rate for p in probes)
    newest = probes[-2:]
    progress = probes[0].position - sum(p.position for p in newest) / len(newest)
    if ratio > TOO_SMALL or progress > PROGRESS * max(1, probes[-1].step / PROGRESS_STEPS):
        return None
    rate = signals.setting("optimizer.lr")
    higher = None if rate is None else f"optimizer.lr={one_digit(rate * GOOD / max(ratio, 1e-9))}"
    return Finding(
        f"A step changes the vectors by {ratio:.1g} of their length ({GOOD} is usual at the start), and in "
        f"{probes[-1].step} steps the loss went from {probes[0].position:.2f} to {probes[-1].position:.2f} of what "
        "equal scores would cost.",
        "the learning rate is too low",
        higher or "a higher learning rate",
    )


def no_gradient(signals: Signals) -> Finding | None:
    """Part of the model cannot learn: cut off from the loss, or frozen by mistake."""
    return _cut_off(signals) or _random_and_frozen(signals) or _frozen(signals)


def _cut_off(signals: Signals) -> Finding | None:
    # Where no query learns from any negative, there is no gradient to pass on.
    probes = [p for p in signals.probes if p.active > 0 and not p.not_finite]
    if len(probes) < 2:
        return None
    shares = {part: min(p.without_gradient.get(part, 0.0) for p in probes) for part in probes[0].without_gradient}
    part, share = max(shares.items(), key=lambda pair: pair[1], default=("", 0.0))
    if share < WITHOUT:
        return None
    return Finding(
        f"{share:.0%} of the trainable numbers of the {part} had no gradient in {len(probes)} steps.",
        "they do not take part in the vectors, or something between them and the loss cuts the gradient off "
        "(detach, no_grad, a conversion to NumPy)",
        "the tower without that, or requires_grad_(False) where it is meant",
        severity="error" if share > 1 - WITHOUT else "warning",
    )


def _random_and_frozen(signals: Signals) -> Finding | None:
    words = signals.words
    if words is None or not words.frozen or words.meaningful:
        return None
    return Finding(
        "The word vectors are frozen, and those of words that stand near each other are no nearer than others "
        f"(cosine {words.together:.3f} and {words.apart:.3f}).",
        "random word vectors are kept as they are: they can learn no meaning",
        "embedding.freeze=false",
    )


def _frozen(signals: Signals) -> Finding | None:
    frozen = signals.probes[-1].frozen if signals.probes else {}
    for part, share in frozen.items():
        if share > 0.5 and not part.endswith("words"):
            return Finding(
                f"{share:.0%} of the numbers of the {part} are not trained (requires_grad is false).",
                "it was frozen, perhaps for another purpose",
                "requires_grad_(True), if that was not meant",
            )
    return None


def overfitting(signals: Signals) -> Finding | None:
    """Training gets better and search worse."""
    if not signals.checks:
        return None
    last, best = signals.checks[-1], max(signals.checks, key=lambda check: check.value)
    at_start = signals.probes[0].accuracy if signals.probes else math.nan
    trained = f"training queries right: {at_start:.0%} at the start, {last.accuracy:.0%} now"
    rate = signals.setting("optimizer.lr")
    gentler = "callbacks=early_stopping" if rate is None else f"optimizer.lr={one_digit(rate / 10)}"
    # What still rises may get there.
    settled = best is not last or signals.step >= (signals.total_steps or math.inf)
    if last.below_untrained > SURE and settled and not last.accuracy < at_start:
        untrained = signals.baseline.get("untrained", math.nan)
        return Finding(
            f"{signals.monitor} is {last.value:.3f} after {last.name}, below the untrained towers' {untrained:.3f} by "
            f"{last.below_untrained:.1f} standard errors; {trained}.",
            "the towers learn the training pairs by heart",
            gentler,
        )
    if best is last or not last.below_best > SURE or last.accuracy < best.accuracy:
        return None
    # The best check is kept: if that is a good one, nothing is lost but time.
    good = best.below_untrained < -SURE or math.isnan(best.below_untrained)
    return Finding(
        f"{signals.monitor} fell from {best.value:.3f} ({best.name}) to {last.value:.3f} ({last.name}), by "
        f"{last.below_best:.1f} standard errors; {trained}.",
        "the towers learn the training pairs by heart; best.ckpt holds the better check",
        "callbacks=early_stopping" if len(signals.checks) > 2 else gentler,
        severity="info" if good else "warning",
    )


def data_bound(signals: Signals) -> Finding | None:
    """Training waits for its batches."""
    clock = signals.clock
    if clock.steps < ENOUGH or clock.data < WAITING_SECONDS or clock.data < WAITING * clock.whole:
        return None
    working = clock.whole - clock.data
    # As many as make batches twice as fast as the steps use them; workers share the cores.
    workers = math.ceil(2 * clock.data / max(working, 1e-3)) + (signals.setting("data.num_workers") or 0)
    return Finding(
        f"A step waits {1000 * clock.data:.0f} ms for its batch and takes {1000 * working:.0f} ms "
        f"({clock.data / clock.whole:.0%} of the time is lost).",
        "batches are made more slowly than they are used: a slow disk, or slow negatives",
        f"data.num_workers={min(MAX_WORKERS, max(2, workers))}",
    )


#: All diagnoses, in the order in which they are told: causes before consequences. Their names are the findings' ids.
DIAGNOSES: tuple[Callable[[Signals], Finding | None], ...] = (
    diagnose_data.serving_mismatch,
    diagnose_data.batch_dependent,
    diagnose_data.misaligned_pairs,
    diagnose_data.leakage,
    diagnose_data.embedding_mismatch,
    diagnose_data.unknown_words,
    diagnose_data.truncated,
    learning_rate_too_high,
    no_gradient,
    learning_rate_too_low,
    diagnose_vectors.hardest_negative_collapse,
    diagnose_vectors.false_negatives,
    diagnose_vectors.collapsed,
    diagnose_vectors.stuck_at_chance,
    diagnose_vectors.stuck_at_margin,
    diagnose_vectors.easy_negatives,
    overfitting,
    data_bound,
)

_CAUSES = {
    "batch_dependent", "misaligned_pairs", "no_gradient", "learning_rate_too_high", "learning_rate_too_low",
    "hardest_negative_collapse",
}  # fmt: skip
#: Id → the findings beside which it would only be their consequence, and is not told.
EXPLAINED_BY = {
    "no_gradient": {"learning_rate_too_high"},
    "learning_rate_too_low": {"no_gradient", "learning_rate_too_high"},
    "hardest_negative_collapse": {"learning_rate_too_high", "no_gradient", "batch_dependent"},
    "collapsed": _CAUSES,
    "stuck_at_chance": _CAUSES | {"collapsed"},
    "stuck_at_margin": _CAUSES | {"collapsed"},
    "easy_negatives": {"leakage", "no_gradient", "learning_rate_too_high"},
    "overfitting": {
        "misaligned_pairs", "learning_rate_too_high", "hardest_negative_collapse", "collapsed", "stuck_at_chance",
        "stuck_at_margin",
    },
}  # fmt: skip


def diagnose(signals: Signals) -> list[Finding]:
    """What is wrong by these signals, the likeliest cause first."""
    findings: dict[str, Finding] = {}
    for diagnosis in DIAGNOSES:
        name = diagnosis.__name__
        if findings.keys() & EXPLAINED_BY.get(name, set()):
            continue
        finding = diagnosis(signals)
        if finding is not None:
            findings[name] = replace(finding, id=name, step=signals.step)
    return list(findings.values())
