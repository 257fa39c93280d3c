"""The tables and the picture of docs/scale.md, from what `benchmarks.growth` has measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.tables import DATA, markdown, with_blocks
from two_tower.files import read_json
from two_tower.plot import WIDTH, Picture, Scale

STORED, AXES_STORED = DATA / "scale.json", DATA / "axes.json"
#: What `benchmarks.axes` varies; the other two are 30,000 words, batches of 1,024, 256 dimensions.
AXES = {
    "words": (30_000, 100_000, 300_000, 1_000_000),
    "batch": (128, 512, 2_048, 8_192, 16_384),
    "dim": (64, 128, 256, 512, 1_024),
}


class Measured(NamedTuple):
    """What a step took."""

    step: str
    passages: int
    seconds: float
    memory: int  # bytes, at most at a time
    disk: int  # bytes, of new files
    found: dict[str, float]


NAMES = {
    "prepare": "read, number the words",
    "train": "train (some steps)",
    "validate": "rank all by the towers",
    "bm25": "rank all by BM25",
    "embed_float16": "embed, float16, `flat`",
    "embed_int8": "embed, int8, `flat`",
    "ivf": "`ivf`, int8",
    "ivf_pq": "`ivf_pq`",
    "hnsw": "`hnsw`",
}

Figure = Callable[[Measured], float]
QUANTITIES: dict[str, tuple[Figure, Callable[[float], str]]] = {
    "seconds": (lambda row: row.seconds, lambda value: f"{value:,.0f} s" if value >= 10 else f"{value:.1f} s"),
    "memory": (lambda row: row.memory, lambda value: f"{value / 1e9:.2f} GB"),
    "disk": (lambda row: row.disk, lambda value: f"{max(0, value) / 1e9:.2f} GB"),
    "query": (lambda row: row.found.get("p50_ms", math.nan), lambda value: f"{value:.2f} ms"),
    "recall": (lambda row: row.found.get("recall", math.nan), lambda value: f"{value:.3f}"),
}


def stored() -> list[Measured]:
    """All results so far."""
    return [Measured(**row) for row in read_json(STORED)] if STORED.exists() else []


def filled(page: str, rows: Sequence[Measured]) -> str:
    """The page with its tables."""
    page = with_blocks(page, "growth", lambda name: table(rows, *QUANTITIES[name]))
    return with_blocks(page, "axis", axis_table)


def axis_table(axis: str) -> str:
    """A step of training and encoding at each size of an axis, with the slopes between the two largest."""
    rows = [row for row in (read_json(AXES_STORED) if AXES_STORED.exists() else []) if row["axis"] == axis]
    lines = [["", *(f"{row[axis]:,}" for row in rows), "slope"], ["---", *("---:" for _ in rows), "---:"]]
    for name, key, written in (
        ("a step", "step_ms", "{:,.0f} ms"),
        ("memory", "gigabytes", "{:.2f} GB"),
        ("passages encoded a second", "passages_per_second", "{:,.0f}"),
    ):
        lines.append([name, *(written.format(row[key]) for row in rows), slope({row[axis]: row[key] for row in rows})])
    return markdown(lines)


def table(rows: Sequence[Measured], figure: Figure, written: Callable[[float], str]) -> str:
    """A figure of each step at each size, and by which power of the size it grows between the two largest."""
    sizes = sorted({row.passages for row in rows})
    lines = [["", *(f"{size:,}" for size in sizes), "slope"], ["---", *("---:" for _ in sizes), "---:"]]
    for step, name in NAMES.items():
        values = {row.passages: figure(row) for row in rows if row.step == step and not math.isnan(figure(row))}
        if values:
            cells = (written(values[size]) if size in values else "" for size in sizes)
            lines.append([name, *cells, slope(values)])
    return markdown(lines)


def slope(values: dict[int, float]) -> str:
    """The power of the size by which values grow between the two largest sizes."""
    (a, low), (b, high) = sorted(values.items())[-2:] if len(values) > 1 else ((1, 0.0), (2, 0.0))
    return f"{math.log(high / low) / math.log(b / a):.2f}" if low > 0 and high > 0 else ""


def picture(rows: Sequence[Measured]) -> str:
    """Seconds against passages, both by powers of ten, as an SVG document."""
    left, top, bottom = 60, 20, 360
    drawing = Picture("Seconds of each step against the number of passages", bottom + 44)
    x = Scale([math.log10(row.passages) for row in rows], left, WIDTH - 170)
    y = Scale([math.log10(max(row.seconds, 0.1)) for row in rows], bottom, top)
    drawing.columns(x, top, bottom)
    drawing.rows(y, left, WIDTH - 170)
    drawing.text(left, bottom + 36, "powers of ten: passages from left to right, seconds upwards")
    for number, (step, name) in enumerate(NAMES.items()):
        own = sorted((row for row in rows if row.step == step), key=lambda row: row.passages)
        points = [(x(math.log10(row.passages)), y(math.log10(max(row.seconds, 0.1)))) for row in own]
        if points:
            drawing.path("polyline", f"curve c{number % 8}", points, name)
            drawing.text(points[-1][0] + 6, points[-1][1] + 4, name)
    return drawing.document()
