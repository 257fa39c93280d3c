"""All diagnoses, and those of what can be wrong around the steps: data, start vectors, serving, the result."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from two_tower.doctor import diagnose_edges as edges
from two_tower.doctor import diagnose_teacher as teacher
from two_tower.doctor import diagnose_training as training
from two_tower.doctor.base import DataSignals, Finding, Signals

FEW_PAIRS = 20  # of which the shares of words are chance
SLIPPED = 0.05  # how much more of the words a neighbour's passage must share
SURE = 5  # standard errors
SWAPPED = 1.5  # how much longer queries must be than their passages
LEAKED, COPIED = 0.02, 0.5  # shares of the queries
UNKNOWN = 0.2  # share of the tokens
CUT = 0.25  # share of the texts
DOCUMENT_TOKENS, QUERY_TOKENS, VOCABULARY = 256, 64, 400_000  # the defaults of conf/tokenizer
COVERED = 0.5  # share of the tokens
DIFFERENT = 5e-3  # of a vector's length: far above rounding
STORED = 0.02  # of a vector's length: more than half precision or one byte a number lose
WORSE = 3.0  # standard errors between two checks
WAITING, WAITING_SECONDS = 0.3, 0.005  # share of a step, seconds
MAX_WORKERS = 8


def serving_mismatch(signals: Signals) -> Finding | None:
    """The index answers for another model than the run's."""
    index = signals.index
    if index is None or not (index.problems or index.difference > STORED):
        return None
    problems = list(index.problems)
    if index.difference > STORED:
        off = f"differ from the stored vectors by up to {index.difference:.0%} of their length"
        problems.append(f"{index.checked} passages encoded again {off}")
    evidence = f"{index.path}: {'; '.join(problems)}."
    cause = "the run was trained on, or its files were changed, after the corpus was embedded"
    return Finding(evidence, cause, "python embed.py with this run again, into an empty folder", severity="error")


def batch_dependent(signals: Signals) -> Finding | None:
    """A text's vector depends on the other texts of its batch."""
    if not signals.alone > DIFFERENT:
        return None
    evidence = f"The vector of a text alone differs from its vector in a batch by {signals.alone:.0%} of its length."
    cause = "the tower reads padding, or state left over from another text; pool over each text's own tokens "
    cause += "(those of two_tower.tower.base do)"
    return Finding(evidence, cause, "tower=gru or tower=average, which use no padding", severity="error")


def misaligned_pairs(signals: Signals) -> Finding | None:
    """Queries stand beside the wrong passages: rows slipped, columns are swapped, or the order was lost."""
    data = signals.data
    if data is None or data.pairs < FEW_PAIRS:
        return None
    return _slipped(signals, data) or _swapped(signals, data) or _shuffled(signals, data)


def _slipped(signals: Signals, data: DataSignals) -> Finding | None:
    shift, shared = max(data.shifts, key=lambda pair: pair[1], default=(0, 0.0))
    if shared <= data.shared + SLIPPED or shared <= data.shared_by_chance + SURE * data.shared_error:
        return None
    rows = "1 row" if abs(shift) == 1 else f"{abs(shift)} rows"
    evidence = f"A training query shares {data.shared:.0%} of its words with its own passage, {shared:.0%} with that "
    evidence += f"of the example {rows} {'below' if shift > 0 else 'above'} (by chance {data.shared_by_chance:.0%})."
    cause = "queries and passages have slipped against each other, by a header or a lost line in one of the files"
    remedy = "two-tower data inspect, then the row from which the files no longer match"
    return Finding(evidence, cause, remedy, severity="error")


def _swapped(signals: Signals, data: DataSignals) -> Finding | None:
    only_here = data.query_length > SWAPPED * data.validation_query_length
    factor = SWAPPED if only_here else 2 * SWAPPED
    if data.query_length <= factor * data.positive_length:
        return None
    against = f"validation queries {data.validation_query_length:.0f}" if only_here else "usually passages are longer"
    query, passage = signals.setting("data.query_column"), signals.setting("data.positive_column")
    columns = f"data.query_column={passage} data.positive_column={query}" if query and passage else None
    evidence = f"Training queries have {data.query_length:.0f} tokens and their passages {data.positive_length:.0f}; "
    evidence += f"{against}, passages of the corpus {data.document_length:.0f}."
    remedy = columns or "the two columns or files exchanged"
    return Finding(evidence, "queries and passages are swapped", remedy, severity="error" if only_here else "warning")


