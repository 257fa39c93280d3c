"""What every diagnosis is, and what it finds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from two_tower.doctor.signals import Signals

__all__ = ["SEVERITIES", "Diagnosis", "Finding", "Severity"]

Severity = Literal["info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        id: of the diagnosis.
        severity: ``error``: this run cannot become good; ``warning``: it is worse than it could be, or its figures
            mean less than they seem to; ``info``: worth knowing.
        step: training steps made when it was found.
        evidence: what was measured, with numbers.
        cause: what most likely brings it about.
        remedy: a configuration override to try, or what else to do.
    """

    id: str
    severity: Severity
    step: int
    evidence: str
    cause: str
    remedy: str

    def to_dict(self) -> dict[str, Any]:
        """As ``doctor.json`` shows it."""
        return asdict(self)


class Diagnosis(ABC):
    """A rule over signals.

    Attributes:
        id: stable name.
        explained_by: other diagnoses of which this would only be a consequence: it is not made beside one of them.
    """

    id: ClassVar[str]
    explained_by: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def examine(self, signals: Signals) -> Finding | None:
        """The finding, or None where all is well or not enough is known."""

    def found(self, signals: Signals, severity: Severity, evidence: str, cause: str, remedy: str) -> Finding:
        """A finding of this diagnosis."""
        return Finding(self.id, severity, signals.step, evidence, cause, remedy)
