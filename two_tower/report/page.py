"""A leaderboard for people: one content, as Markdown and as a page of HTML that needs nothing else; its pictures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from two_tower.metrics.significance import SIGNIFICANT
from two_tower.plot import COLOURS, SERIES, STYLE, WIDTH, Picture, Scale
from two_tower.report.blocks import Block, Heading, Table, html, markdown
from two_tower.report.leaderboard import Comparison, Leaderboard, PValue, Row
from two_tower.validation._groups import GROUPS, NAMES

MAX_NAMES = 4  # of rows in a sentence
MAX_AXES = 5  # columns for what distinguishes the rows
BARS = 400  # most bars of a picture; of more queries every n-th is drawn

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

Points = Sequence[tuple[float, float]]


def markdown_page(board: Leaderboard, failed: Sequence[str] = (), more: Sequence[Block] = ()) -> str:
    """The leaderboard as Markdown, and ``more`` below.

    ``failed``: ``job: error`` for each job of a sweep that ended without results.
    """
    return markdown([*_content(board), *_failed(failed), *more])


def brief_page(board: Leaderboard, failed: Sequence[str] = (), more: Sequence[Block] = ()) -> str:
    """The first table of the leaderboard and what it says, as Markdown."""
    return markdown([*_head(board), *_failed(failed), *more])


def html_page(board: Leaderboard, failed: Sequence[str] = (), more: Sequence[Block] = ()) -> str:
    """The leaderboard as one HTML document with plots, which loads nothing from elsewhere."""
    body = "\n".join(map(html, [*_content(board), *_failed(failed), *more]))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Leaderboard</title>\n<style>\n{COLOURS}{_PAGE_STYLE}{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _head(board: Leaderboard) -> list[Block]:
    about = f"{board.queries:,} queries of '{board.split}', each against {board.documents:,} passages. "
    about += f"Rows are ordered and tested by {board.metric}."
    return [Heading("Leaderboard", 1), about, *_verdict(board), _main_table(board)]


def _content(board: Leaderboard) -> list[Block]:
    runs = [
        [str(run.path), row.configuration, str(run.config.get("seed")), f"{mean:.4f}"]
        for row in board.rows
        for run, mean in zip(row.runs, row.run_means(board.metric), strict=True)
    ]
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
        *_new_passages(board),
        *[block for comparison in board.comparisons for block in _query_by_query(comparison, board.metric)],
        Heading("Runs"),
        Table(["run", "configuration", "seed", board.metric], runs, left=2),
    ]


def _failed(failed: Sequence[str]) -> list[Block]:
    if not failed:
        return []
    return [Heading("Failed"), Table(["job", "error"], [each.split(": ", 1) for each in failed], left=2)]


def _verdict(board: Leaderboard) -> list[str]:
    best, others = board.rows[0], board.rows[1:]
    runs = f"the mean of {len(best.runs)} runs" if len(best.runs) > 1 else "one run"
    sentences = [f"Best: {best.name}, {board.metric} {best.values.mean():.3f} ({runs})."]
    if best.vs_bm25:
        bm25 = board.bm25[board.metric]
        difference = best.values.mean() - bm25
        side = "above" if difference > 0 else "below"
        chance = "more than chance" if best.vs_bm25.holm < SIGNIFICANT else "which may be chance"
        p = _p(best.vs_bm25) if best.vs_bm25.holm < 1e-4 else f"= {_p(best.vs_bm25)}"
        sentences.append(f"It is {abs(difference):.3f} {side} BM25 ({bm25:.3f}), {chance} (p {p}).")
    for certain in (True, False):
        names = [row.name for row in others if row.vs_best and (row.vs_best.holm < SIGNIFICANT) == certain]
        listed = "; ".join(names) if len(names) <= MAX_NAMES else f"{len(names)} rows"
        if names and certain:
            sentences.append(f"Below the best by more than chance: {listed}.")
        elif names:
            said = f"Not to be told apart from the best with {board.queries:,} queries: {listed}"
            sentences.append(f"{said}. That is no proof that they are equal.")
    return sentences


def _main_table(board: Leaderboard) -> Table:
    axes = list(dict.fromkeys(key for row in board.rows for key in row.overrides))
    if not 1 < len(axes) <= MAX_AXES or any(row.name != row.configuration for row in board.rows):
        axes = []  # a column for each key in which the rows differ only where rows are named by several of them
    head = [*(axes or ["configuration"]), "runs", board.metric, "95 % interval", "std", "p vs best", "p vs BM25"]
    rows = [(float(row.values.mean()), _main_row(row, board.metric, axes)) for row in board.rows]
    if board.bm25_interval:
        mean, padding, (low, high) = board.bm25[board.metric], [""] * (len(axes) - 1), board.bm25_interval
        rows.append((mean, ["BM25", *padding, "", f"{mean:.4f}", f"{low:.3f} to {high:.3f}", *[""] * 5]))
    ordered = [cells for _, cells in sorted(rows, key=lambda row: -row[0])]
    return Table([*head, "seconds", "doctor"], ordered, left=max(1, len(axes)))


def _main_row(row: Row, metric: str, axes: Sequence[str]) -> list[str]:
    std, values = row.std(metric), [row.overrides.get(axis) for axis in axes]
    counts, runs = Counter(finding for run in row.runs for finding in run.findings), len(row.runs)
    return [
        *(["" if v is None else v if isinstance(v, str) else json.dumps(v) for v in values] or [row.name]),
        str(len(row.runs)),
        f"{row.values.mean():.4f}",
        f"{row.interval[0]:.3f} to {row.interval[1]:.3f}",
        "" if std is None else f"{std:.4f}",
        _p(row.vs_best) or "best",
        _p(row.vs_bm25),
        "" if row.seconds is None else f"{row.seconds:,.0f}",
        # What the doctor found, and in how many of the runs if not in all.
        ", ".join(f"{name} ({n} of {runs})" if n < runs else name for name, n in counts.most_common()),
    ]


def _all_metrics(board: Leaderboard) -> Table:
    metrics, rows = list(board.rows[0].means), list[list[str]]()
    for row in board.rows:
        stds = {m: row.std(m) for m in metrics if m in row.means}
        cells = {m: f"{row.means[m]:.4f}" + ("" if std is None else f" ± {std:.4f}") for m, std in stds.items()}
        rows.append([row.name, *(cells.get(m, "") for m in metrics)])
    if board.bm25:
        rows.append(["BM25", *(f"{board.bm25[m]:.4f}" if m in board.bm25 else "" for m in metrics)])
    return Table(["configuration", *metrics], rows)


def _new_passages(board: Leaderboard) -> list[Block]:
    """How well passages are found that were kept out of training, where some were."""
    columns, rows = {NAMES[group]: f"_{group}/{board.metric}" for group in GROUPS}, list[list[str]]()
    for row in board.rows:
        for name, system in ((row.name, "val"), ("  BM25 on the same", "bm25")):
            figures = [row.figure(system + key) for key in columns.values()]
            if any(figure is not None for figure in figures):
                rows.append([name, *("" if figure is None else f"{figure:.4f}" for figure in figures)])
    if not rows:
        return []
    about = f"{board.metric} of the queries whose passages were learned from (seen), and of those whose passages were "
    about += "kept out of training (unseen); these are ranked once more among the new passages only."
    return [Heading("New passages"), about, Table(["configuration", *columns], rows)]


def _query_by_query(comparison: Comparison, metric: str) -> list[Block]:
    a, b = comparison.a, comparison.b
    counts = f"better on {comparison.wins:,} queries, worse on {comparison.losses:,}, equal on {comparison.ties:,}."
    blocks: list[Block] = [
        Heading(f"{a} against {b}, query by query"),
        f"By {metric}, {a} is {counts}",
        differences(comparison),
    ]
    for title, examples in (("Clearest wins", comparison.won), ("Clearest losses", comparison.lost)):
        texts = [each.text if len(each.text) <= 100 else each.text[:99] + "…" for each in examples]
        rows = [[e.query, text, f"{e.a:.3f}", f"{e.b:.3f}"] for e, text in zip(examples, texts, strict=True)]
        if examples:
            blocks += [Heading(title, 3), Table(["query", "text", a, b], rows, left=2)]
    return blocks


def _p(test: PValue | None) -> str:
    if test is None:
        return ""
    return "< 0.0001" if test.holm < 1e-4 else f"{test.holm:.2g}"


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
    """A line for each run, a colour for each name; only the first eight names. ``level``: BM25's value."""
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
