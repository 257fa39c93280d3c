"""What can be wrong with the steps, the negatives and the vectors."""

from __future__ import annotations

import math
from statistics import median

from two_tower.doctor.base import Finding, Probe, Signals

ENOUGH = 20  # steps before which most things are not said
TOO_LARGE, TOO_SMALL = 0.5, 5e-4  # by how much of their own length a step changes the vectors
USUAL_RATE = 0.002  # the learning rate to begin with where one above 1 tells nothing
GOOD = 0.03  # what the steps of runs that learn well begin with
PROGRESS, PROGRESS_STEPS = 0.05, 50  # how much of the loss of equal scores must go, in how many steps
WITHOUT = 0.2  # share of a part's numbers
EARLY = 10  # steps
IDLE = 0.05  # share of the queries that learn something, or of the loss that is left
AT_TRIVIAL = 0.97  # of the loss of equal scores: no better
FEW, RIGHT, FAR = 8, 0.75, 0.25  # negatives of a query, share of the queries, share of BM25's figure
KNOWN, COPIES = 0.05, 0.1  # shares of the queries
NEWEST = 3  # probes that must agree
ONE_DIRECTION = 0.97  # mean cosine of two documents
PARTED = 0.01  # by how much it must fall to say that the vectors part
SAME_WORDS = 0.8  # mean cosine of word vectors from which they point in one direction
PATIENCE = 25  # steps for a loss to move
ABOVE_CHANCE = 3  # times as often right as by chance
STILL = (0.97, 1.05)  # of the loss of equal scores
LONG, HARDLY = 100, 0.75  # steps, and the share of that loss that is too much after them
UNREACHABLE = 0.7  # share of it that even a perfect model would pay


def learning_rate_too_high(signals: Signals) -> Finding | None:
    """Steps so large that they destroy what was there, up to NaN."""
    updates = [(value, part, p) for p in signals.probes for part, value in p.updates.items() if math.isfinite(value)]
    largest, part, probe = max(updates, key=lambda update: update[0], default=(0.0, "weights", None))
    lost_at = next((s.step for s in signals.steps if not math.isfinite(s.loss)), None)
    if lost_at is None and signals.probes and signals.probes[-1].not_finite:
        lost_at = signals.probes[-1].step
    if lost_at is not None:
        before = next((s.loss for s in reversed(signals.steps) if math.isfinite(s.loss)), math.nan)
        evidence = f"The loss is NaN or infinite since step {lost_at} (before: {before:.3g}); the largest step changed "
        evidence += f"the {part} by {largest:.2g} of their length."
        cause = "training diverged" if largest > TOO_LARGE / 5 else "training diverged, or the loss divides by zero"
        return Finding(evidence, cause, _lower_rate(signals, max(largest, 1.0)), severity="error")
    if probe is None or largest < TOO_LARGE:
        return None
    evidence = f"Step {probe.step} changed the {part} by {largest:.2g} of their length; {GOOD} is usual at the start."
    cause = "the learning rate is too high: what the vectors knew is overwritten, and words are thrown about at random"
    return Finding(evidence, cause, _lower_rate(signals, largest))


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
    higher = "a higher learning rate" if rate is None else f"optimizer.lr={one_digit(rate * GOOD / max(ratio, 1e-9))}"
    evidence = f"A step changes the vectors by {ratio:.1g} of their length ({GOOD} is usual at the start), and in "
    evidence += f"{probes[-1].step} steps the loss went from {probes[0].position:.2f} to {probes[-1].position:.2f} of "
    evidence += "what equal scores would cost."
    return Finding(evidence, "the learning rate is too low", higher)


def no_gradient(signals: Signals) -> Finding | None:
    """Part of the model cannot learn: cut off from the loss, or frozen by mistake."""
    # Where no query learns from any negative, there is no gradient to pass on.
    probes = [p for p in signals.probes if p.active > 0 and not p.not_finite]
    parts = probes[0].without_gradient if len(probes) > 1 else {}
    shares = {part: min(p.without_gradient.get(part, 0.0) for p in probes) for part in parts}
    part, share = max(shares.items(), key=lambda pair: pair[1], default=("", 0.0))
    if share < WITHOUT:
        return _frozen(signals)
    evidence = f"{share:.0%} of the trainable numbers of the {part} had no gradient in {len(probes)} steps."
    cause = "they do not take part in the vectors, or something between them and the loss cuts the gradient off "
    cause += "(detach, no_grad, a conversion to NumPy)"
    remedy = "the tower without that, or requires_grad_(False) where it is meant"
    return Finding(evidence, cause, remedy, severity="error" if share > 1 - WITHOUT else "warning")


