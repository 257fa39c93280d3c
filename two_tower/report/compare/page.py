"""A leaderboard for people: one content, as Markdown and as a page of HTML that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

from two_tower.report.compare.curves import curves_of, curves_plot
from two_tower.report.compare.leaderboard import Comparison, Example, Leaderboard, PValue, Row
from two_tower.report.compare.plots import COLOURS, STYLE, Dot, differences_plot, intervals_plot

__all__ = ["html_page", "markdown_page", "pictures"]

LEVEL = 0.05  # p-values below are called more than chance
MOST_NAMES = 4  # of rows in a sentence


@dataclass(frozen=True)
class Heading:
    """A title of a section."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Table:
    """Cells of plain text; the first ``left`` columns are words, the others numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1


@dataclass(frozen=True)
class Plot:
    """A picture, of HTML only."""

    svg: str


Block: TypeAlias = Heading | Paragraph | Table | Plot


def markdown_page(board: Leaderboard) -> str:
    """The leaderboard as Markdown, its columns aligned so that a terminal shows it as well."""
    return "\n\n".join(filter(None, map(_markdown, _content(board)))) + "\n"


def html_page(board: Leaderboard) -> str:
    """The leaderboard as one HTML document with plots; it loads nothing from elsewhere."""
    body = "\n".join(map(_html, _content(board)))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Leaderboard</title>\n<style>\n{COLOURS}{_STYLE}{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def pictures(board: Leaderboard) -> dict[str, str]:
    """Name → picture: ``intervals`` of the rows; ``curves`` and ``loss`` over the epochs, where runs logged them.

    As elements of a page; `plots.alone` makes files of them.
    """
    found = {"intervals": intervals_plot(_dots(board), board.metric)}
    histories = {row.name: [run.history for run in row.runs] for row in board.rows}
    metric, loss = (curves_of(histories, key) for key in (f"val/{board.metric}", "train/loss"))
    if metric:
        found["curves"] = curves_plot(metric, board.metric, board.bm25.get(board.metric))
    if loss:
        found["loss"] = curves_plot(loss, "loss")
    return found


# --- what is said -----------------------------------------------------------------------------------------


def _content(board: Leaderboard) -> list[Block]:
    return [
        Heading("Leaderboard", 1),
        Paragraph(
            f"{board.queries:,} queries of '{board.split}', each against {board.documents:,} passages. "
            f"Rows are ordered and tested by {board.metric}."
        ),
        *map(Paragraph, _verdict(board)),
        _main_table(board),
        *map(Plot, pictures(board).values()),
        Paragraph(
            "Interval: 95 %, bootstrap over the queries. Std: of the mean, over the runs of a row, whose seeds differ. "
            "p: paired randomisation test over the queries, values averaged over the runs of a row first, "
            "Holm-corrected within each column. It asks whether other queries might turn the difference round, "
            "not whether other seeds might: for that look at std. The best row was chosen on these very queries, so "
            "its figure flatters it: report that of  two-tower evaluate RUN --split test."
        ),
        Heading("All metrics"),
        _all_metrics(board),
        *[block for comparison in board.comparisons for block in _query_by_query(comparison, board.metric)],
        Heading("Runs"),
        Table(
            ["run", "configuration", "seed", board.metric],
            [
                [
                    str(run.path),
                    row.configuration,
                    str(run.config.get("seed")),
                    f"{run.per_query.values[board.metric].mean():.4f}",
                ]
                for row in board.rows
                for run in row.runs
            ],
            left=2,
        ),
    ]


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
    head = ["configuration", "runs", board.metric, "95 % interval", "std", "p vs best", "p vs BM25"]
    rows = [
        (
            float(row.values.mean()),
            [
                row.name,
                str(len(row.runs)),
                f"{row.values.mean():.4f}",
                _interval(row.interval),
                "" if row.std is None else f"{row.std:.4f}",
                _p(row.vs_best) or "best",
                _p(row.vs_bm25),
            ],
        )
        for row in board.rows
    ]
    if board.bm25_interval:
        mean = board.bm25[board.metric]
        rows.append((mean, ["BM25", "", f"{mean:.4f}", _interval(board.bm25_interval), "", "", ""]))
    return Table(head, [cells for _, cells in sorted(rows, key=lambda row: -row[0])])


def _all_metrics(board: Leaderboard) -> Table:
    metrics = list(board.rows[0].means)
    rows = [[row.name, *(f"{row.means[m]:.4f}" if m in row.means else "" for m in metrics)] for row in board.rows]
    if board.bm25:
        rows.append(["BM25", *(f"{board.bm25[m]:.4f}" if m in board.bm25 else "" for m in metrics)])
    return Table(["configuration", *metrics], rows)


def _query_by_query(comparison: Comparison, metric: str) -> list[Block]:
    a, b = comparison.a, comparison.b
    counts = f"better on {comparison.wins:,} queries, worse on {comparison.losses:,}, equal on {comparison.ties:,}."
    blocks: list[Block] = [
        Heading(f"{a} against {b}, query by query"),
        Paragraph(f"By {metric}, {a} is {counts}"),
        Plot(differences_plot(comparison.differences, a, b)),
    ]
    for title, examples in (("Clearest wins", comparison.won), ("Clearest losses", comparison.lost)):
        if examples:
            blocks += [Heading(title, 3), Table(["query", "text", a, b], [_example(each) for each in examples], left=2)]
    return blocks


def _example(example: Example) -> list[str]:
    text = example.text if len(example.text) <= 100 else example.text[:99] + "…"
    return [example.query, text, f"{example.a:.3f}", f"{example.b:.3f}"]


def _dots(board: Leaderboard) -> list[Dot]:
    dots = []
    for row in board.rows:
        runs = [float(run.per_query.values[board.metric].mean()) for run in row.runs]
        dots.append(Dot(row.name, float(row.values.mean()), row.interval, runs if len(runs) > 1 else ()))
    if board.bm25_interval:
        dots.append(Dot("BM25", board.bm25[board.metric], board.bm25_interval))
    return sorted(dots, key=lambda dot: -dot.mean)


def _interval(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}"


def _p(test: PValue | None) -> str:
    """A p-value for people; nothing for none."""
    if test is None:
        return ""
    return "< 0.0001" if test.holm < 1e-4 else f"{test.holm:.2g}"


def _listed(names: Sequence[str]) -> str:
    return "; ".join(names) if len(names) <= MOST_NAMES else f"{len(names)} rows"


# --- how it is written ------------------------------------------------------------------------------------


def _markdown(block: Block) -> str:
    match block:
        case Heading():
            return "#" * block.level + " " + block.text
        case Paragraph():
            return block.text
        case Table():
            return _markdown_table(block)
    return ""


def _markdown_table(table: Table) -> str:
    cells = [[re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in row] for row in (table.head, *table.rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        [
            cell.ljust(w) if i < table.left else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        for row in cells
    ]
    rule = ["-" * w if i < table.left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))


def _html(block: Block) -> str:
    match block:
        case Heading():
            return f"<h{block.level}>{escape(block.text)}</h{block.level}>"
        case Paragraph():
            return f"<p>{escape(block.text)}</p>"
        case Plot():
            return block.svg
    return _html_table(block)


def _html_table(table: Table) -> str:
    def line(tag: str, row: Sequence[str]) -> str:
        marks = [f"<{tag}>" if i < table.left else f'<{tag} class="number">' for i in range(len(row))]
        return "<tr>" + "".join(f"{m}{escape(c)}</{tag}>" for m, c in zip(marks, row, strict=True)) + "</tr>"

    rows = [line("th", table.head), *(line("td", row) for row in table.rows)]
    return '<div class="table"><table>\n' + "\n".join(rows) + "\n</table></div>"


_STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 980px;
  margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; }
.table { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--faint); text-align: left; vertical-align: top; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
svg { width: 100%; margin: .5rem 0; }
"""
