"""A leaderboard for people: one content, as Markdown and as a page of HTML that needs nothing else."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

from two_tower.plot import COLOURS, STYLE, Picture
from two_tower.report.leaderboard import Comparison, Example, Leaderboard, PValue, Row
from two_tower.report.pictures import differences, pictures

LEVEL = 0.05  # p-values below are called more than chance
MAX_NAMES = 4  # of rows in a sentence
MAX_AXES = 5  # columns for what distinguishes the rows

_PAGE_STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 980px;
  margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; }
.table { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--faint); text-align: left; vertical-align: top; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
svg { width: 100%; margin: .5rem 0; }
"""


@dataclass(frozen=True)
class Heading:
    """The title of a section."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Table:
    """Cells of plain text; the first ``left`` columns are words, the others numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1


Block: TypeAlias = Heading | Table | Picture | str  # text is a paragraph; Markdown has no pictures


def markdown_page(board: Leaderboard, failed: Sequence[str] = ()) -> str:
    """The leaderboard as Markdown; ``failed``: ``job: error`` for each job of a sweep that ended without results."""
    return _markdown([*_content(board), *_failed(failed)])


def brief_page(board: Leaderboard, failed: Sequence[str] = ()) -> str:
    """The first table of the leaderboard and what it says, as Markdown."""
    return _markdown([*_head(board), *_failed(failed)])