def _frozen(signals: Signals) -> Finding | None:
    words, frozen = signals.words, signals.probes[-1].frozen if signals.probes else {}
    if words is not None and words.frozen and not words.meaningful:
        evidence = "The word vectors are frozen, and those of words that stand near each other are no nearer than "
        evidence += f"others (cosine {words.together:.3f} and {words.apart:.3f})."
        cause = "random word vectors are kept as they are: they can learn no meaning"
        return Finding(evidence, cause, "embedding.freeze=false")
    for part, share in frozen.items():
        if share > 0.5 and not part.endswith("words"):
            evidence = f"{share:.0%} of the numbers of the {part} are not trained (requires_grad is false)."
            cause = "it was frozen, perhaps for another purpose"
            return Finding(evidence, cause, "requires_grad_(True), if that was not meant")
    return None


def hardest_negative_collapse(signals: Signals) -> Finding | None:
    """Learning from the hardest negative alone makes all vectors equal: the loss goes to the margin and stays."""
    last = signals.probes[-2:]
    if len(last) < 2 or last[-1].step < ENOUGH or not all(p.single and p.position > AT_TRIVIAL for p in last):
        return None
    probe = last[-1]
    evidence = f"Each query is pushed away from its nearest negative only. The loss is {probe.loss:.3f}, with equal "
    evidence += f"scores it would be {probe.trivial:.3f}; positives score {probe.positive:.3f}, nearest negatives "
    evidence += f"{probe.hardest:.3f}; two documents have a mean cosine of {probe.cosine:.3f}."
    cause = "the hardest negatives of an untrained model pull all vectors to one point"
    remedy = "loss.select=semi_hard" if signals.setting("loss.select") == "hardest" else "loss=in_batch"
    return Finding(evidence, cause, remedy, severity="error")


def false_negatives(signals: Signals) -> Finding | None:
    """Queries are pushed away from passages that answer them."""
    probes = signals.probes
    if len(probes) < 2:
        return None
    known = sum(p.known_negatives for p in probes) / len(probes)
    copies = sum(p.copies for p in probes) / len(probes)
    if known <= KNOWN and copies <= COPIES:
        return None
    masked = signals.setting("negatives.mask_known_positives") is not False
    evidence = f"{known:.0%} of the queries are pushed away from a passage that is known to be relevant to them, "
    evidence += f"{copies:.0%} from a near copy of their positive."
    if not masked:
        return Finding(evidence, "known answers are not masked", "negatives.mask_known_positives=true")
    remedy = "negatives.relative_margin=0.05 negatives.first_rank=10"
    return Finding(evidence, "the mined negatives contain unjudged answers", remedy)


def collapsed(signals: Signals) -> Finding | None:
    """All texts have nearly the same vector."""
    last = signals.probes[-2:]
    if len(last) < 2 or last[-1].step < ENOUGH or not all(p.cosine > ONE_DIRECTION for p in last):
        return None
    probe = last[-1]
    if signals.probes[0].cosine - probe.cosine > PARTED:
        return None
    words, cause, remedy = signals.words, "nothing pulls documents apart", "loss=in_batch negatives=in_batch"
    if words is not None and words.direction > SAME_WORDS:
        cause = f"the word vectors themselves point in one direction (mean cosine {words.direction:.2f})"
        as_they_are = signals.setting("embedding.normalize") is False
        remedy = "embedding.normalize=true" if as_they_are else "embedding=random"
    elif signals.component("loss") == "TripletLoss":
        cause = "the loss does not pull documents apart from each other"
    evidence = f"Two documents have a mean cosine of {probe.cosine:.3f}, their vectors an effective rank of "
    evidence += f"{probe.rank:.1f} (of {probe.queries} and more); positives score {probe.positive:.3f}, negatives "
    evidence += f"{probe.negative:.3f}."
    return Finding(evidence, cause, remedy, severity="error")


def stuck_at_chance(signals: Signals) -> Finding | None:
    """A cross-entropy at the logarithm of the number of documents: no better than guessing."""
    too_much = "too high: all negatives count nearly the same"
    nothing_learnt = "nothing that queries and passages have in common reaches the vectors"
    return _stuck(signals, "temperature", too_much, 0.05, (nothing_learnt, "embedding=glove"))


def stuck_at_margin(signals: Signals) -> Finding | None:
    """A triplet loss at its margin: positives and negatives score the same."""
    too_much = "more than scores can differ by: every triplet pulls with full force, for ever"
    nothing_learnt = "one random negative a query teaches little to a model that knows nothing"
    return _stuck(signals, "margin", too_much, 0.3, (nothing_learnt, "loss=in_batch negatives=in_batch"))