def _shuffled(signals: Signals, data: DataSignals) -> Finding | None:
    if data.shared - data.shared_by_chance > 2 * data.shared_error:
        return None
    evidence = f"Training queries share {data.shared:.0%} of their words with their own passages and "
    evidence += f"{data.shared_by_chance:.0%} with others'"
    if data.validation_shared > data.validation_shared_by_chance + 2 * SLIPPED:
        evidence += f"; validation queries {data.validation_shared:.0%} and {data.validation_shared_by_chance:.0%}."
        cause = "the training pairs are shuffled, or joined by the wrong id"
        return Finding(evidence, cause, "two-tower data inspect, then the ids of the training pairs", severity="error")
    late = [p for p in signals.probes if p.step >= 20]
    if late and late[-1].accuracy > 3 * late[-1].chance:
        return None  # of another language, perhaps, but it learns
    evidence += ", and validation queries are no different."
    cause = "queries and passages do not belong together, unless they are in different languages"
    return Finding(evidence, cause, "two-tower data inspect, then the ids of the judgements")


def leakage(signals: Signals) -> Finding | None:
    """Validation queries were trained on, so that the figures are too good."""
    data = signals.data
    if data is None:
        return None
    if data.leaked > LEAKED:
        same = signals.setting("data.train_split") == signals.setting("data.validation_split") is not None
        evidence = f"{data.leaked:.1%} of the validation queries are training queries, letter by letter; "
        evidence += f"{data.leaked_with_answer:.1%} with the same passage."
        cause = "the run trains on the split that it is judged by" if same else "the splits overlap"
        remedy = "data.train_split=train" if same else "splits without common queries (two-tower data inspect counts)"
        return Finding(evidence, cause, remedy)
    if data.copied > COPIED:
        evidence = f"{data.copied:.0%} of the training passages contain their whole query word by word."
        cause = "the queries were cut out of their passages and left there: finding them again is no search"
        return Finding(evidence, cause, "queries taken out of their passages")
    return None


def embedding_mismatch(signals: Signals) -> Finding | None:
    """The pre-trained word vectors do not fit: other words, another order, another language."""
    words = signals.words
    if words is None or not words.pretrained:
        return None
    if words.coverage is not None and words.coverage < COVERED:
        evidence = f"{words.coverage:.1%} of the corpus' tokens have a vector in the file."
        cause = "it is of another language or subject, or its words are written in another way"
        return Finding(evidence, cause, "embedding=random")
    if words.meaningful:
        return None
    evidence = f"Words that stand near each other have no nearer vectors than others (cosine {words.together:.3f} and "
    evidence += f"{words.apart:.3f}, standard error {words.error:.3f})."
    cause = "the list of words does not belong to the rows of the file: another version, another order, a lost line"
    return Finding(evidence, cause, "embedding=random")


def unknown_words(signals: Signals) -> Finding | None:
    """Many words have no vector of their own."""
    data = signals.data
    if data is None or max(data.unknown_in_queries, data.unknown_in_documents) <= UNKNOWN:
        return None
    size, min_frequency = signals.setting("tokenizer.vocabulary_size"), signals.setting("tokenizer.min_frequency")
    any_word = min_frequency == 1 or (
        min_frequency is None and signals.component("embedding") == "TransformerEmbedding"
    )
    if size is not None and size < VOCABULARY / 10:
        remedy = f"tokenizer.vocabulary_size={VOCABULARY}"
    elif size is not None and not any_word:
        remedy = "tokenizer.min_frequency=1"
    else:
        remedy = "tokenizer=subword tokenizer.path=FOLDER"
    evidence = f"{data.unknown_in_queries:.1%} of the tokens of validation queries and {data.unknown_in_documents:.1%} "
    evidence += "of the passages' are not in the vocabulary: to the towers they all look alike."
    return Finding(evidence, "the vocabulary is too small, or of another language or subject", remedy)


def truncated(signals: Signals) -> Finding | None:
    """Many texts are cut off before a tower sees them."""
    data = signals.data
    if data is None or max(data.cut_documents, data.cut_queries) <= CUT:
        return None
    passages = data.cut_documents > CUT
    key, default = ("document_tokens", DOCUMENT_TOKENS) if passages else ("query_tokens", QUERY_TOKENS)
    limit = signals.setting(f"tokenizer.{key}")
    evidence = f"{data.cut_documents:.0%} of the passages and {data.cut_queries:.0%} of the queries are cut off: they "
    evidence += f"are as long as tokenizer.{key}={limit} allows."
    remedy = f"tokenizer.{key}={default if limit is None or limit < default else 2 * limit}"
    return Finding(evidence, "the limit is below the length of the texts", remedy)


