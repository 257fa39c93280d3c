"""Pictures of a leaderboard: intervals of the rows, curves over the epochs, differences query by query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from two_tower.plot import SERIES, WIDTH, Picture, Scale
from two_tower.report.leaderboard import Comparison, Leaderboard

Points = Sequence[tuple[float, float]]

BARS = 400  # most bars of a picture; of more queries every n-th is drawn


def pictures(board: Leaderboard) -> dict[str, Picture]:
    """Name → picture: ``intervals`` of the rows; ``curves`` and ``loss`` over the epochs, where runs logged them."""
    drawn = {"intervals": intervals(board)}
    for name, key, label in (("curves", f"val/{board.metric}", board.metric), ("loss", "train/loss", "loss")):
        runs = {row.name: [run.history[key] for run in row.runs if key in run.history] for row in board.rows}
        if any(runs.values()):
            drawn[name] = curves(runs, label, board.bm25.get(board.metric) if name == "curves" else None)
    return drawn


def intervals(board: Leaderboard) -> Picture:
    """A line for each row, and for BM25: its mean, the interval around it, and a small dot for each run."""
    rows = [(row.name, float(row.values.mean()), row.interval, row.run_means(board.metric)) for row in board.rows]
    if board.bm25_interval:
        rows.append(("BM25", board.bm25[board.metric], board.bm25_interval, []))
    rows.sort(key=lambda row: -row[1])
    height, bottom = 26, 26 * len(rows) + 8
    picture = Picture(f"{board.metric} of every row with its 95 % interval", bottom + 24)
    x = Scale([end for _, _, ends, runs in rows for end in (*ends, *runs)], 360, WIDTH - 30)
    picture.columns(x, 0, bottom)
    for number, (name, mean, (low, high), runs) in enumerate(rows):
        y = height * (number + 0.5) + 4
        picture.text(340, y + 4, name, "end")
        picture.add("line", "interval", x1=x(low), x2=x(high), y1=y, y2=y)
        for value in runs if len(runs) > 1 else ():
            picture.add("circle", "hollow", cx=x(value), cy=y, r=3)
        picture.add("circle", "a", f"{name}: {mean:.4f} ({low:.4f} to {high:.4f})", cx=x(mean), cy=y, r=5)
    return picture


def curves(runs: Mapping[str, Sequence[Points]], label: str, level: float | None = None) -> Picture:
    """A line for each run, a colour for each name; only the first eight names.

    Args:
        runs: name → the points (epochs, value) of each run.
        label: what the values are.
        level: BM25's value, a line across the picture.
    """
    drawn = [(name, each) for name, each in runs.items() if any(each)][: len(SERIES)]
    points = [point for _, each in drawn for run in each for point in run]
    y = Scale([value for _, value in points] + ([] if level is None else [level]), 290, 10)
    x = Scale([0, *(at for at, _ in points)], 50, WIDTH - 300)
    picture = Picture(f"{label} over the epochs", 334)
    picture.rows(y, x.start, x.end)
    picture.columns(x, y.end, y.start, grid=False)
    picture.text((x.start + x.end) / 2, 326, "epochs", "middle")
    for number, (name, each) in enumerate(drawn):
        for run in each:
            picture.path("polyline", f"curve c{number}", [(x(at), y(value)) for at, value in run], name)
    legend = [(f"c{number}", name) for number, (name, _) in enumerate(drawn)]
    if level is not None:
        picture.add("line", "level", x1=x.start, x2=x.end, y1=y(level), y2=y(level))
        legend.insert(0, ("level", "BM25"))
    for number, (kind, name) in enumerate(legend):
        at = 16 + 20 * number
        picture.add("line", f"curve {kind}", x1=x.end + 16, x2=x.end + 36, y1=at, y2=at)
        picture.text(x.end + 42, at + 4, name, longest=36)
    return picture


def differences(comparison: Comparison) -> Picture:
    """A bar for each query that the two systems answer differently well, the first's best on the left."""
    values = comparison.differences
    falling = np.sort(values[values != 0])[::-1]
    drawn = falling[np.linspace(0, len(falling) - 1, min(len(falling), BARS)).round().astype(int)]
    width, largest = (WIDTH - 60) / max(len(drawn), 1), float(np.abs(falling).max(initial=0.0)) or 1.0
    middle, height = 80, 70
    picture = Picture(f"{comparison.a} minus {comparison.b}, query by query", 2 * middle)
    picture.add("line", "grid", x1=50, x2=WIDTH - 10, y1=middle, y2=middle)
    for share in (1, 0, -1):
        picture.text(44, middle - share * height + 4, f"{share * largest:+.2g}", "end")
    for number, value in enumerate(drawn.tolist()):
        size = height * abs(value) / largest
        kind, top = ("a", middle - size) if value > 0 else ("b", middle)
        picture.add("rect", kind, x=50 + number * width, y=top, width=max(width * 0.9, 0.5), height=size)
    return picture
