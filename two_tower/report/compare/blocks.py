"""Titles, paragraphs, tables and pictures, written as Markdown or as HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

from two_tower.report.compare.plots import COLOURS, STYLE

__all__ = ["Block", "Heading", "Paragraph", "Plot", "Table", "html", "markdown"]


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


def markdown(blocks: Iterable[Block]) -> str:
    """Markdown whose tables are aligned, so that a terminal shows it as well; without pictures."""
    return "\n\n".join(filter(None, map(_markdown, blocks))) + "\n"


def html(blocks: Iterable[Block], title: str) -> str:
    """One HTML document; it loads nothing from elsewhere."""
    body = "\n".join(map(_html, blocks))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{COLOURS}{_STYLE}{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


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
