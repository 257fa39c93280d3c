"""What was found, and where it is told: the console, ``doctor.json``, a picture, the loggers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger

from two_tower.console import box, say
from two_tower.doctor.base import Finding, Probe, Signals
from two_tower.files import finite, write_json, write_text
from two_tower.logger import run_loggers
from two_tower.plot import WIDTH, Picture, Scale
from two_tower.run import Run

STYLES = {"error": "bold red", "warning": "yellow", "info": "dim"}
ROW, HEIGHT = 46, 40  # from one histogram of the picture to the next, and how high one may be
MAX_ROWS = 12
LABEL = "Similarity of queries with positives (blue) and negatives (red)"


class Record:
    """The findings of a run so far."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.findings: list[Finding] = []  # what is wrong now, the likeliest cause first
        self.passed: dict[str, Finding] = {}  # what was wrong once and is not any more, as ``info``, by id

    def update(self, found: Sequence[Finding], signals: Signals, loggers: Iterable[Logger]) -> None:
        """Take what is found now; tell what is new, and write the files if anything changed."""
        known = {finding.id: finding for finding in self.findings}
        self.findings = [replace(f, step=known[f.id].step) if f.id in known else f for f in found]
        new = [f for f in self.findings if f.id not in known and f.id not in self.passed]
        gone = known.keys() - {f.id for f in self.findings}
        for name in gone:
            evidence = f"{known[name].evidence} No longer so at step {signals.step}."
            self.passed[name] = replace(known[name], severity="info", evidence=evidence)
        for finding in self.findings:
            self.passed.pop(finding.id, None)
        for f in new:
            text = f"{f.id}: {f.evidence} Likely cause: {f.cause}. Try: {f.remedy}"
            say(f"Doctor, step {f.step}: {text}", style=STYLES[f.severity])
            for logger in run_loggers(loggers) if f.severity != "info" else ():
                logger.alert(f.id, text, f.severity)
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
        """Write everything, tell the loggers the outcome."""
        self.write(signals)
        write_text(self._run.similarities, similarities(signals))
        outcome = {"healthy": healthy(self.findings), "found": ", ".join(f.id for f in self.findings)}
        for logger in run_loggers(loggers):
            logger.summarize({f"doctor/{key}": value for key, value in (outcome | figures(signals)).items()})

    def to_plain(self) -> dict[str, Any]:
        passed = {name: f.to_dict() for name, f in self.passed.items()}
        return {"findings": [f.to_dict() for f in self.findings], "passed": passed}

    def restore(self, plain: dict[str, Any]) -> None:
        self.findings = [Finding(**f) for f in plain["findings"]]
        self.passed = {name: Finding(**f) for name, f in plain["passed"].items()}


def healthy(findings: Iterable[Finding]) -> bool:
    """Whether there is no warning and no error."""
    return all(f.severity == "info" for f in findings)


def document(findings: Sequence[Finding], signals: Signals) -> dict[str, Any]:
    """The contents of ``doctor.json``; a figure that does not exist is null."""
    found, flat = [f.to_dict() for f in findings], finite(figures(signals))
    return {"healthy": healthy(findings), "findings": found, "step": signals.step, "figures": flat}


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
    lines += [(text, "dim") for text in _sentences(signals)]
    lines += [(f"Not checked: {text}", "yellow") for text in unchecked]
    box("Doctor", lines, "green" if well else "yellow")


def figures(signals: Signals) -> dict[str, float]:
    """The newest signals as flat numbers; what is not known is left out or NaN."""
    flat: dict[str, float] = {}
    if signals.probes:
        p = signals.probes[-1]
        flat |= {
            "loss": p.loss, "loss_of_equal_scores": p.trivial, "loss_of_perfect_scores": p.ideal,
            "positive_similarity": p.positive, "negative_similarity": p.negative, "gap": p.positive - p.negative,
            "hardest_negative_similarity": p.hardest, "accuracy": p.accuracy, "active_queries": p.active,
            "known_negatives": p.known_negatives, "near_copies": p.copies, "alignment": p.alignment,
            "uniformity": p.uniformity, "effective_rank": p.rank, "mean_cosine": p.cosine, "norm": p.norm,
        }  # fmt: skip
        for name, parts in (("gradient", p.gradients), ("update", p.updates), ("without_gradient", p.without_gradient)):
            flat |= {f"{name}/{part.replace(' ', '_')}": value for part, value in parts.items()}
    data, words, clock = signals.data, signals.words, signals.clock
    if data is not None:
        flat |= {
            "shared_words": data.shared, "shared_words_by_chance": data.shared_by_chance,
            "unknown_in_queries": data.unknown_in_queries, "unknown_in_documents": data.unknown_in_documents,
            "truncated_queries": data.cut_queries, "truncated_documents": data.cut_documents,
            "leaked_queries": data.leaked,
        }  # fmt: skip
    if words is not None and words.coverage is not None:
        flat["embedding_coverage"] = words.coverage
    flat["alone_difference"] = signals.alone
    if signals.checks:
        last = signals.checks[-1]
        flat |= {"validation": last.value, "never_updated_words": last.untouched, **signals.baseline}
    if clock.whole:
        for part in ("data", "forward", "backward", "optimizer"):
            flat[f"time/{part}"] = getattr(clock, part) / clock.whole
        flat |= {"time/step_seconds": clock.whole, "time/validation": clock.validation}
    return {**flat, "seconds": clock.doctor}


