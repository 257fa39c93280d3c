"""The picture of how positives and negatives part: histograms of their similarities over time, as SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from two_tower.doctor.probe import Probe
from two_tower.doctor.signals import Signals
from two_tower.report.compare.plots import WIDTH, alone, svg, ticks

__all__ = ["similarities"]

LEFT, RIGHT = 90, 20
ROW, HEIGHT = 46, 40  # from one histogram to the next, and how high one may be
MOST = 12  # histograms of a picture
LABEL = "Similarity of queries with positives (blue) and negatives (red)"


def similarities(signals: Signals) -> str:
    """A line for each of up to twelve steps: positives (blue) and negatives (red) by their scores."""
    probes = [p for p in signals.probes if sum(p.positives)]
    places = np.unique(np.linspace(0, len(probes) - 1, min(MOST, len(probes))).round().astype(int))
    shown = [probes[i] for i in places]
    if not shown:
        return alone(svg(['<text x="20" y="20">No step was looked at.</text>'], 40, LABEL))
    scale = ticks(min(p.limits[0] for p in shown), max(p.limits[1] for p in shown))
    bottom = 24 + ROW * len(shown)

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - scale[0]) / (scale[-1] - scale[0])

    parts = ['<text x="20" y="14">' + LABEL + "</text>"]
    for tick in scale:
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="24" y2="{bottom}"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    for row, probe in enumerate(shown):
        base = 24 + ROW * (row + 1)
        parts.append(f'<text x="{LEFT - 10}" y="{base - 4}" text-anchor="end">step {probe.step:,}</text>')
        for counts, kind in ((probe.negatives, "lost"), (probe.positives, "won")):
            title = f"<title>step {probe.step}: positives {probe.positive:.3f}, negatives {probe.negative:.3f}</title>"
            points = _outline(counts, probe, base, x)
            parts.append(f'<polygon class="{kind}" fill-opacity="0.55" points="{points}">{title}</polygon>')
    return alone(svg(parts, bottom + 24, LABEL))


def _outline(counts: Sequence[int], probe: Probe, base: float, x: Callable[[float], float]) -> str:
    """The corners of a histogram as high as a line allows."""
    low, high = probe.limits
    width, largest = (high - low) / len(counts), max(max(counts), 1)
    corners = [(x(low), float(base))]
    for i, count in enumerate(counts):
        y = base - HEIGHT * count / largest
        corners += [(x(low + i * width), y), (x(low + (i + 1) * width), y)]
    corners.append((x(high), base))
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
