"""The table of docs/serve.md, from what `benchmarks.load` has measured."""

from __future__ import annotations

from typing import Any

from benchmarks.tables import DATA, markdown, with_blocks
from two_tower.files import read_json

STORED = DATA / "load.json"


def stored() -> dict[str, Any]:
    """What was measured last."""
    nothing = {"passages": 0, "dim": 0, "machine": "", "rows": list[Any]()}
    return read_json(STORED) if STORED.exists() else nothing


def filled(page: str, stored: dict[str, Any]) -> str:
    """The page with its table."""

    def table(_: str) -> str:
        head = ["", "clients", "requests/s", "median", "99 %", "99.9 %", "failed", "memory before", "after"]
        lines = [head, ["---", *("---:" for _ in head[1:])]]
        for row in stored["rows"]:
            times = (f"{row[key]:,.0f} ms" for key in ("p50", "p99", "p999"))
            memory = (f"{row[key]:,} MB" for key in ("before", "after"))
            rate, failed = f"{row['rate']:,.0f}", f"{row['failed']:.0f}"
            lines.append([row["index"], str(row["clients"]), rate, *times, failed, *memory])
        about = f"{stored['passages']:,} passages of {stored['dim']} dimensions; {stored['machine']}."
        return f"{about}\n\n{markdown(lines)}"

    return with_blocks(page, "load", table)