def _sentences(signals: Signals) -> list[str]:
    """The figures that matter, in words."""
    sentences, data, clock = [], signals.data, signals.clock
    for p in signals.probes[-1:]:
        if not math.isfinite(p.loss + p.positive + p.negative):
            sentences.append(f"Step {p.step}: the scores are no numbers any more.")
            continue
        relation = f" ({p.position:.0%} of the {p.trivial:.3f} of equal scores)" if p.trivial else ""
        compared = f", negatives {p.negative:.2f}; {p.accuracy:.0%} right, {p.active:.0%} of the queries learn"
        step = f"Step {p.step}: loss {p.loss:.3f}{relation}; positives {p.positive:.2f}"
        sentences.append(f"{step}{compared if p.candidates else ''}.")
        if math.isfinite(p.rank + p.cosine):
            sentences.append(f"Documents: effective rank {p.rank:.0f}, mean cosine {p.cosine:.2f}.")
        if p.updates:
            sentences.append(f"A step changes the vectors by {max(p.updates.values()):.1g} of their length.")
    if data is not None:
        sentences.append(
            f"Queries share {data.shared:.0%} of their words with their passages, {data.shared_by_chance:.0%} with "
            f"others'; {data.unknown_in_queries:.1%} of their words are unknown, {data.cut_documents:.1%} of the "
            f"passages are cut off; {data.leaked:.1%} of the validation queries are trained on."
        )
    if clock.whole:
        sentences.append(
            f"A step takes {1000 * clock.whole:.0f} ms: {clock.data / clock.whole:.0%} waiting for data, "
            f"{clock.forward / clock.whole:.0%} forward, {clock.backward / clock.whole:.0%} backward. The doctor took "
            f"{clock.doctor:.2f} s."
        )
    return sentences


def similarities(signals: Signals) -> str:
    """An SVG with a row for each of up to twelve steps: histograms of the scores of positives and negatives."""
    probes = [p for p in signals.probes if sum(p.positives)]
    places = np.unique(np.linspace(0, len(probes) - 1, min(MAX_ROWS, len(probes))).round().astype(int))
    shown = [probes[i] for i in places]
    bottom = 24 + ROW * len(shown)
    picture = Picture(LABEL, bottom + 24)
    if not shown:
        picture.text(20, 20, "No step was looked at.")
        return picture.document()
    picture.text(20, 14, LABEL, longest=99)
    x = Scale([limit for probe in shown for limit in probe.limits], 90, WIDTH - 20)
    picture.columns(x, 24, bottom)
    for row, probe in enumerate(shown, 1):
        base = 24 + ROW * row
        picture.text(80, base - 4, f"step {probe.step:,}", "end")
        tooltip = f"step {probe.step}: positives {probe.positive:.3f}, negatives {probe.negative:.3f}"
        for counts, kind in ((probe.negatives, "b"), (probe.positives, "a")):
            picture.path("polygon", kind, _outline(counts, probe, base, x), tooltip, fill_opacity=0.55)
    return picture.document()


def _outline(counts: Sequence[int], probe: Probe, base: float, x: Scale) -> list[tuple[float, float]]:
    """The corners of a histogram as high as a row allows."""
    low, high = probe.limits
    width, largest = (high - low) / len(counts), max(max(counts), 1)
    corners = [(x(low), base)]
    for i, count in enumerate(counts):
        y = base - HEIGHT * count / largest
        corners += [(x(low + i * width), y), (x(low + (i + 1) * width), y)]
    return [*corners, (x(high), base)]
