"""The two pictures of a leaderboard as SVG: intervals of the rows, differences query by query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

__all__ = ["Dot", "differences_plot", "intervals_plot"]

WIDTH = 860  # of a picture, in its own units; it scales with the page
LINE = 26  # height of a row
LABELS = 340  # width of the names in front of the rows
BARS = 400  # most bars of a picture; more queries are thinned out


@dataclass(frozen=True)
class Dot:
    """A line of the intervals: a system.

    Attributes:
        name: what it is.
        mean: the thick dot.
        interval: the whisker around it.
        runs: small dots, one for each run; empty for a single one.
    """

    name: str
    mean: float
    interval: tuple[float, float]
    runs: Sequence[float] = ()


def intervals_plot(dots: Sequence[Dot], metric: str) -> str:
    """A line for each system: its mean, its interval, its runs."""
    ends = [end for dot in dots for end in (*dot.interval, *dot.runs)]
    ticks = _ticks(min(ends), max(ends))
    bottom = LINE * len(dots) + 8

    def x(value: float) -> float:
        return LABELS + 20 + (WIDTH - LABELS - 50) * (value - ticks[0]) / (ticks[-1] - ticks[0])

    parts = []
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="0" y2="{bottom}"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    for i, dot in enumerate(dots):
        y, (low, high) = LINE * (i + 0.5) + 4, dot.interval
        parts.append(f'<text x="{LABELS}" y="{y + 4}" text-anchor="end">{escape(_short(dot.name))}</text>')
        parts.append(f'<line class="interval" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y}" y2="{y}"/>')
        parts += [f'<circle class="run" cx="{x(value):.1f}" cy="{y}" r="3"/>' for value in dot.runs]
        title = f"<title>{escape(dot.name)}: {dot.mean:.4f} ({low:.4f} to {high:.4f})</title>"
        parts.append(f'<circle class="mean" cx="{x(dot.mean):.1f}" cy="{y}" r="5">{title}</circle>')
    return _svg(parts, bottom + 24, f"{metric} of every row with its 95 % interval")


def differences_plot(differences: np.ndarray, a: str, b: str) -> str:
    """A bar for each query that the two answer differently well, the first's best on the left.

    Of very many queries every n-th is drawn; the shape stays.
    """
    falling = np.sort(differences[differences != 0])[::-1]
    drawn = falling[np.linspace(0, len(falling) - 1, min(len(falling), BARS)).round().astype(int)]
    step, largest = (WIDTH - 60) / max(len(drawn), 1), float(np.abs(falling).max(initial=0.0)) or 1.0
    middle, height = 80, 70
    parts = [f'<line class="grid" x1="50" x2="{WIDTH - 10}" y1="{middle}" y2="{middle}"/>']
    for value, y in ((largest, middle - height), (0.0, middle), (-largest, middle + height)):
        parts.append(f'<text x="44" y="{y + 4}" text-anchor="end">{value:+.2g}</text>')
    for i, difference in enumerate(drawn.tolist()):
        size = height * abs(difference) / largest
        top, kind = (middle - size, "won") if difference > 0 else (middle, "lost")
        box = f'x="{50 + i * step:.2f}" y="{top:.1f}" width="{max(step * 0.9, 0.5):.2f}" height="{size:.1f}"'
        parts.append(f'<rect class="{kind}" {box}/>')
    return _svg(parts, 2 * middle, f"{a} minus {b}, query by query")


def _svg(parts: Sequence[str], height: float, label: str) -> str:
    start = f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(label)}">'
    return "\n".join([start, *parts, "</svg>"])


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from below ``low`` to above ``high``, four to eleven of them."""
    span = max(high - low, 1e-3)
    step = 10.0 ** np.floor(np.log10(span))
    step *= next(factor for factor in (1, 0.5, 0.2) if span / (step * factor) >= 2 or factor == 0.2)
    first, last = int(np.floor(low / step)), int(np.ceil(high / step))
    return [float(round(i * step, 10)) for i in range(first, max(last, first + 1) + 1)]


def _short(name: str, most: int = 52) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
