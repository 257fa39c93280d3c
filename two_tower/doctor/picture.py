"""The picture of how positives and negatives part: histograms of their similarities over time, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from two_tower.doctor.probe import Probe
from two_tower.doctor.signals import Signals
from two_tower.plot import WIDTH, Picture, Scale

ROW, HEIGHT = 46, 40  # from one histogram to the next, and how high one may be
MOST = 12  # histograms of a picture
LABEL = "Similarity of queries with positives (blue) and negatives (red)"


def similarities(signals: Signals) -> str:
    """A line for each of up to twelve steps: positives (blue) and negatives (red) by their scores."""
    probes = [p for p in signals.probes if sum(p.positives)]
    places = np.unique(np.linspace(0, len(probes) - 1, min(MOST, len(probes))).round().astype(int))
    shown = [probes[i] for i in places]
    bottom = 24 + ROW * len(shown)
    picture = Picture(LABEL, bottom + 24)
    if not shown:
        picture.text(20, 20, "No step was looked at.")
        return picture.document()
    picture.text(20, 14, LABEL, longest=99)
    x = Scale([limit for probe in shown for limit in probe.limits], 90, WIDTH - 20)
    picture.columns(x, 24, bottom)
    for row, probe in enumerate(shown):
        base = 24 + ROW * (row + 1)
        picture.text(80, base - 4, f"step {probe.step:,}", "end")
        tooltip = f"step {probe.step}: positives {probe.positive:.3f}, negatives {probe.negative:.3f}"
        for counts, kind in ((probe.negatives, "b"), (probe.positives, "a")):
            picture.path("polygon", kind, _outline(counts, probe, base, x), tooltip, fill_opacity=0.55)
    return picture.document()


def _outline(counts: Sequence[int], probe: Probe, base: float, x: Scale) -> list[tuple[float, float]]:
    """The corners of a histogram as high as a line allows."""
    low, high = probe.limits
    width, largest = (high - low) / len(counts), max(max(counts), 1)
    corners = [(x(low), base)]
    for i, count in enumerate(counts):
        y = base - HEIGHT * count / largest
        corners += [(x(low + i * width), y), (x(low + (i + 1) * width), y)]
    return [*corners, (x(high), base)]