def html_page(board: Leaderboard, failed: Sequence[str] = ()) -> str:
    """The leaderboard as one HTML document with plots, which loads nothing from elsewhere."""
    body = "\n".join(map(_html, [*_content(board), *_failed(failed)]))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Leaderboard</title>\n<style>\n{COLOURS}{_PAGE_STYLE}{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _head(board: Leaderboard) -> list[Block]:
    return [
        Heading("Leaderboard", 1),
        f"{board.queries:,} queries of '{board.split}', each against {board.documents:,} passages. "
        f"Rows are ordered and tested by {board.metric}.",
        *_verdict(board),
        _main_table(board),
    ]


def _content(board: Leaderboard) -> list[Block]:
    return [
        *_head(board),
        *pictures(board).values(),
        "Interval: 95 %, bootstrap over the queries. Std, ±: standard deviation of the mean over the seeds of a row. "
        "p: paired randomisation test over the queries, values averaged over the runs of a row first, "
        "Holm-corrected within each column. It asks whether other queries might reverse the difference, "
        "not whether other seeds might: for that look at std. The best row was chosen on these very queries, so "
        "its figure flatters it: report that of  two-tower evaluate RUN --split test.",
        Heading("All metrics"),
        _all_metrics(board),
        *[block for comparison in board.comparisons for block in _query_by_query(comparison, board.metric)],
        Heading("Runs"),
        Table(
            ["run", "configuration", "seed", board.metric],
            [
                [str(run.path), row.configuration, str(run.config.get("seed")), f"{mean:.4f}"]
                for row in board.rows
                for run, mean in zip(row.runs, row.run_means(board.metric), strict=True)
            ],
            left=2,
        ),
    ]


def _failed(failed: Sequence[str]) -> list[Block]:
    if not failed:
        return []
    return [Heading("Failed"), Table(["job", "error"], [each.split(": ", 1) for each in failed], left=2)]


def _verdict(board: Leaderboard) -> list[str]:
    """What a reader may conclude, in sentences."""
    best, others = board.rows[0], board.rows[1:]
    runs = f"the mean of {len(best.runs)} runs" if len(best.runs) > 1 else "one run"
    sentences = [f"Best: {best.name}, {board.metric} {best.values.mean():.3f} ({runs})."]
    if best.vs_bm25:
        sentences.append(_against_bm25(best, best.vs_bm25, board.bm25[board.metric]))
    below = [row.name for row in others if row.vs_best and row.vs_best.holm < LEVEL]
    alike = [row.name for row in others if row.vs_best and row.vs_best.holm >= LEVEL]
    if below:
        sentences.append(f"Below the best by more than chance: {_listed(below)}.")
    if alike:
        sentences.append(
            f"Not to be told apart from the best with {board.queries:,} queries: {_listed(alike)}. "
            "That is no proof that they are equal."
        )
    return sentences


def _against_bm25(best: Row, test: PValue, bm25: float) -> str:
    difference = best.values.mean() - bm25
    side = "above" if difference > 0 else "below"
    chance = "more than chance" if test.holm < LEVEL else "which may be chance"
    p = _p(test) if test.holm < 1e-4 else f"= {_p(test)}"
    return f"It is {abs(difference):.3f} {side} BM25 ({bm25:.3f}), {chance} (p {p})."


def _main_table(board: Leaderboard) -> Table:
    axes = _axes(board)
    head = [*(axes or ["configuration"]), "runs", board.metric, "95 % interval", "std", "p vs best", "p vs BM25"]
    rows = [(float(row.values.mean()), _main_row(row, board.metric, axes)) for row in board.rows]
    if board.bm25_interval:
        mean, padding = board.bm25[board.metric], [""] * (len(axes) - 1)
        rows.append((mean, ["BM25", *padding, "", f"{mean:.4f}", _interval(board.bm25_interval), *[""] * 5]))
    ordered = [cells for _, cells in sorted(rows, key=lambda row: -row[0])]
    return Table([*head, "seconds", "doctor"], ordered, left=max(1, len(axes)))


def _main_row(row: Row, metric: str, axes: Sequence[str]) -> list[str]:
    std = row.std(metric)
    return [
        *([_cell(row.overrides.get(axis)) for axis in axes] or [row.name]),
        str(len(row.runs)),
        f"{row.values.mean():.4f}",
        _interval(row.interval),
        "" if std is None else f"{std:.4f}",
        _p(row.vs_best) or "best",
        _p(row.vs_bm25),
        "" if row.seconds is None else f"{row.seconds:,.0f}",
        _findings(row),
    ]


def _axes(board: Leaderboard) -> list[str]:
    """The keys in which the rows differ, where there are several and the rows are named by them; else none."""
    axes = list(dict.fromkeys(key for row in board.rows for key in row.overrides))
    by_overrides = all(row.name == row.configuration for row in board.rows)
    return axes if by_overrides and 1 < len(axes) <= MAX_AXES else []


def _cell(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _findings(row: Row) -> str:
    """What the doctor found, and in how many of the runs if not in all."""
    counts = Counter(finding for run in row.runs for finding in run.findings)
    runs = len(row.runs)
    return ", ".join(f"{name} ({n} of {runs})" if n < runs else name for name, n in counts.most_common())


def _all_metrics(board: Leaderboard) -> Table:
    metrics = list(board.rows[0].means)
    rows = [[row.name, *(_mean_and_std(row, m) for m in metrics)] for row in board.rows]
    if board.bm25:
        rows.append(["BM25", *(f"{board.bm25[m]:.4f}" if m in board.bm25 else "" for m in metrics)])
    return Table(["configuration", *metrics], rows)


def _mean_and_std(row: Row, metric: str) -> str:
    if metric not in row.means:
        return ""
    std = row.std(metric)
    return f"{row.means[metric]:.4f}" + ("" if std is None else f" ± {std:.4f}")


def _query_by_query(comparison: Comparison, metric: str) -> list[Block]:
    a, b = comparison.a, comparison.b
    counts = f"better on {comparison.wins:,} queries, worse on {comparison.losses:,}, equal on {comparison.ties:,}."
    blocks: list[Block] = [
        Heading(f"{a} against {b}, query by query"),
        f"By {metric}, {a} is {counts}",
        differences(comparison),
    ]
    for title, examples in (("Clearest wins", comparison.won), ("Clearest losses", comparison.lost)):
        if examples:
            blocks += [Heading(title, 3), Table(["query", "text", a, b], [_example(each) for each in examples], left=2)]
    return blocks


def _example(example: Example) -> list[str]:
    text = example.text if len(example.text) <= 100 else example.text[:99] + "…"
    return [example.query, text, f"{example.a:.3f}", f"{example.b:.3f}"]


def _interval(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}"


def _p(test: PValue | None) -> str:
    if test is None:
        return ""
    return "< 0.0001" if test.holm < 1e-4 else f"{test.holm:.2g}"


def _listed(names: Sequence[str]) -> str:
    return "; ".join(names) if len(names) <= MAX_NAMES else f"{len(names)} rows"


def _markdown(blocks: Iterable[Block]) -> str:
    texts = [
        "#" * b.level + f" {b.text}" if isinstance(b, Heading) else _markdown_table(b) if isinstance(b, Table) else b
        for b in blocks
        if not isinstance(b, Picture)
    ]
    return "\n\n".join(texts) + "\n"


def _markdown_table(table: Table) -> str:
    """Aligned, so that a terminal shows it as well."""
    cells = [[re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in row] for row in (table.head, *table.rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    aligned = ["<"] * table.left + [">"] * (len(widths) - table.left)
    lines = [[f"{c:{side}{w}}" for c, side, w in zip(row, aligned, widths, strict=True)] for row in cells]
    rule = ["-" * w if side == "<" else "-" * (w - 1) + ":" for side, w in zip(aligned, widths, strict=True)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{escape(block.text)}</h{block.level}>"
    if isinstance(block, Picture):
        return block.element()
    return _html_table(block) if isinstance(block, Table) else f"<p>{escape(block)}</p>"


def _html_table(table: Table) -> str:
    def line(tag: str, row: Sequence[str]) -> str:
        starts = [f"<{tag}>" if i < table.left else f'<{tag} class="number">' for i in range(len(row))]
        return "<tr>" + "".join(f"{s}{escape(c)}</{tag}>" for s, c in zip(starts, row, strict=True)) + "</tr>"

    rows = [line("th", table.head), *(line("td", row) for row in table.rows)]
    return '<div class="table"><table>\n' + "\n".join(rows) + "\n</table></div>"
