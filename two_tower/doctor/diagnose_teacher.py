"""What can be wrong with a teacher: another language than the collection's, too few texts, too strong a pull."""

from __future__ import annotations

from two_tower.doctor.base import Finding, Signals
from two_tower.trainer import FEWEST_STEPS

FRAGMENTS, UNREAD = 2.0, 0.05  # pieces of a word, and the share of these that the teacher does not know
FEW_TEXTS = 5_000  # passages with the teacher's vectors, of more in the collection (docs/experiments.md)
HELD = 0.02  # of the words' length: what they have learned by themselves


def foreign_teacher(signals: Signals) -> Finding | None:
    """The teacher was made for other languages than the collection's."""
    teaching = signals.teaching
    if teaching is None or not (teaching.pieces > FRAGMENTS or teaching.unread > UNREAD):
        return None
    evidence = f"The teacher cuts a word of the passages into {teaching.pieces:.1f} pieces on average"
    evidence += f", and does not know {teaching.unread:.0%} of them." if teaching.unread > UNREAD else "."
    cause = "it was made for other languages or subjects, in which a word is one piece or two"
    return Finding(evidence, cause, "teacher.model=FOLDER, of a model that reads this language")


def few_taught(signals: Signals) -> Finding | None:
    """The teacher has encoded a small part of the collection."""
    teaching = signals.teaching
    if teaching is None or teaching.texts >= min(FEW_TEXTS, teaching.passages):
        return None
    evidence = f"{teaching.texts:,} of {teaching.passages:,} passages have the teacher's vectors."
    return Finding(evidence, "the map of the words is made of few texts", f"teacher.sample={FEW_TEXTS}, or more")


def held_by_pull(signals: Signals) -> Finding | None:
    """Words may not differ from what the map makes of them."""
    words = signals.words
    if words is None or words.own is None or words.own >= HELD or signals.step < FEWEST_STEPS:
        return None
    pull = signals.setting("embedding.pull")
    evidence = f"What words have learned by themselves is {words.own:.1%} of their vectors' length."
    return Finding(evidence, f"embedding.pull={pull} holds them at what the map makes of them", "embedding.pull=1")
