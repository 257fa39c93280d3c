"""``python -m benchmarks [NAME…]``: run benchmarks, show a table, write results.json; docs/benchmarks.md on demand."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from rich.console import Console
from rich.table import Table

from benchmarks import rates_page
from benchmarks.fill import fill
from benchmarks.measure import Row
from two_tower.files import write_json

#: One file each.
NAMES = (
    "tokenise",
    "encode_average",
    "encode_gru",
    "encode_lstm",
    "train_average",
    "validate",
    "exact_search",
    "stream_triples",
    "embed_corpus",
    "index_hnsw",
    "encode_teacher",
    "serve",
)
#: What `benchmarks/results.json` has of a row.
KEYS = ("name", "ours", "peer", "unit", "ratio", "peer_name")

console = Console()


def missing(name: str) -> list[str]:
    """The packages and programs that a benchmark needs and that are not installed."""
    module = import_module(f"benchmarks.{name}")
    packages: Sequence[str] = getattr(module, "NEEDS", ())
    programs: Sequence[str] = getattr(module, "PROGRAMS", ())
    return [p for p in packages if find_spec(p) is None] + [p for p in programs if which(p) is None]


def _show(rows: Sequence[Row]) -> None:
    table = Table("work", "unit", "ours", "peer", "ratio", "fastest peer")
    for column in table.columns[2:5]:
        column.justify = "right"
    for row in rows:
        table.add_row(row.name, row.unit, f"{row.ours:,}", f"{row.peer:,}", f"{row.ratio:g}×", row.peer_name)
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; ``arguments`` are those of the process by default."""
    parser = argparse.ArgumentParser("python -m benchmarks", description="Compare with other packages on equal work.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(NAMES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that all works, not how fast")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results.json"), help="the JSON file")
    parser.add_argument("--publish", action="store_true", help="store the rows, write docs/benchmarks.md")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in NAMES]:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    if options.quick and options.publish:
        parser.error("tiny sizes show nothing worth publishing: leave out --quick or --publish")
    rows: list[Row] = []
    for name in options.names or NAMES:
        if packages := missing(name):
            console.print(f"{name} is left out: {' and '.join(packages)} not installed (pip install -e '.[bench]')")
            continue
        with console.status(name):
            rows += import_module(f"benchmarks.{name}").run(options.quick)
    _show(rows)
    write_json(options.output, [{key: getattr(row, key) for key in KEYS} for row in rows])
    if options.publish:
        rates_page.publish(rows)
        fill()


if __name__ == "__main__":
    main()
