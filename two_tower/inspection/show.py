"""The facts on a screen: tables, small bar charts, warnings; 80 columns suffice, in a pipe too."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from two_tower.console import say

__all__ = ["show"]

Facts = Mapping[str, Any]

LABEL, COLUMN, BINS, WIDTH = 29, 12, 18, 80
BLOCKS = " ▏▎▍▌▋▊▉█"


def show(facts: Facts) -> None:
    """Print what `two_tower.inspection.facts.inspect` found."""
    source, splits = facts["source"], facts["splits"]
    say(
        f"{source['name']}: {facts['passages']['count']:,} passages, "
        f"a vocabulary of {facts['vocabulary']['words']:,} words",
        "bold",
    )
    say(f"fingerprint {source['fingerprint']}", "dim")
    _table("", ["passages", *splits], [facts["passages"], *splits.values()], _TEXT_ROWS)
    if splits:
        _table("Queries and relevant passages", list(splits), list(splits.values()), _QUERY_ROWS)
    _histograms("Tokens per passage", {"passages": facts["passages"]["lengths"]["histogram"]})
    _histograms("Tokens per query", {name: split["lengths"]["histogram"] for name, split in splits.items()})
    if facts["triplets"] is not None:
        _show_triplets(facts["triplets"])
    _show_bad_rows(facts["bad_rows"])
    _show_list("Said while reading", facts["notices"])
    _show_list("Warnings", [_sentences(w["evidence"], w["remedy"]) for w in facts["warnings"]], style="yellow")
    if not facts["warnings"]:
        say("\nNothing to warn of.")


_Row = tuple[str, Callable[[Facts], str]]


def _count(number: int) -> str:
    return f"{number:,}"


def _percent(rate: float) -> str:
    """One decimal; a rate that is not 0 never looks like 0."""
    return f"{100 * rate:.1f} %" if rate == 0 or rate >= 0.0005 else "< 0.1 %"


_TEXT_ROWS: list[_Row] = [
    ("texts", lambda f: _count(f["count"])),
    ("  without any word", lambda f: _count(f["empty"]["count"])),
    ("  equal to another one", lambda f: _count(f["duplicates"]["texts"])),
    ("tokens", lambda f: _count(f["tokens"])),
    ("  least of a text", lambda f: _count(f["lengths"]["min"])),
    ("  median", lambda f: _count(f["lengths"]["median"])),
    ("  mean", lambda f: f"{f['lengths']['mean']:,.1f}"),
    ("  95 % of texts have at most", lambda f: _count(f["lengths"]["p95"])),
    ("  99 % of texts have at most", lambda f: _count(f["lengths"]["p99"])),
    ("  most", lambda f: _count(f["lengths"]["max"])),
    ("tokens kept of a text", lambda f: _count(f["cut"]["limit"])),
    ("  texts that are longer", lambda f: _percent(f["cut"]["rate"])),
    ("  tokens cut off", lambda f: _percent(f["cut"]["token_rate"])),
    ("words not in the vocabulary", lambda f: _percent(f["unknown"]["rate"])),
    ("  texts without a known word", lambda f: _count(f["unknown"]["texts"])),
]

_QUERY_ROWS: list[_Row] = [
    ("judgements", lambda f: _count(f["judgements"])),
    ("  of unknown ids, left out", lambda f: _count(f["unknown_ids"])),
    ("relevant", lambda f: _count(f["positives"])),
    ("  of a query, mean", lambda f: f"{f['positives_per_query']['mean']:.2f}"),
    ("  of a query, most", lambda f: _count(f["positives_per_query"]["max"])),
    ("  with a copy, not judged", lambda f: _count(f["unjudged_copies"])),
    ("  equal to the query", lambda f: _count(f["answered_by_themselves"]["count"])),
    ("queries without any", lambda f: _count(f["without_positives"]["count"])),
    ("queries also in training", lambda f: _leaked(f, "count")),
    ("  with the same passage", lambda f: _leaked(f, "with_same_positive")),
    ("words found in the passage", lambda f: _percent(f["overlap"]["shared"])),
    ("  in another query's passage", lambda f: _percent(f["overlap"]["shared_by_chance"])),
    ("no common word", lambda f: _percent(f["overlap"]["nothing_shared"])),
    ("  with another's passage", lambda f: _percent(f["overlap"]["nothing_shared_by_chance"])),
    ("pairs compared for that", lambda f: _count(f["overlap"]["pairs"])),
]


def _leaked(split: Facts, key: str) -> str:
    return "–" if split["leakage"] is None else _count(split["leakage"][key])


def _table(title: str, names: Sequence[str], columns: Sequence[Facts], rows: Sequence[_Row]) -> None:
    say(f"\n{title:<{LABEL}}" + "".join(f"{name:>{COLUMN}}" for name in names), "bold")
    for label, value in rows:
        say(f"{label:<{LABEL}}" + "".join(f"{value(column):>{COLUMN}}" for column in columns))


def _histograms(title: str, histograms: Mapping[str, Mapping[str, list[int]]]) -> None:
    """One bar chart per column; the bins are those of `distribution`, so they fit together."""
    bins = sorted({span for h in histograms.values() for span in zip(h["edges"], h["edges"][1:], strict=False)})
    if not bins:
        return
    width = (WIDTH - BINS) // len(histograms)
    names = (f"{name:<{width}}" for name in histograms if len(histograms) > 1)
    say(f"\n{title:<{BINS}}{''.join(names)}".rstrip(), "bold")
    shares = [_shares(h) for h in histograms.values()]
    for low, high in bins:
        label = str(low) if high == low + 1 else f"{low}–{high - 1}"
        bars = (_bar(share.get(low, 0.0), max(share.values()), width - 9) for share in shares)
        say(f"{label:>{BINS - 2}}  {''.join(bars)}".rstrip())


def _shares(histogram: Mapping[str, list[int]]) -> dict[int, float]:
    total = sum(histogram["counts"])
    return {low: count / total for low, count in zip(histogram["edges"], histogram["counts"], strict=False)}


def _bar(share: float, most: float, width: int) -> str:
    eighths = round(8 * width * share / most)
    bar = "█" * (eighths // 8) + BLOCKS[eighths % 8].strip()
    return f"{bar + ' ' * bool(bar) + _percent(share) if share else '':<{width + 9}}"


def _show_triplets(triplets: Facts) -> None:
    read = f"the first {triplets['count']:,} are looked at" if triplets["sample"] else f"{triplets['count']:,}"
    say(f"\nTriplets of {triplets['kind']}: {read}", "bold")
    names = {
        "positive_is_negative": "positive equal to negative",
        "negative_is_relevant": "negative that is relevant",
        "positive_not_relevant": "positive that is not relevant",
        "positive_is_query": "positive equal to the query",
    }
    rows = {"of unknown ids, left out": triplets["unknown_ids"], **{n: triplets[k]["count"] for k, n in names.items()}}
    for label, count in rows.items():
        say(f"{label:<{LABEL}}{count:>{COLUMN},}")


def _show_bad_rows(files: Facts) -> None:
    lines = [
        f"{kind['count']:,} of {file} with {name}: {'; '.join(kind['examples'])}"
        for file, bad in files.items()
        for name, kind in bad["kinds"].items()
    ]
    _show_list("Bad rows that were left out", lines)


def _show_list(title: str, lines: Sequence[str], style: str | None = None) -> None:
    if lines:
        say(f"\n{title}", "bold")
    for line in lines:
        wrapped = textwrap.fill(
            line, WIDTH, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
        say(wrapped, style)


def _sentences(*parts: str) -> str:
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in parts)
