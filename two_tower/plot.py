"""Small SVG pictures: they need no other file, scale with the page and follow its light or dark colours."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

Point = tuple[float, float]

WIDTH = 860  # of a picture, in its own units
# Colours of curves on light and dark paper alike.
SERIES = ("#2f7fc6", "#d9622b", "#2c9c5a", "#a35bc4", "#b8912a", "#d1508c", "#1fa3a3", "#808a97")

COLOURS = """\
:root { color-scheme: light dark; --ink: #1d2430; --paper: #fff; --faint: #d9dee5; --a: #2166ac; --b: #c1543c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e2e6ec; --paper: #14181e; --faint: #363d48; --a: #7fb3e0; --b: #e58a72; }
}
"""
# The classes of elements: a and b are the two colours of the page, c0 to c7 those of curves.
STYLE = """\
svg text { font-size: 12px; fill: var(--ink); }
svg .grid { stroke: var(--faint); }
svg .interval { stroke: var(--a); stroke-width: 2; }
svg .a { fill: var(--a); }
svg .b { fill: var(--b); }
svg .hollow { fill: none; stroke: var(--ink); }
svg .curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .level { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 6 4; }
""" + "".join(f"svg .c{number} {{ stroke: {colour}; }}\n" for number, colour in enumerate(SERIES))


class Scale:
    """Maps values to positions: ``start`` and ``end`` are those of the first and the last of round ticks around them.

    A scale that points up has ``end`` below ``start``.
    """

    def __init__(self, values: Iterable[float], start: float, end: float) -> None:
        values = list(values)
        self.ticks = ticks(min(values), max(values))
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        low, high = self.ticks[0], self.ticks[-1]
        return self.start + (self.end - self.start) * (value - low) / (high - low)


class Picture:
    """A picture, drawn element by element."""

    def __init__(self, label: str, height: float) -> None:
        self._label, self._height = label, height
        self._elements: list[str] = []

    def add(self, tag: str, kind: str, tooltip: str = "", **attributes: float | str) -> None:
        """Draw an SVG element of the class ``kind``; numbers are positions and sizes."""
        written = {key.replace("_", "-"): value for key, value in attributes.items()}
        shown = " ".join(f'{key}="{_number(value)}"' for key, value in written.items())
        inner = f"<title>{escape(tooltip)}</title>" if tooltip else ""
        self._elements.append(f'<{tag} class="{kind}" {shown}>{inner}</{tag}>')

    def path(self, tag: str, kind: str, points: Iterable[Point], tooltip: str = "", **more: float) -> None:
        """Draw a ``polyline`` or a ``polygon``."""
        self.add(tag, kind, tooltip, points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), **more)

    def text(self, x: float, y: float, text: str, anchor: str = "start", longest: int = 52) -> None:
        """Write a line, cut to ``longest`` characters."""
        cut = text if len(text) <= longest else text[: longest - 1] + "…"
        self._elements.append(f'<text x="{_number(x)}" y="{_number(y)}" text-anchor="{anchor}">{escape(cut)}</text>')

    def columns(self, x: Scale, top: float, bottom: float, grid: bool = True) -> None:
        """Number the ticks of a horizontal scale below ``bottom``, with vertical lines."""
        for tick in x.ticks:
            if grid:
                self.add("line", "grid", x1=x(tick), x2=x(tick), y1=top, y2=bottom)
            self.text(x(tick), bottom + 16, f"{tick:g}", "middle")

    def rows(self, y: Scale, left: float, right: float) -> None:
        """Number the ticks of a vertical scale left of ``left``, with horizontal lines."""
        for tick in y.ticks:
            self.add("line", "grid", x1=left, x2=right, y1=y(tick), y2=y(tick))
            self.text(left - 6, y(tick) + 4, f"{tick:g}", "end")

    def element(self) -> str:
        """The picture as an element of a page that has `COLOURS` and `STYLE`."""
        return self._svg("", [])

    def document(self) -> str:
        """The picture as a file of its own."""
        paper = "svg { background: var(--paper); font-family: system-ui, sans-serif; }\n"
        return self._svg(' xmlns="http://www.w3.org/2000/svg"', [f"<style>\n{COLOURS}{paper}{STYLE}</style>"]) + "\n"

    def _svg(self, namespace: str, first: list[str]) -> str:
        size = f'viewBox="0 0 {WIDTH} {self._height:g}" role="img" aria-label="{escape(self._label)}"'
        return "\n".join([f"<svg {size}{namespace}>", *first, *self._elements, "</svg>"])


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from below ``low`` to above ``high``, four to eleven of them."""
    span = max(high - low, 1e-3)
    step = 10.0 ** math.floor(math.log10(span))
    step *= next(factor for factor in (1, 0.5, 0.2) if span / (step * factor) >= 2 or factor == 0.2)
    first, last = math.floor(low / step), math.ceil(high / step)
    first -= round(first * step, 10) > low  # the smallest floats become 0 when they are divided
    last += round(last * step, 10) < high
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}" if abs(value) < 10 else f"{value:.1f}"