def overfitting(signals: Signals) -> Finding | None:
    """Training gets better and search worse."""
    if not signals.checks:
        return None
    last, best = signals.checks[-1], max(signals.checks, key=lambda check: check.value)
    at_start = signals.probes[0].accuracy if signals.probes else math.nan
    known = math.isfinite(at_start + last.accuracy)
    trained = f"; training queries right: {at_start:.0%} at the start, {last.accuracy:.0%} now" if known else ""
    rate = signals.setting("optimizer.lr")
    gentler = "callbacks=early_stopping" if rate is None else f"optimizer.lr={training.one_digit(rate / 10)}"
    # What still rises may get there.
    settled = best is not last or signals.step >= (signals.total_steps or math.inf)
    if last.below_untrained > WORSE and settled and not last.accuracy < at_start:
        untrained = signals.baseline.get("untrained", math.nan)
        evidence = f"{signals.monitor} is {last.value:.3f} after {last.name}, below the untrained towers' "
        evidence += f"{untrained:.3f} by {last.below_untrained:.1f} standard errors{trained}."
        return Finding(evidence, "the towers learn the training pairs by heart", gentler)
    if best is last or not last.below_best > WORSE or last.accuracy < best.accuracy:
        return None
    # The best check is kept: if that is a good one, nothing is lost but time.
    good = best.below_untrained < -WORSE or math.isnan(best.below_untrained)
    evidence = f"{signals.monitor} fell from {best.value:.3f} ({best.name}) to {last.value:.3f} ({last.name}), by "
    evidence += f"{last.below_best:.1f} standard errors{trained}."
    cause = "the towers learn the training pairs by heart; best.ckpt holds the better check"
    remedy = "callbacks=early_stopping" if len(signals.checks) > 2 else gentler
    return Finding(evidence, cause, remedy, severity="info" if good else "warning")


def data_bound(signals: Signals) -> Finding | None:
    """Training waits for its batches."""
    clock = signals.clock
    if clock.steps < training.ENOUGH or clock.data < WAITING_SECONDS or clock.data < WAITING * clock.whole:
        return None
    working = clock.whole - clock.data
    # As many as make batches twice as fast as the steps use them; workers share the cores.
    workers = math.ceil(2 * clock.data / max(working, 1e-3)) + (signals.setting("data.num_workers") or 0)
    evidence = f"A step waits {1000 * clock.data:.0f} ms for its batch and takes {1000 * working:.0f} ms "
    evidence += f"({clock.data / clock.whole:.0%} of the time is lost)."
    cause = "batches are made more slowly than they are used: a slow disk, or slow negatives"
    return Finding(evidence, cause, f"data.num_workers={min(MAX_WORKERS, max(2, workers))}")


#: All diagnoses, in the order in which they are told: causes before consequences. Their names are the findings' ids.
DIAGNOSES: tuple[Callable[[Signals], Finding | None], ...] = (
    edges.not_finite, edges.data_changed, serving_mismatch, batch_dependent, misaligned_pairs, leakage, edges.copies,
    embedding_mismatch, teacher.foreign_teacher, teacher.few_taught, unknown_words, truncated, edges.no_negatives,
    training.learning_rate_too_high, training.no_gradient, edges.unchanged, training.learning_rate_too_low,
    edges.one_candidate, training.hardest_negative_collapse, training.false_negatives, training.collapsed,
    training.stuck_at_chance, training.stuck_at_margin, training.easy_negatives, overfitting, edges.memorised,
    teacher.held_by_pull, edges.too_short, edges.few_validation_queries, data_bound,
)  # fmt: skip

_CAUSES = {
    "not_finite", "no_negatives", "unchanged", "batch_dependent", "misaligned_pairs", "no_gradient",
    "learning_rate_too_high", "learning_rate_too_low", "hardest_negative_collapse", "one_candidate",
}  # fmt: skip
#: Id → the findings beside which it would only be their consequence, and is not told.
EXPLAINED_BY = {
    "learning_rate_too_high": {"not_finite"},
    "no_gradient": {"learning_rate_too_high", "no_negatives", "not_finite"},
    "unchanged": {"no_gradient", "no_negatives"},
    "learning_rate_too_low": {"no_gradient", "learning_rate_too_high", "unchanged", "no_negatives", "not_finite"},
    "hardest_negative_collapse": {"learning_rate_too_high", "no_gradient", "batch_dependent", "one_candidate"},
    "collapsed": _CAUSES,
    "stuck_at_chance": _CAUSES | {"collapsed"},
    "stuck_at_margin": _CAUSES | {"collapsed"},
    "easy_negatives": {"leakage", "no_gradient", "learning_rate_too_high", "no_negatives", "not_finite"},
    "one_candidate": {"learning_rate_too_high", "no_gradient", "no_negatives", "unchanged", "not_finite"},
    "too_short": _CAUSES | {"collapsed", "stuck_at_chance", "stuck_at_margin", "easy_negatives"},
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
        if findings.keys().isdisjoint(EXPLAINED_BY.get(name, ())) and (finding := diagnosis(signals)):
            findings[name] = replace(finding, id=name, step=signals.step)
    return list(findings.values())