def _stuck(signals: Signals, key: str, too_much: str, usual: float, nothing_learnt: tuple[str, str]) -> Finding | None:
    """Blame ``loss.KEY`` where even a perfect model would pay nearly as much as equal scores do."""
    if not signals.probes:
        return None
    probe, newest = signals.probes[-1], signals.probes[-NEWEST:]
    # Equal scores cost a cross-entropy the logarithm of the number of documents, a triplet loss its margin.
    of_cross_entropy = math.log1p(probe.candidates)
    if (abs(probe.trivial - of_cross_entropy) <= 0.1 * of_cross_entropy) != (key == "temperature"):
        return None
    # Of other similarities nobody knows how far apart scores may come.
    if signals.similarity == "cosine" and probe.trivial and probe.ideal / probe.trivial > UNREACHABLE:
        evidence = f"The loss is {probe.loss:.3f}; with equal scores it would be {probe.trivial:.3f}, and "
        evidence += f"{probe.ideal:.3f} if every positive had cosine 1 and every negative 0."
        value = signals.setting(f"loss.{key}")
        cause = f"the {key}" if value is None else f"loss.{key}={value}"
        return Finding(evidence, f"{cause} is {too_much}", f"loss.{key}={usual}")
    if _still(newest):
        evidence = f"The loss is {probe.loss:.3f} and would be {probe.trivial:.3f} with equal scores, since step "
        evidence += f"{newest[0].step}: positives score {probe.positive:.3f}, negatives {probe.negative:.3f}, and "
        evidence += f"{probe.accuracy:.0%} of the queries are right (by chance {probe.chance:.0%})."
        return Finding(evidence, *nothing_learnt, severity="error")
    # Up and down, but never far from where it began.
    late = [p for p in signals.probes if p.step >= LONG][-NEWEST:]
    position = sum(p.position for p in late) / NEWEST
    if len(late) < NEWEST or not HARDLY < position < STILL[1]:
        return None
    evidence = f"After {probe.step} steps the loss is still {position:.0%} of that of equal scores "
    evidence += f"({probe.trivial:.3f}), and {probe.accuracy:.0%} of the queries are right (by chance "
    evidence += f"{probe.chance:.0%})."
    if signals.words is not None and signals.words.frozen:
        nothing_learnt = "the word vectors are frozen, and the rest cannot learn the task", "embedding.freeze=false"
    return Finding(evidence, *nothing_learnt)


def _still(newest: list[Probe]) -> bool:
    """Whether the loss does not move and hardly any query is right, although there was time."""
    if len(newest) < NEWEST or newest[-1].step < PATIENCE or not all(STILL[0] < p.position < STILL[1] for p in newest):
        return False
    return max(p.accuracy for p in newest[1:]) <= ABOVE_CHANCE * newest[-1].chance  # else it learns, if slowly


def easy_negatives(signals: Signals) -> Finding | None:
    """Negatives so far away that nothing is left to learn; in the first epoch only, for later it is memory."""
    first = [p for p in signals.probes if p.first_epoch and p.step >= EARLY]
    if len(first) < 2:
        return None
    active = sum(p.active for p in first[-2:]) / 2
    position = sum(p.position for p in first[-2:]) / 2
    if active >= IDLE and not position < IDLE / 2:
        return _means_nothing(signals, first)
    mined = signals.component("negatives") in ("BM25Negatives", "ANNNegatives", "MixedNegatives")
    evidence = f"{active:.0%} of the queries still learn something, in pairs never seen before: positives score "
    evidence += f"{first[-1].positive:.2f}, negatives {first[-1].negative:.2f}"
    evidence += "." if math.isnan(position) else f"; the loss is {position:.0%} of that of equal scores."
    cause = "the negatives have nothing to do with the queries"
    return Finding(evidence, cause, "loss=in_batch" if mined else "negatives=bm25")


def _means_nothing(signals: Signals, first: list[Probe]) -> Finding | None:
    """Nearly all triplets are right, and hardly any query finds its passage among all of them."""
    if not signals.checks or first[-1].candidates > FEW:
        return None
    value, bm25 = signals.checks[-1].value, signals.baseline.get("bm25", math.nan)
    right = sum(p.accuracy for p in first) / len(first)
    if not (right > RIGHT and value < FAR * bm25):
        return None
    evidence = f"In the first epoch {right:.0%} of the training queries had their positive above all of their "
    evidence += f"{first[-1].candidates:.0f} negatives, and {signals.monitor} against all passages is {value:.3f} "
    evidence += f"(BM25: {bm25:.3f})."
    cause = "to be nearer than one random passage in two is far from being nearer than all"
    return Finding(evidence, cause, "loss=in_batch negatives=in_batch")
