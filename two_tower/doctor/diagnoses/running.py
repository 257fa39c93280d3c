"""What can be wrong with how a model is put together, fed and served."""

from __future__ import annotations

import math

from two_tower.doctor.finding import Diagnosis, Finding
from two_tower.doctor.signals import Signals

__all__ = ["BatchDependent", "DataBound", "EmbeddingMismatch", "ServingMismatch"]

DIFFERENT = 5e-3  # of a vector's length: far above rounding
COVERED = 0.5  # share of the tokens
STEPS = 20
MOST_WORKERS = 8
WAITING, LEAST = 0.3, 0.005  # share of a step, seconds
STORED = 0.02  # of a vector's length, above what half precision and one byte a number lose


class ServingMismatch(Diagnosis):
    """The index answers for another model than the run's."""

    id = "serving_mismatch"

    def examine(self, signals: Signals) -> Finding | None:
        """See `Diagnosis.examine`."""
        index = signals.index
        if index is None:
            return None
        wrong = [index.damage.rstrip(".")] if index.damage else []
        if not index.checkpoint:
            wrong.append("its vectors were made with another checkpoint than best.ckpt")
        if not index.tokenizer:
            wrong.append("with another tokenizer")
        if index.similarity != signals.similarity:
            wrong.append(f"for similarity={index.similarity}, and the run's is {signals.similarity}")
        if index.difference > STORED:
            wrong.append(
                f"{index.checked} passages encoded again differ from what it holds by up to {index.difference:.0%} of "
                "their length"
            )
        if not wrong:
            return None
        return self.found(
            signals,
            "error",
            f"{index.path}: {'; '.join(wrong)}.",
            "the run was trained on, or its files were changed, after the corpus was embedded",
            "python embed.py with this run again, into an empty folder",
        )


class BatchDependent(Diagnosis):
    """A text's vector depends on the other texts of its batch."""

    id = "batch_dependent"

    def examine(self, signals: Signals) -> Finding | None:
        """See `Diagnosis.examine`."""
        if not signals.alone > DIFFERENT:
            return None
        return self.found(
            signals,
            "error",
            f"The vector of a text by itself differs from the one that it gets in a batch by {signals.alone:.0%} of "
            "its length.",
            "the tower reads padding, or a state that is left over from another text; pool over each text's own tokens "
            "(two_tower.tower._pooling does)",
            "tower=gru or tower=average, which know no padding",
        )


class EmbeddingMismatch(Diagnosis):
    """The pre-trained word vectors do not fit: other words, another order, another language."""

    id = "embedding_mismatch"

    def examine(self, signals: Signals) -> Finding | None:
        """See `Diagnosis.examine`."""
        words = signals.words
        if words is None or not words.pretrained:
            return None
        if words.coverage is not None and words.coverage < COVERED:
            return self.found(
                signals,
                "warning",
                f"{words.coverage:.1%} of the corpus' tokens have a vector in the file.",
                "it is of another language or subject, or its words are written in another way",
                "embedding=random",
            )
        if words.meaningful:
            return None
        return self.found(
            signals,
            "warning",
            f"Words that stand side by side have no nearer vectors than others (cosine {words.together:.3f} and "
            f"{words.apart:.3f}, standard error {words.error:.3f}).",
            "the list of words does not belong to the rows of the file: another version, another order, a lost line",
            "embedding=random",
        )


class DataBound(Diagnosis):
    """Training waits for its batches."""

    id = "data_bound"

    def examine(self, signals: Signals) -> Finding | None:
        """See `Diagnosis.examine`."""
        clock = signals.clock
        if clock.steps < STEPS or clock.data < LEAST or clock.data < WAITING * clock.whole:
            return None
        # So many that their batches together are twice as fast as the steps; workers share the cores.
        workers = math.ceil(2 * clock.data / max(clock.whole - clock.data, 1e-3)) + (
            signals.setting("data.num_workers") or 0
        )
        return self.found(
            signals,
            "warning",
            f"A step waits {1000 * clock.data:.0f} ms for its batch and takes "
            f"{1000 * (clock.whole - clock.data):.0f} ms ({clock.data / clock.whole:.0%} of the time is lost).",
            "batches are made more slowly than they are used: a slow disk, or slow negatives",
            f"data.num_workers={min(MOST_WORKERS, max(2, workers))}",
        )
