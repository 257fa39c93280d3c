"""What a page consists of, and how it is written: as Markdown, as HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple, TypeAlias

from two_tower.plot import Picture


class Heading(NamedTuple):
    """The title of a section."""

    text: str
    level: int = 2


class Table(NamedTuple):
    """Cells of plain text; the first ``left`` columns are words, the others numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1


Block: TypeAlias = Heading | Table | Picture | str  # text is a paragraph; Markdown has no pictures


def markdown(blocks: Iterable[Block]) -> str:
    """A page as Markdown, which has no pictures."""
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


def html(block: Block) -> str:
    """A block as an element of HTML."""
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
