"""``python -m benchmarks.fill``: write the documents and pictures, or parts of them, that are made from something else.

What was measured is stored in docs/data; the settings are in conf/; the notebook says what the tutorial says.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks import growth_page, load_page, rates_page, tables
from benchmarks.experiments import EXPERIMENTS
from benchmarks.tables import ROOT
from two_tower.files import write_text
from website import configuration, links
from website.notebook import notebook

#: Files and what they must hold, given what they do.
WRITTEN: dict[str, Callable[[str], str]] = {
    **{name: lambda text: tables.filled(text, tables.stored(), EXPERIMENTS) for name in tables.PAGES},
    "docs/scale.md": lambda text: growth_page.filled(text, growth_page.stored()),
    "docs/scale.svg": lambda _: growth_page.picture(growth_page.stored()),
    "docs/benchmarks.md": lambda text: rates_page.filled(text, rates_page.stored()),
    "docs/benchmarks.svg": lambda _: rates_page.picture(rates_page.stored()["rows"]),
    "docs/serve.md": lambda text: load_page.filled(text, load_page.stored()),
    "docs/configuration.md": lambda _: configuration.page(),
    "website/links.txt": lambda _: links.listed(),
}
if (TUTORIAL := ROOT / "docs" / "tutorial.md").exists():
    WRITTEN["docs/tutorial.ipynb"] = lambda _: notebook(TUTORIAL.read_text(encoding="utf-8"))


def read(name: str, root: Path = ROOT) -> str:
    """What a file holds, nothing where there is none."""
    path = root / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


def fill() -> None:
    """Write all files."""
    for name, written in WRITTEN.items():
        write_text(ROOT / name, written(read(name)))


if __name__ == "__main__":
    fill()
