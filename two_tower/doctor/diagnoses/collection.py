"""What can be wrong with the collection, before any training."""

from __future__ import annotations

from two_tower.doctor.finding import Diagnosis, Finding
from two_tower.doctor.signals import DataSignals, Signals

__all__ = ["Leakage", "MisalignedPairs", "Truncated", "UnknownWords"]

SLIPPED = 0.05  # by so much more must a neighbour's passage share
SURE = 5  # standard errors
SWAPPED = 1.5  # times as long as their passages
LEAKED = 0.02
COPIED = 0.5
UNKNOWN = 0.2
CUT = 0.25
DOCUMENT_TOKENS, QUERY_TOKENS, VOCABULARY = 256, 64, 400_000  # the defaults of conf/tokenizer


class MisalignedPairs(Diagnosis):
    """Queries stand beside the wrong passages: rows slipped, columns are swapped, or the order was lost."""

    id = "misaligned_pairs"

    def examine(self, signals: Signals) -> Finding | None:
        """See `Diagnosis.examine`."""
        data = signals.data
        if data is None:
            return None
        return self._slipped(signals, data) or self._swapped(signals, data) or self._shuffled(signals, data)

    def _slipped(self, signals: Signals, data: DataSignals) -> Finding | None:
        shift, shared = max(data.shifts, key=lambda pair: pair[1], default=(0, 0.0))
        clear = shared > data.shared + SLIPPED and shared > data.shared_by_chance + SURE * data.shared_error
        if not clear:
            return None
        return self.found(
            signals,
            "error",
            f"A training query shares {data.shared:.0%} of its words with its own passage, {shared:.0%} with that of "
            f"the example {abs(shift)} row{'s'[: abs(shift) > 1]} {'below' if shift > 0 else 'above'} "
            f"(by chance {data.shared_by_chance:.0%}).",
            "queries and passages have slipped against each other, by a header or a lost line in one of the files",
            "two-tower data inspect, then the row where the files part ways",
        )

    def _swapped(self, signals: Signals, data: DataSignals) -> Finding | None:
        longer = data.query_length > SWAPPED * data.positive_length
        only_here = data.query_length > SWAPPED * data.validation_query_length
        if not longer or (not only_here and data.query_length < 2 * SWAPPED * data.positive_length):
            return None
        against = f"validation queries {data.validation_query_length:.0f}" if only_here else "the usual way is reverse"
        return self.found(
            signals,
            "error" if only_here else "warning",
            f"Training queries have {data.query_length:.0f} tokens and their passages {data.positive_length:.0f}; "
            f"{against}, passages of the corpus {data.document_length:.0f}.",
            "queries and passages are swapped",
            _swap(signals),
        )

    def _shuffled(self, signals: Signals, data: DataSignals) -> Finding | None:
        if data.shared - data.shared_by_chance > 2 * data.shared_error:
            return None
        evidence = (
            f"Training queries share {data.shared:.0%} of their words with their own passages and "
            f"{data.shared_by_chance:.0%} with others'"
        )
        if data.validation_shared > data.validation_shared_by_chance + 2 * SLIPPED:
            return self.found(
                signals,
                "error",
                f"{evidence}; validation queries {data.validation_shared:.0%} and "
                f"{data.validation_shared_by_chance:.0%}.",
                "the training pairs are shuffled, or joined by the wrong id",
                "two-tower data inspect, then the ids of the training pairs",
            )
        late = [p for p in signals.probes if p.step >= 20]
        if late and late[-1].accuracy > 3 * late[-1].chance:
            return None  # of another language, perhaps, but it learns
        return self.found(
            signals,
            "warning",
            f"{evidence}, and validation queries are no different.",
            "queries and passages do not belong together, unless they are of different languages",
            "two-tower data inspect, then the ids of the judgements",
        )


def _swap(signals: Signals) -> str:
    """The override that swaps the columns, where the data has columns."""
    query, passage = signals.setting("data.query_column"), signals.setting("data.positive_column")
    if query and passage:
        return f"data.query_column={passage} data.positive_column={query}"
    return "the two columns or files exchanged"


class Leakage(Diagnosis):
    """Validation queries were trained on, so that the figures are too good."""

    id = "leakage"

    def examine(self, signals: Signals) -> Finding | None:
        """See `Diagnosis.examine`."""
        data = signals.data
        if data is None:
            return None
        if data.leaked > LEAKED:
            same = signals.setting("data.train_split") == signals.setting("data.validation_split") is not None
            return self.found(
                signals,
                "warning",
                f"{data.leaked:.1%} of the validation queries are training queries, word by word; "
                f"{data.leaked_with_answer:.1%} with the same passage.",
                "the run trains on the split that it is judged by" if same else "the splits overlap",
                "data.train_split=train" if same else "splits without common queries (two-tower data inspect counts)",
            )
        if data.copied > COPIED:
            return self.found(
                signals,
                "warning",
                f"{data.copied:.0%} of the training passages contain their whole query word by word.",
                "the queries were cut out of their passages and left there: finding them again is no search",
                "queries taken out of their passages",
            )
        return None


class UnknownWords(Diagnosis):
    """Many words have no vector of their own."""

    id = "unknown_words"

    def examine(self, signals: Signals) -> Finding | None:
        """See `Diagnosis.examine`."""
        data = signals.data
        if data is None or max(data.unknown_in_queries, data.unknown_in_documents) <= UNKNOWN:
            return None
        return self.found(
            signals,
            "warning",
            f"{data.unknown_in_queries:.1%} of the tokens of validation queries and {data.unknown_in_documents:.1%} of "
            "the passages' are not in the vocabulary: they all look alike to the towers.",
            "the vocabulary is too small, or of another language or subject",
            self._remedy(signals),
        )

    def _remedy(self, signals: Signals) -> str:
        size, least = signals.setting("tokenizer.vocabulary_size"), signals.setting("tokenizer.min_frequency")
        if size is not None and size < VOCABULARY / 10:
            return f"tokenizer.vocabulary_size={VOCABULARY}"
        if least is not None and least > 1:
            return "tokenizer.min_frequency=1"
        return "tokenizer=subword tokenizer.path=FOLDER"


class Truncated(Diagnosis):
    """Much of the texts is cut off before a tower sees it."""

    id = "truncated"

    def examine(self, signals: Signals) -> Finding | None:
        """See `Diagnosis.examine`."""
        data = signals.data
        if data is None or max(data.cut_documents, data.cut_queries) <= CUT:
            return None
        key, usual = (
            ("document_tokens", DOCUMENT_TOKENS) if data.cut_documents > CUT else ("query_tokens", QUERY_TOKENS)
        )
        limit = signals.setting(f"tokenizer.{key}")
        return self.found(
            signals,
            "warning",
            f"{data.cut_documents:.0%} of the passages and {data.cut_queries:.0%} of the queries are cut off: they are "
            f"as long as tokenizer.{key}={limit} lets them be.",
            "the limit is below the length of the texts",
            f"tokenizer.{key}={usual if limit is None or limit < usual else 2 * limit}",
        )
