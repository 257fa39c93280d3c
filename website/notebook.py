"""A notebook of a page: text, commands and Python in their order; what commands printed is left out.

Blocks marked ``sh`` become cells with ``!`` before the command, blocks marked ``python`` cells as they are, and blocks
marked ``text``, outputs, are dropped. What is only shown stays text: indented blocks, and blocks with a command that
changes the shell (``source``, ``cd``), which is for a terminal.
"""

from __future__ import annotations

import json
import re
from typing import Any

# Notebooks start in their own folder, with whatever programs the terminal had.
START = """# From the project's folder, with the programs of this notebook's Python
import os
import sys
from pathlib import Path

here = Path.cwd()
os.chdir(next(folder for folder in (here, *here.parents) if (folder / "train.py").exists()))
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])"""
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```[^\n]*\n?", re.MULTILINE | re.DOTALL)
# Each cell has a shell of its own, which these would change for nothing.
_OF_SHELLS = re.compile(r"^(?:\$ )?(?:cd|export|set|source|unset|\.) ", re.MULTILINE)

Cells = list[dict[str, Any]]


def notebook(page: str) -> str:
    """The notebook, JSON of nbformat 4.5, of a Markdown page."""
    cells, end = Cells(), 0
    for block in _FENCE.finditer(page):
        kind, content = block.groups()
        if kind in _MADE_OF and not (kind == "sh" and _OF_SHELLS.search(content)):
            cells += _texts(page[end : block.start()]) + _MADE_OF[kind](content)
            end = block.end()
    cells += _texts(page[end:])
    first = next((place for place, cell in enumerate(cells) if cell["cell_type"] == "code"), len(cells))
    cells[first:first] = _code(START)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {
        "cells": [{"id": f"cell-{number}", **cell} for number, cell in enumerate(cells)],
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _texts(text: str) -> Cells:
    lines = text.strip("\n").rstrip().splitlines(keepends=True)  # what is indented stays so
    return [{"cell_type": "markdown", "metadata": {}, "source": lines}] if lines else []


def _code(source: str) -> Cells:
    lines = source.strip("\n").splitlines(keepends=True)
    return [{"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": lines}]


def _commands(block: str) -> Cells:
    """A cell for each command, with the comments above it, so that one that fails is seen at its place."""
    cells, comments = Cells(), list[str]()
    for line in re.sub(r"\\\n\s*", "", block).splitlines():
        if line.startswith("#"):
            comments.append(line)
        elif line.strip():
            command = line.removeprefix("$ ").replace("{", "{{").replace("}", "}}")  # IPython fills in single ones
            cells += _code("\n".join([*comments, f"!{command}"]))
            comments = []
    return cells


_MADE_OF = {"sh": _commands, "python": _code, "text": lambda _: Cells()}
