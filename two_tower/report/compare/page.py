"""A leaderboard for people: one content, as Markdown and as a page of HTML that needs nothing else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from two_tower.report.compare.blocks import Block, Heading, Paragraph, Plot, Table, html, markdown
from two_tower.report.compare.curves import curves_of, curves_plot
from two_tower.report.compare.leaderboard import Comparison, Example, Leaderboard, PValue, Row
from two_tower.report.compare.plots import Dot, differences_plot, intervals_plot

__all__ = ["brief_page", "html_page", "markdown_page", "pictures"]

LEVEL = 0.05  # p-values below are called more than chance
MOST_NAMES = 4  # of rows in a sentence
MOST_AXES = 5  # columns for what tells the rows apart


def markdown_page(board: Leaderboard, failed: Sequence[str] = ()) -> str:
    """The leaderboard as Markdown.

    Args:
        board: the rows.
        failed: jobs of a sweep that ended without results, and why.
    """
    return markdown([*_content(board), *_failed(failed)])


def brief_page(board: Leaderboard, failed: Sequence[str] = ()) -> str:
    """The first table of the leaderboard and what it says, as Markdown; see `markdown_page`."""
    return markdown([*_head(board), *_failed(failed)])


def html_page(board: Leaderboard, failed: Sequence[str] = ()) -> str:
    """The leaderboard as one HTML document with plots; see `markdown_page`."""
    return html([*_content(board), *_failed(failed)], "Leaderboard")


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


def _head(board: Leaderboard) -> list[Block]:
    return [
        Heading("Leaderboard", 1),
        Paragraph(
            f"{board.queries:,} queries of '{board.split}', each against {board.documents:,} passages. "
            f"Rows are ordered and tested by {board.metric}."
        ),
        *map(Paragraph, _verdict(board)),
        _main_table(board),
    ]


def _content(board: Leaderboard) -> list[Block]:
    return [
        *_head(board),
        *map(Plot, pictures(board).values()),
        Paragraph(
            "Interval: 95 %, bootstrap over the queries. Std, ±: of the mean, over a row's runs, whose seeds differ. "
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
    rows = [
        (
            float(row.values.mean()),
            [
                *([_shown(row.overrides.get(axis)) for axis in axes] or [row.name]),
                str(len(row.runs)),
                f"{row.values.mean():.4f}",
                _interval(row.interval),
                "" if row.std is None else f"{row.std:.4f}",
                _p(row.vs_best) or "best",
                _p(row.vs_bm25),
                f"{row.seconds:,.0f}" if row.seconds is not None else "",
                _findings(row),
            ],
        )
        for row in board.rows
    ]
    if board.bm25_interval:
        mean, beside = board.bm25[board.metric], [""] * (len(axes) - 1)
        rows.append((mean, ["BM25", *beside, "", f"{mean:.4f}", _interval(board.bm25_interval), *[""] * 5]))
    ordered = [cells for _, cells in sorted(rows, key=lambda row: -row[0])]
    return Table([*head, "seconds", "doctor"], ordered, left=max(1, len(axes)))


def _axes(board: Leaderboard) -> list[str]:
    """The keys in which the rows differ, where there are several and the rows are named by them; else none."""
    axes = list(dict.fromkeys(key for row in board.rows for key in row.overrides))
    by_overrides = all(row.name == row.configuration for row in board.rows)
    return axes if by_overrides and 1 < len(axes) <= MOST_AXES else []


def _shown(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _findings(row: Row) -> str:
    """What the doctor found, and in how many of the runs if not in all."""
    found = Counter(finding for run in row.runs for finding in run.findings)
    runs = len(row.runs)
    return ", ".join(f"{name} ({n} of {runs})" if n < runs else name for name, n in found.most_common())


def _all_metrics(board: Leaderboard) -> Table:
    metrics = list(board.rows[0].means)
    rows = [[row.name, *(_mean_and_std(row, m) for m in metrics)] for row in board.rows]
    if board.bm25:
        rows.append(["BM25", *(f"{board.bm25[m]:.4f}" if m in board.bm25 else "" for m in metrics)])
    return Table(["configuration", *metrics], rows)


def _mean_and_std(row: Row, metric: str) -> str:
    if metric not in row.means:
        return ""
    std = row.spread(metric)
    return f"{row.means[metric]:.4f}" + ("" if std is None else f" ± {std:.4f}")


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
