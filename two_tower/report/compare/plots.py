"""Pictures of a leaderboard as SVG: intervals of the rows, differences query by query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

__all__ = ["COLOURS", "STYLE", "WIDTH", "Dot", "alone", "differences_plot", "intervals_plot", "short", "svg", "ticks"]

WIDTH = 860  # of a picture, in its own units; it scales with the page
LINE = 26  # height of a row
LABELS = 340  # width of the names in front of the rows
BARS = 400  # most bars of a picture; more queries are thinned out

COLOURS = """\
:root { color-scheme: light dark; --ink: #1d2430; --paper: #fff; --faint: #d9dee5; --a: #2166ac; --b: #c1543c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e2e6ec; --paper: #14181e; --faint: #363d48; --a: #7fb3e0; --b: #e58a72; }
}
"""
STYLE = """\
svg text { font-size: 12px; fill: var(--ink); }
svg .grid { stroke: var(--faint); }
svg .interval { stroke: var(--a); stroke-width: 2; }
svg .mean { fill: var(--a); }
svg .run { fill: none; stroke: var(--ink); }
svg .won { fill: var(--a); }
svg .lost { fill: var(--b); }
svg .curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .level { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 6 4; }
svg .c0 { stroke: #2f7fc6; }
svg .c1 { stroke: #d9622b; }
svg .c2 { stroke: #2c9c5a; }
svg .c3 { stroke: #a35bc4; }
svg .c4 { stroke: #b8912a; }
svg .c5 { stroke: #d1508c; }
svg .c6 { stroke: #1fa3a3; }
svg .c7 { stroke: #808a97; }
"""


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
    scale = ticks(min(ends), max(ends))
    bottom = LINE * len(dots) + 8

    def x(value: float) -> float:
        return LABELS + 20 + (WIDTH - LABELS - 50) * (value - scale[0]) / (scale[-1] - scale[0])

    parts = []
    for tick in scale:
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="0" y2="{bottom}"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    for i, dot in enumerate(dots):
        y, (low, high) = LINE * (i + 0.5) + 4, dot.interval
        parts.append(f'<text x="{LABELS}" y="{y + 4}" text-anchor="end">{escape(short(dot.name))}</text>')
        parts.append(f'<line class="interval" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y}" y2="{y}"/>')
        parts += [f'<circle class="run" cx="{x(value):.1f}" cy="{y}" r="3"/>' for value in dot.runs]
        title = f"<title>{escape(dot.name)}: {dot.mean:.4f} ({low:.4f} to {high:.4f})</title>"
        parts.append(f'<circle class="mean" cx="{x(dot.mean):.1f}" cy="{y}" r="5">{title}</circle>')
    return svg(parts, bottom + 24, f"{metric} of every row with its 95 % interval")


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
    return svg(parts, 2 * middle, f"{a} minus {b}, query by query")


def svg(parts: Sequence[str], height: float, label: str) -> str:
    """A picture, as an element of a page that has `COLOURS` and `STYLE`."""
    start = f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(label)}">'
    return "\n".join([start, *parts, "</svg>"])


def alone(picture: str) -> str:
    """A picture as a file of its own."""
    style = (
        f"<style>\n{COLOURS}svg {{ background: var(--paper); font-family: system-ui, sans-serif; }}\n{STYLE}</style>"
    )
    first, _, rest = picture.partition(">")
    return f'{first} xmlns="http://www.w3.org/2000/svg">\n{style}{rest}\n'


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from below ``low`` to above ``high``, four to eleven of them."""
    span = max(high - low, 1e-3)
    step = 10.0 ** np.floor(np.log10(span))
    step *= next(factor for factor in (1, 0.5, 0.2) if span / (step * factor) >= 2 or factor == 0.2)
    first, last = int(np.floor(low / step)), int(np.ceil(high / step))
    return [float(round(i * step, 10)) for i in range(first, max(last, first + 1) + 1)]


def short(name: str, most: int = 52) -> str:
    """A name cut to ``most`` characters."""
    return name if len(name) <= most else name[: most - 1] + "…"
