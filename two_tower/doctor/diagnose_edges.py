"""Where steps or figures mean nothing: no negatives, no change, NaN, too few steps or queries, copies, other data."""

from __future__ import annotations

import math

from two_tower.data.base import JUDGED_ENOUGH
from two_tower.doctor.base import Finding, Signals
from two_tower.trainer import FEWEST_STEPS

FEW_QUERIES = 20  # validation queries with which a figure means nothing
# Steps; the share of the first loss below which, and of queries above chance from which something is learnt.
SHORT, MOVED, ABOVE_CHANCE = 50, 0.95, 0.1
BY_HEART, CERTAIN = 0.05, 2  # loss on new passages, and its standard errors, from which it says something
COPIED, CROWD = 0.05, 0.01  # shares of the relevant passages of the validation queries, of all passages


def not_finite(signals: Signals) -> Finding | None:
    """NaN that no step is known to have made."""
    if signals.broken and all(math.isfinite(step.loss) for step in signals.steps):
        evidence = f"{signals.broken:.1%} of the numbers of the model's checkpoint are NaN or infinite."
        return Finding(evidence, "training diverged", "the run again with a tenth of optimizer.lr", severity="error")
    first = next(iter(signals.steps), None)
    if first is None or first.step > 1 or math.isfinite(first.loss):
        return None
    cause = "the word vectors, the tower or the loss give NaN: a file with NaN in it, or a division by zero"
    remedy = "embedding=random, then tower=average and loss=in_batch, to see which of them it is"
    return Finding("The loss is NaN or infinite before any step was taken.", cause, remedy, severity="error")


def data_changed(signals: Signals) -> Finding | None:
    """The run was trained on other data than lies there now."""
    if not signals.changed:
        return None
    cause = "the run is older than its data: its figures, and what it finds, belong to the data of then"
    return Finding(f"{signals.changed}.", cause, "train.py into another run_dir, then embed.py")


def unchanged(signals: Signals) -> Finding | None:
    """Steps were taken, and not one number is another."""
    probes = [p for p in signals.probes if p.rate > 0 and p.active > 0 and not p.not_finite]
    if not probes or any(change > 0 for p in probes for change in p.updates.values()):
        return None
    evidence = f"Step {probes[-1].step} and those before it changed no number of the towers."
    cause = "everything is frozen, or the optimizer has other parameters than the towers"
    frozen = signals.words is not None and signals.words.frozen
    remedy = "embedding.freeze=false" if frozen else "an optimizer of conf/optimizer, with optimizer.lr above 0"
    return Finding(evidence, cause, remedy, severity="error")


def no_negatives(signals: Signals) -> Finding | None:
    """No negative, or one alone where the loss compares with many."""
    if not signals.probes or signals.probes[-1].candidates > 1 or signals.teaching is not None:
        return None  # who learns from a teacher needs none
    probe, size = signals.probes[-1], signals.setting("data.batch_size")
    of_batch = signals.setting("negatives.in_batch_negatives") is not False
    remedy = "data.batch_size=32, or as much of that as there are examples" if size else "more pairs and passages"
    if probe.candidates == 0:
        evidence = f"The queries have no negative at all: the loss is {probe.loss:.3f} whatever the vectors are."
        cause = "a batch of one example, or of equal passages, has none" if of_batch else "there are too few passages"
        return Finding(evidence, cause, remedy, severity="error")
    if signals.component("negatives") != "InBatchNegatives" or signals.component("loss") == "TripletLoss":
        return None
    evidence = f"Each query is compared with {probe.candidates:.1f} passage besides its own."
    return Finding(evidence, f"batches of {probe.queries} examples leave no more", remedy)


