"""What can be wrong before the first step: data, word vectors, how a model is put together and served."""

from __future__ import annotations

from two_tower.doctor.base import DataSignals, Finding, Signals

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


def serving_mismatch(signals: Signals) -> Finding | None:
    """The index answers for another model than the run's."""
    index = signals.index
    if index is None:
        return None
    problems = list(index.problems)
    if index.difference > STORED:
        problems.append(
            f"{index.checked} passages encoded again differ from the stored vectors by up to {index.difference:.0%} of "
            "their length"
        )
    if not problems:
        return None
    return Finding(
        f"{index.path}: {'; '.join(problems)}.",
        "the run was trained on, or its files were changed, after the corpus was embedded",
        "python embed.py with this run again, into an empty folder",
        severity="error",
    )


def batch_dependent(signals: Signals) -> Finding | None:
    """A text's vector depends on the other texts of its batch."""
    if not signals.alone > DIFFERENT:
        return None
    return Finding(
        f"The vector of a text alone differs from its vector in a batch by {signals.alone:.0%} of its length.",
        "the tower reads padding, or state left over from another text; pool over each text's own tokens "
        "(those of two_tower.tower.base do)",
        "tower=gru or tower=average, which use no padding",
        severity="error",
    )


def misaligned_pairs(signals: Signals) -> Finding | None:
    """Queries stand beside the wrong passages: rows slipped, columns are swapped, or the order was lost."""
    data = signals.data
    return None if data is None else _slipped(signals, data) or _swapped(signals, data) or _shuffled(signals, data)


def _slipped(signals: Signals, data: DataSignals) -> Finding | None:
    shift, shared = max(data.shifts, key=lambda pair: pair[1], default=(0, 0.0))
    if shared <= data.shared + SLIPPED or shared <= data.shared_by_chance + SURE * data.shared_error:
        return None
    rows = "1 row" if abs(shift) == 1 else f"{abs(shift)} rows"
    return Finding(
        f"A training query shares {data.shared:.0%} of its words with its own passage, {shared:.0%} with that of "
        f"the example {rows} {'below' if shift > 0 else 'above'} (by chance {data.shared_by_chance:.0%}).",
        "queries and passages have slipped against each other, by a header or a lost line in one of the files",
        "two-tower data inspect, then the row from which the files no longer match",
        severity="error",
    )


def _swapped(signals: Signals, data: DataSignals) -> Finding | None:
    only_here = data.query_length > SWAPPED * data.validation_query_length
    factor = SWAPPED if only_here else 2 * SWAPPED
    if data.query_length <= factor * data.positive_length:
        return None
    against = f"validation queries {data.validation_query_length:.0f}" if only_here else "usually passages are longer"
    query, passage = signals.setting("data.query_column"), signals.setting("data.positive_column")
    columns = f"data.query_column={passage} data.positive_column={query}" if query and passage else None
    return Finding(
        f"Training queries have {data.query_length:.0f} tokens and their passages {data.positive_length:.0f}; "
        f"{against}, passages of the corpus {data.document_length:.0f}.",
        "queries and passages are swapped",
        columns or "the two columns or files exchanged",
        severity="error" if only_here else "warning",
    )


def _shuffled(signals: Signals, data: DataSignals) -> Finding | None:
    if data.shared - data.shared_by_chance > 2 * data.shared_error:
        return None
    evidence = (
        f"Training queries share {data.shared:.0%} of their words with their own passages and "
        f"{data.shared_by_chance:.0%} with others'"
    )
    if data.validation_shared > data.validation_shared_by_chance + 2 * SLIPPED:
        return Finding(
            f"{evidence}; validation queries {data.validation_shared:.0%} and {data.validation_shared_by_chance:.0%}.",
            "the training pairs are shuffled, or joined by the wrong id",
            "two-tower data inspect, then the ids of the training pairs",
            severity="error",
        )
    late = [p for p in signals.probes if p.step >= 20]
    if late and late[-1].accuracy > 3 * late[-1].chance:
        return None  # of another language, perhaps, but it learns
    return Finding(
        f"{evidence}, and validation queries are no different.",
        "queries and passages do not belong together, unless they are in different languages",
        "two-tower data inspect, then the ids of the judgements",
    )


def leakage(signals: Signals) -> Finding | None:
    """Validation queries were trained on, so that the figures are too good."""
    data = signals.data
    if data is None:
        return None
    if data.leaked > LEAKED:
        same = signals.setting("data.train_split") == signals.setting("data.validation_split") is not None
        return Finding(
            f"{data.leaked:.1%} of the validation queries are training queries, word by word; "
            f"{data.leaked_with_answer:.1%} with the same passage.",
            "the run trains on the split that it is judged by" if same else "the splits overlap",
            "data.train_split=train" if same else "splits without common queries (two-tower data inspect counts)",
        )
    if data.copied > COPIED:
        return Finding(
            f"{data.copied:.0%} of the training passages contain their whole query word by word.",
            "the queries were cut out of their passages and left there: finding them again is no search",
            "queries taken out of their passages",
        )
    return None


def embedding_mismatch(signals: Signals) -> Finding | None:
    """The pre-trained word vectors do not fit: other words, another order, another language."""
    words = signals.words
    if words is None or not words.pretrained:
        return None
    if words.coverage is not None and words.coverage < COVERED:
        return Finding(
            f"{words.coverage:.1%} of the corpus' tokens have a vector in the file.",
            "it is of another language or subject, or its words are written in another way",
            "embedding=random",
        )
    if words.meaningful:
        return None
    return Finding(
        f"Words that stand near each other have no nearer vectors than others (cosine {words.together:.3f} and "
        f"{words.apart:.3f}, standard error {words.error:.3f}).",
        "the list of words does not belong to the rows of the file: another version, another order, a lost line",
        "embedding=random",
    )


def unknown_words(signals: Signals) -> Finding | None:
    """Many words have no vector of their own."""
    data = signals.data
    if data is None or max(data.unknown_in_queries, data.unknown_in_documents) <= UNKNOWN:
        return None
    size, min_frequency = signals.setting("tokenizer.vocabulary_size"), signals.setting("tokenizer.min_frequency")
    if size is not None and size < VOCABULARY / 10:
        remedy = f"tokenizer.vocabulary_size={VOCABULARY}"
    elif min_frequency is not None and min_frequency > 1:
        remedy = "tokenizer.min_frequency=1"
    else:
        remedy = "tokenizer=subword tokenizer.path=FOLDER"
    return Finding(
        f"{data.unknown_in_queries:.1%} of the tokens of validation queries and {data.unknown_in_documents:.1%} of "
        "the passages' are not in the vocabulary: to the towers they all look alike.",
        "the vocabulary is too small, or of another language or subject",
        remedy,
    )


def truncated(signals: Signals) -> Finding | None:
    """Many texts are cut off before a tower sees them."""
    data = signals.data
    if data is None or max(data.cut_documents, data.cut_queries) <= CUT:
        return None
    passages = data.cut_documents > CUT
    key, default = ("document_tokens", DOCUMENT_TOKENS) if passages else ("query_tokens", QUERY_TOKENS)
    limit = signals.setting(f"tokenizer.{key}")
    return Finding(
        f"{data.cut_documents:.0%} of the passages and {data.cut_queries:.0%} of the queries are cut off: they are "
        f"as long as tokenizer.{key}={limit} allows.",
        "the limit is below the length of the texts",
        f"tokenizer.{key}={default if limit is None or limit < default else 2 * limit}",
    )
