"""The signals for people and programs: flat figures, and a few sentences."""

from __future__ import annotations

import math

from two_tower.doctor.probe import Probe
from two_tower.doctor.signals import Signals

__all__ = ["figures", "sentences"]


def figures(signals: Signals) -> dict[str, float]:
    """The newest signals as flat numbers; what is not known is left out or NaN."""
    found: dict[str, float] = {}
    if signals.probes:
        p = signals.probes[-1]
        found |= {
            "loss": p.loss, "loss_of_equal_scores": p.trivial, "loss_of_perfect_scores": p.ideal,
            "positive_similarity": p.positive, "negative_similarity": p.negative, "gap": p.positive - p.negative,
            "hardest_negative_similarity": p.hardest, "accuracy": p.accuracy, "active_queries": p.active,
            "known_negatives": p.known_negatives, "near_copies": p.copies, "alignment": p.alignment,
            "uniformity": p.uniformity, "effective_rank": p.rank, "mean_cosine": p.cosine, "norm": p.norm,
        }  # fmt: skip
        for name, parts in (("gradient", p.gradients), ("update", p.updates), ("without_gradient", p.without_gradient)):
            found |= {f"{name}/{part.replace(' ', '_')}": value for part, value in parts.items()}
    if signals.data is not None:
        data = signals.data
        found |= {
            "shared_words": data.shared, "shared_words_by_chance": data.shared_by_chance,
            "unknown_in_queries": data.unknown_in_queries, "unknown_in_documents": data.unknown_in_documents,
            "truncated_queries": data.cut_queries, "truncated_documents": data.cut_documents,
            "leaked_queries": data.leaked,
        }  # fmt: skip
    if signals.words is not None and signals.words.coverage is not None:
        found["embedding_coverage"] = signals.words.coverage
    found["alone_difference"] = signals.alone
    if signals.checks:
        last = signals.checks[-1]
        found |= {"validation": last.value, "never_updated_words": last.untouched}
        found |= {name: value for name, value in signals.baseline.items()}
    clock = signals.clock
    if clock.whole:
        parts = {"data": clock.data, "forward": clock.forward, "backward": clock.backward, "optimizer": clock.optimizer}
        found |= {f"time/{name}": value / clock.whole for name, value in parts.items()}
        found |= {"time/step_seconds": clock.whole, "time/validation": clock.validation}
    found["seconds"] = clock.doctor
    return found


def sentences(signals: Signals) -> list[str]:
    """The figures that matter, in words."""
    said = []
    if signals.probes:
        p = signals.probes[-1]
        said.append(
            f"Step {p.step}: loss {p.loss:.3f}{_in_relation(p)}; positives {p.positive:.2f}, negatives "
            f"{p.negative:.2f}; {p.accuracy:.0%} right, {p.active:.0%} of the queries learn."
        )
        largest = max(p.updates.values(), default=math.nan)
        said.append(
            f"Documents: effective rank {p.rank:.0f}, mean cosine {p.cosine:.2f}. A step changes the vectors by "
            f"{largest:.1g} of their length."
        )
    if signals.data is not None:
        data = signals.data
        said.append(
            f"Queries share {data.shared:.0%} of their words with their passages, {data.shared_by_chance:.0%} with "
            f"others'; {data.unknown_in_queries:.1%} of their words are unknown, {data.cut_documents:.1%} of the "
            f"passages are cut off; {data.leaked:.1%} of the validation queries are trained on."
        )
    clock = signals.clock
    if clock.whole:
        said.append(
            f"A step takes {1000 * clock.whole:.0f} ms: {clock.data / clock.whole:.0%} waiting for data, "
            f"{clock.forward / clock.whole:.0%} forward, {clock.backward / clock.whole:.0%} backward. The doctor took "
            f"{clock.doctor:.2f} s."
        )
    return said


def _in_relation(probe: Probe) -> str:
    """The loss beside that of equal scores, where there is such a thing."""
    return f" ({probe.position:.0%} of the {probe.trivial:.3f} of equal scores)" if probe.trivial else ""
