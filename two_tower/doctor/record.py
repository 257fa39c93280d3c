"""What was found, and where it is told: the console, ``doctor.json``, the loggers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from lightning.pytorch.loggers import Logger

from two_tower.console import box, say
from two_tower.doctor.figures import figures, sentences
from two_tower.doctor.finding import Finding
from two_tower.doctor.picture import similarities
from two_tower.doctor.signals import Signals
from two_tower.files import finite, write_json, write_text
from two_tower.logger import RunLogger
from two_tower.run import Run

__all__ = ["STYLES", "Record", "document", "report"]

STYLES = {"error": "bold red", "warning": "yellow", "info": "dim"}


class Record:
    """The findings of a run so far.

    Args:
        run: the run folder.

    Attributes:
        findings: what is wrong now, the likeliest cause first.
        passed: what was wrong once and is not any more, as ``info``.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.findings: list[Finding] = []
        self.passed: dict[str, Finding] = {}

    def update(self, found: Sequence[Finding], signals: Signals, loggers: Iterable[Logger]) -> None:
        """Take what is found now; tell what is new, and write the files if anything changed."""
        known = {finding.id: finding for finding in self.findings}
        self.findings = [replace(f, step=known[f.id].step) if f.id in known else f for f in found]
        new = [f for f in self.findings if f.id not in known and f.id not in self.passed]
        gone = known.keys() - {f.id for f in self.findings}
        for name in gone:
            old = known[name]
            self.passed[name] = replace(
                old, severity="info", evidence=f"{old.evidence} No longer so at step {signals.step}."
            )
        for finding in self.findings:
            self.passed.pop(finding.id, None)
        for finding in new:
            say(f"Doctor, step {finding.step}: {line(finding)}", style=STYLES[finding.severity])
            for logger in loggers:
                if isinstance(logger, RunLogger) and finding.severity != "info":
                    logger.alert(finding.id, line(finding), finding.severity)
        if new or gone:
            self.write(signals)

    @property
    def all(self) -> list[Finding]:
        """What is wrong now, then what was."""
        return [*self.findings, *self.passed.values()]

    def write(self, signals: Signals) -> None:
        """Write ``doctor.json``, and the signals that ``two-tower doctor`` repeats the diagnoses from."""
        write_json(self._run.doctor, document(self.all, signals))
        write_json(self._run.signals, finite(signals.to_plain()))

    def finish(self, signals: Signals, loggers: Iterable[Logger]) -> None:
        """Write everything, show the panel, tell the loggers the outcome."""
        self.write(signals)
        write_text(self._run.similarities, similarities(signals))
        report(self.all, signals)
        for logger in loggers:
            if isinstance(logger, RunLogger):
                outcome = {"healthy": healthy(self.findings), "found": ", ".join(f.id for f in self.findings)}
                logger.summarize({f"doctor/{key}": value for key, value in (outcome | figures(signals)).items()})

    def to_plain(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            "findings": [f.to_dict() for f in self.findings],
            "passed": {name: f.to_dict() for name, f in self.passed.items()},
        }

    def take(self, plain: dict[str, Any]) -> None:
        """What `to_plain` gave."""
        self.findings = [Finding(**f) for f in plain["findings"]]
        self.passed = {name: Finding(**f) for name, f in plain["passed"].items()}


def healthy(findings: Iterable[Finding]) -> bool:
    """Whether nothing is worse than worth knowing."""
    return all(f.severity == "info" for f in findings)


def line(finding: Finding) -> str:
    """A finding in one line."""
    return f"{finding.id}: {finding.evidence} Likely cause: {finding.cause}. Try: {finding.remedy}"


def document(findings: Sequence[Finding], signals: Signals) -> dict[str, Any]:
    """The contents of ``doctor.json``; a figure that does not exist is null."""
    return {
        "healthy": healthy(findings),
        "findings": [f.to_dict() for f in findings],
        "step": signals.step,
        "figures": finite(figures(signals)),
    }


def report(findings: Sequence[Finding], signals: Signals, unchecked: Sequence[str] = ()) -> None:
    """Show the panel: what is wrong and what to try, or that nothing is, with the figures."""
    lines: list[tuple[str, str]] = []
    for finding in findings:
        lines.append((f"{finding.severity}: {finding.id} (step {finding.step})", STYLES[finding.severity]))
        lines += [(f"  {finding.evidence}", ""), (f"  Likely cause: {finding.cause}.", "")]
        lines.append((f"  Try: {finding.remedy}", "bold" if finding.severity != "info" else ""))
    well = healthy(findings)
    if well:
        lines.append(("Healthy: nothing is wrong that the doctor knows of.", "green"))
    lines += [(text, "dim") for text in sentences(signals)]
    lines += [(f"Not checked: {text}", "yellow") for text in unchecked]
    box("Doctor", lines, "green" if well else "yellow")
