"""How runs got where they are: a metric, or the loss, over the epochs."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from two_tower.report.compare.plots import WIDTH, short, svg, ticks

__all__ = ["Curve", "curves_plot", "read_history"]

MOST = 8  # curves of a picture, one for each colour
LEFT, RIGHT, HEIGHT = 50, 300, 280  # margin with the scale, margin with the names, height of the curves
LINE = 20  # height of a name


@dataclass(frozen=True)
class Curve:
    """The runs of one configuration.

    Attributes:
        name: of the configuration.
        runs: for each run its points (epochs, value), by rising epochs.
    """

    name: str
    runs: Sequence[Sequence[tuple[float, float]]]


def read_history(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Metric → its points (epochs, value), from a run's ``metrics.csv``; empty without the file.

    A point lies where its step ended; ``untrained/METRIC`` is the point of ``val/METRIC`` at 0.
    """
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    # An epoch has so many steps that no row lies behind its own epoch's end; the last row of one lies on it.
    steps = max([(row["step"] + 1) / (row["epoch"] + 1) for row in rows if "epoch" in row], default=1.0)
    history: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for key, value in row.items():
            if key.startswith("untrained/"):
                history.setdefault("val/" + key.removeprefix("untrained/"), []).append((0.0, value))
            elif key not in ("step", "epoch"):
                history.setdefault(key, []).append(((row["step"] + 1) / steps, value))
    return history


def curves_plot(curves: Sequence[Curve], metric: str, level: float | None = None) -> str:
    """A line for each run, a colour for each curve; of more than eight curves the first eight.

    Args:
        curves: in the order in which they are named; not all of their runs are empty.
        metric: what the values are.
        level: a line across the picture: BM25.
    """
    drawn = [curve for curve in curves if any(curve.runs)][:MOST]
    points = [point for curve in drawn for run in curve.runs for point in run]
    values = [value for _, value in points] + ([] if level is None else [level])
    scale, last = ticks(min(values), max(values)), ticks(0, max(at for at, _ in points))[-1]
    bottom = HEIGHT + 10

    def x(at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * at / last

    def y(value: float) -> float:
        return bottom - HEIGHT * (value - scale[0]) / (scale[-1] - scale[0])

    parts = []
    for tick in scale:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{x(last):.1f}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in ticks(0, last):
        parts.append(f'<text x="{x(tick):.1f}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text x="{x(last / 2):.1f}" y="{bottom + 36}" text-anchor="middle">epochs</text>')
    for number, curve in enumerate(drawn):
        for run in curve.runs:
            line = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in run)
            parts.append(
                f'<polyline class="curve c{number}" points="{line}"><title>{escape(curve.name)}</title></polyline>'
            )
    names = [(f"c{number}", curve.name) for number, curve in enumerate(drawn)]
    if level is not None:
        parts.append(f'<line class="level" x1="{LEFT}" x2="{x(last):.1f}" y1="{y(level):.1f}" y2="{y(level):.1f}"/>')
        names.insert(0, ("level", "BM25"))
    for number, (kind, name) in enumerate(names):
        at = 16 + LINE * number
        parts.append(
            f'<line class="curve {kind}" x1="{x(last) + 16:.1f}" x2="{x(last) + 36:.1f}" y1="{at}" y2="{at}"/>'
        )
        parts.append(f'<text x="{x(last) + 42:.1f}" y="{at + 4}">{escape(short(name, 36))}</text>')
    return svg(parts, bottom + 44, f"{metric} over the epochs")


def curves_of(histories: Mapping[str, Sequence[Mapping[str, Sequence[tuple[float, float]]]]], key: str) -> list[Curve]:
    """The curves of one key of the history.

    Args:
        histories: name → what `read_history` gives of each run.
        key: as in ``metrics.csv``.
    """
    curves = [Curve(name, [run[key] for run in runs if key in run]) for name, runs in histories.items()]
    return [curve for curve in curves if curve.runs]