def one_candidate(signals: Signals) -> Finding | None:
    """A cross-entropy so sharp that of many negatives the nearest alone counts."""
    temperature = signals.setting("loss.temperature")
    learning = [p for p in signals.probes if p.active > 0 and p.candidates > 1][-2:]
    if temperature is None or not learning or not all(p.single for p in learning):
        return None
    evidence = f"Of {learning[-1].candidates:.0f} negatives only the nearest counts: the others have no gradient."
    return Finding(evidence, f"loss.temperature={temperature} is too low", "loss.temperature=0.05")


def too_short(signals: Signals) -> Finding | None:
    """Training ended before anything was learnt."""
    if not signals.probes or not signals.total_steps or signals.step < signals.total_steps or signals.step >= SHORT:
        return None
    first, probe = signals.probes[0], signals.probes[-1]
    learnt = probe.position < MOVED * first.position or probe.accuracy > probe.chance + ABOVE_CHANCE
    if learnt or not probe.candidates or any(check.below_untrained < -1 for check in signals.checks):
        return None
    right = f"{probe.accuracy:.0%} of the training queries are right (by chance {probe.chance:.0%})"
    evidence = f"The run has made {signals.step} steps in all, and {right}."
    more = "trainer.max_epochs=null trainer.max_steps=-1, which make at least"
    return Finding(evidence, "these are too few steps to learn anything", f"{more} {FEWEST_STEPS} steps")


def few_validation_queries(signals: Signals) -> Finding | None:
    """So few queries that a figure is chance."""
    data = signals.data
    if data is None or not 0 < data.validation_queries < JUDGED_ENOUGH:
        return None
    count = data.validation_queries
    named = "is 1 validation query: it" if count == 1 else f"are {count} validation queries: each"
    evidence = f"There {named} moves {signals.monitor} by up to {1 / count:.2f}."
    drawn = "more pairs; runs with data.dev_seed=1 and 2 show how much of a figure is chance"
    remedy = "more judged queries in the validation split" if signals.setting("data.dev_seed") is None else drawn
    few = count < FEW_QUERIES
    cause = "a figure of so few is chance" if few else "differences of some hundredths are chance"
    return Finding(evidence, cause, remedy, severity="warning" if few else "info")


def memorised(signals: Signals) -> Finding | None:
    """The towers know the passages of training by heart, and find new ones worse."""
    unseen = signals.unseen
    if unseen is None or unseen.memorised < max(BY_HEART, CERTAIN * unseen.error):
        return None
    evidence = f"{signals.monitor} is {unseen.seen:.3f} for queries whose passages were learned from, and "
    evidence += f"{unseen.unseen:.3f} for those whose passages were kept out"
    if not math.isnan(unseen.bm25_seen):
        evidence += f" (BM25: {unseen.bm25_seen:.3f} and {unseen.bm25_unseen:.3f})"
    pull = signals.setting("embedding.pull")
    if pull:
        remedy = f"embedding.pull={3 * pull:g}"
    elif signals.component("embedding") == "RandomEmbedding":
        remedy = "embedding=transformer or glove with embedding.pull=1: words then share what they learn"
    else:
        remedy = "embedding.pull=1"
    if not signals.setting("tower.lexical_dims"):
        remedy += "; tower.lexical_dims=256 finds the exact words of new passages"
    return Finding(evidence + ".", "the word vectors know the passages of training by heart", remedy)


def copies(signals: Signals) -> Finding | None:
    """The collection holds texts several times, so that figures depend on which of them is judged."""
    data = signals.data
    if data is None or (data.unjudged_copies <= COPIED and data.crowd <= CROWD):
        return None
    if data.unjudged_copies > COPIED:
        evidence = f"{data.unjudged_copies:.0%} of the relevant validation passages have a copy that is not judged."
        cause = "to find the copy counts as wrong, and the ids decide which of the two comes first"
    else:
        evidence = f"{data.crowd:.0%} of the passages are one and the same text."
        cause = "a query that is near it finds nothing else, and the ids decide which of them"
    return Finding(evidence, cause, "two-tower data inspect, which names them, then one of each text")
