"""Stored results, and what documents show of them: the tables of experiments and single figures.

`filled` writes them between ``<!-- figures NAME -->`` and ``<!-- end -->``, single ones before
``<!-- NAME | ROW | VARIANT | KEY -->``.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from two_tower import new_words
from two_tower.files import write_text

ROOT = Path(__file__).parents[1]
DATA = ROOT / "docs" / "data"  # what was measured; `benchmarks.fill` writes it into the pages
FIGURES = DATA / "figures.json"
PAGES = ("docs/experiments.md", "docs/towers.md", "README.md")
SEEDS = (0, 1, 2)

Folders = Mapping[str, Path]
Found = dict[str, Any]  # what an evaluation gives, by names of figures
Stored = dict[str, Any]  # experiment, row, variant, seed, seconds of training, figures


@dataclass(frozen=True)
class Column:
    """A column of a table: what of which variant's figures it shows."""

    head: str
    variant: str
    key: str  # of `Found`, or "seconds"


class Row(NamedTuple):
    """A row of a table."""

    label: str
    overrides: tuple[str, ...] = ()
    peer: str = ""  # one of `peers` instead of a run of ours; it has no seeds
    adapted: float = new_words.ADAPTED  # how far token weights follow another collection
    runs: str = ""  # those of another experiment ({row} and {variant} are names) instead of training any
    updates: bool = False  # whether these are updated for the variant's data first


@dataclass(frozen=True)
class Experiment:
    """Towers that are trained and evaluated alike."""

    rows: Mapping[str, Row]
    variants: Mapping[str, Callable[[Folders], Sequence[str]]]  # name → overrides for the data
    columns: Sequence[Column]
    split: str = "test"  # that is evaluated
    seeds: Sequence[int] = SEEDS
    measure: Callable[[Path, str], Found] | None = None  # instead of an evaluation


def stored() -> list[Stored]:
    """All results so far."""
    return json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else []


def store(name: str, row: str, variant: str, seed: int | None, seconds: float, figures: Found) -> None:
    """Keep a result."""
    result = Stored(experiment=name, row=row, variant=variant, seed=seed, seconds=round(seconds), figures=figures)
    rows = [*stored(), result]
    rows.sort(key=lambda each: (each["experiment"], each["variant"], each["row"], each["seed"] or 0))
    write_text(FIGURES, "[\n" + ",\n".join(json.dumps(each, ensure_ascii=False) for each in rows) + "\n]\n")


def found_of(rows: Iterable[Stored], name: str, row: str, variant: str, seed: int | None = None) -> list[Stored]:
    """The results of a row, those of all seeds without one."""
    wanted = (name, row, variant)
    same = [each for each in rows if (each["experiment"], each["row"], each["variant"]) == wanted]
    return [each for each in same if seed is None or each["seed"] == seed]


def figure(rows: Iterable[Stored], name: str, row: str, variant: str, key: str) -> str:
    """A figure as a document shows it: the mean over the seeds, with the standard deviation of several."""
    found = found_of(rows, name, row, variant)
    values = [each["seconds"] if key == "seconds" else each["figures"].get(key) for each in found]
    values = [value for value in values if value is not None]
    if not values:
        return ""
    if key == "seconds":
        return f"{statistics.mean(values):.0f} s" if max(values) else ""
    if key in ("queries", "documents"):
        return f"{values[0]:,}"
    if key.startswith("cost/"):
        return f"{(mean := statistics.mean(values)):,.{0 if mean >= 100 else 1}f}"
    if "/p_vs_" in key:
        return "< .001" if max(values) < 0.001 else _short(max(values))
    spread = f" ± {_short(statistics.stdev(values))}" if len(values) > 1 else ""
    return _short(statistics.mean(values)) + spread


def _short(value: float) -> str:
    return re.sub(r"^(-?)0", r"\1", f"{value:.3f}")


def table(rows: Sequence[Stored], name: str, experiment: Experiment) -> str:
    """The Markdown table of an experiment; BM25's figures last."""
    lines = [["", *(column.head for column in experiment.columns)]]
    lines.append(["---", *("---:" for _ in experiment.columns)])
    for row, (label, *_) in experiment.rows.items():
        cells = [figure(rows, name, row, column.variant, column.key) for column in experiment.columns]
        if any(cells):
            lines.append([label, *cells])
    last, bm25 = [*experiment.rows][-1], list[str]()
    for column in experiment.columns:
        key = re.sub(r"^(dense|hybrid|untrained)", "bm25", column.key)
        found = next((f for row in (last, *experiment.rows) if (f := figure(rows, name, row, column.variant, key))), "")
        bm25.append(f"*{found.partition(' ')[0]}*" if found and column.key.startswith("dense") else "")
    lines += [["*BM25*", *bm25]] if any(bm25) else []
    return markdown(lines)


def markdown(lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table of these cells."""
    return "\n".join(re.sub(r"\|  (?=\|)", "| ", f"| {' | '.join(line)} |") for line in lines)


def with_blocks(page: str, kind: str, block: Callable[[str], str]) -> str:
    """A page with what ``block`` makes of each NAME between ``<!-- KIND NAME -->`` and ``<!-- end -->``."""

    def whole(match: re.Match[str]) -> str:
        return f"{match[1]}\n{block(match[2])}\n{match[3]}"

    return re.sub(rf"(<!-- {kind} (\w+) -->)\n.*?(<!-- end -->)", whole, page, flags=re.DOTALL)


def filled(page: str, rows: Sequence[Stored], experiments: Mapping[str, Experiment]) -> str:
    """A document with the stored figures in it."""

    def single(match: re.Match[str]) -> str:
        name, row, variant, key = (part.strip() for part in match[2].split("|"))
        return f"{figure(rows, name, row, variant, key).partition(' ± ')[0] or '?'}{match[1]}"

    page = with_blocks(page, "figures", lambda name: table(rows, name, experiments[name]))
    return re.sub(r"(?:\?|(?:< )?[-.,\d]+)( ?<!-- (\w+ \|[^>]*?) -->)", single, page)
