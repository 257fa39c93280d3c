"""All diagnoses, in the order in which they are told: causes before what they bring about."""

from __future__ import annotations

from two_tower.doctor.diagnoses.collection import Leakage, MisalignedPairs, Truncated, UnknownWords
from two_tower.doctor.diagnoses.learning import LearningRateTooHigh, LearningRateTooLow, NoGradient, Overfitting
from two_tower.doctor.diagnoses.pushing import EasyNegatives, FalseNegatives, HardestNegativeCollapse
from two_tower.doctor.diagnoses.running import BatchDependent, DataBound, EmbeddingMismatch, ServingMismatch
from two_tower.doctor.diagnoses.stuck import Collapsed, StuckAtChance, StuckAtMargin
from two_tower.doctor.finding import Diagnosis, Finding
from two_tower.doctor.signals import Signals

__all__ = ["DIAGNOSES", "diagnose"]

DIAGNOSES: tuple[Diagnosis, ...] = (
    ServingMismatch(),
    BatchDependent(),
    MisalignedPairs(),
    Leakage(),
    EmbeddingMismatch(),
    UnknownWords(),
    Truncated(),
    LearningRateTooHigh(),
    NoGradient(),
    LearningRateTooLow(),
    HardestNegativeCollapse(),
    FalseNegatives(),
    Collapsed(),
    StuckAtChance(),
    StuckAtMargin(),
    EasyNegatives(),
    Overfitting(),
    DataBound(),
)


def diagnose(signals: Signals) -> list[Finding]:
    """What is wrong by these signals, the likeliest cause first."""
    findings: list[Finding] = []
    for diagnosis in DIAGNOSES:
        if any(found.id in diagnosis.explained_by for found in findings):
            continue
        finding = diagnosis.examine(signals)
        if finding is not None:
            findings.append(finding)
    return findings
