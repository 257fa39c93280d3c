"""The tables and the picture of docs/benchmarks.md, from the rates that `python -m benchmarks --publish` has stored."""

from __future__ import annotations

import math
import os
import platform
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.measure import Row
from benchmarks.tables import DATA, markdown, with_blocks
from two_tower.files import read_json, write_json
from two_tower.plot import WIDTH, Picture, Scale

STORED = DATA / "benchmarks.json"
PACKAGES = ("torch", "numpy", "numba", "faiss-cpu", "tokenizers", "sentence-transformers", "model2vec", "fastapi")

Stored = dict[str, Any]  # ``machine``: what `machine` says; ``rows``: those of all benchmarks, as dictionaries


def machine() -> dict[str, str]:
    """What the rates were measured on."""
    info, memory = Path("/proc/cpuinfo"), Path("/proc/meminfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    name, found = re.search(r"model name\s*: (.+)", text), re.search(r"flags\s*: (.+)", text)
    flags = found[1].split() if found else []
    widest = next((flag for flag in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if flag in flags), "")
    size = re.search(r"MemTotal:\s*(\d+)", memory.read_text(encoding="utf-8")) if memory.exists() else None
    return {
        "processor": f"{name[1] if name else platform.processor()}, {os.cpu_count()} cores, {widest}".rstrip(", "),
        "memory": f"{int(size[1]) / 2**20:.0f} GB" if size else "",
        "system": f"{platform.system()}, Python {platform.python_version()}",
        **{package: version(package) for package in PACKAGES},
    }


def publish(rows: Sequence[Row]) -> None:
    """Store rows in place of those of the same names; those of another machine go."""
    here, kept = machine(), stored()
    others = kept["rows"] if kept["machine"] == here else []
    named = {row["name"]: row for row in others} | {row.name: asdict(row) for row in rows}
    write_json(STORED, {"machine": here, "rows": [*named.values()]})


def stored() -> Stored:
    """What was published last."""
    found: Stored = read_json(STORED) if STORED.exists() else {"machine": {}, "rows": []}
    return found


def filled(page: str, results: Stored) -> str:
    """The page with its tables."""
    tables = {"rows": _rows(results["rows"]), "all": _all(results["rows"]), "machine": _machine(results["machine"])}
    return with_blocks(page, "benchmarks", tables.__getitem__)


def _rows(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [["", "ours", "fastest peer", "ratio", "in the rounds"], ["---", "---:", "---:", "---:", "---:"]]
    for row in rows:
        pairs = zip(next(iter(row["rates"].values())), row["rates"][row["peer_name"]], strict=True)
        ratios = [ours / peer for ours, peer in pairs]
        rates = (f"{row[key]:,} {row['unit']}" for key in ("ours", "peer"))
        span = f"{min(ratios):.1f}–{max(ratios):.1f}"
        lines.append([f"`{row['name']}`", *rates, f"**{row['ratio']:.1f}**", span])
    return markdown(lines)


def _all(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [["", "", "median", "slowest and fastest round"], ["---", "---", "---:", "---:"]]
    for row in rows:
        shown = f"`{row['name']}`, {row['unit']}"
        for name, rates in row["rates"].items():
            span = f"{min(rates):,.0f}–{max(rates):,.0f}"
            lines.append([shown, name, f"{statistics.median(rates):,.0f}", span])
            shown = ""
    return markdown(lines)


def _machine(about: Mapping[str, str]) -> str:
    first = [value for key, value in about.items() if key not in PACKAGES and value]
    return f"{', '.join(first)}; " + ", ".join(f"{package} {about.get(package, '')}" for package in PACKAGES) + "."


def picture(rows: Sequence[Mapping[str, Any]]) -> str:
    """The ratios as bars, by powers of two, as an SVG document."""
    left, top, high = 200, 20, 22
    bottom = top + high * len(rows)
    drawing = Picture("How many times the rate of the fastest peer", bottom + 44)
    x = Scale([0.0, *(math.log2(max(row["ratio"], 0.5)) for row in rows)], left, WIDTH - 60)
    drawing.columns(x, top, bottom)
    drawing.text(left, bottom + 36, "powers of two: 0 is as fast as the fastest peer, 1 twice as fast, 2 four times")
    for number, row in enumerate(rows):
        y, end = top + high * number, x(math.log2(row["ratio"]))
        drawing.add(
            "rect", "a", f"{row['ratio']:g} times {row['peer_name']}",
            x=min(x(0), end), y=y + 3, width=abs(end - x(0)), height=high - 6,
        )  # fmt: skip
        drawing.text(left - 8, y + 15, row["name"], "end")
        drawing.text(max(end, x(0)) + 6, y + 15, f"{row['ratio']:.1f}")
    return drawing.document()
