"""What MkDocs cannot do by itself: the README as home, pages of the API, Markdown as GitHub reads it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "two_tower"
# The first lets the search work where the pages are opened as files.
ASSETS = ("assets/iframe-worker.js", "assets/site.css")


class Api(NamedTuple):
    """A page of the API: a folder of the package, or the modules that docs/architecture.md names together."""

    uri: str
    modules: list[Path]
    about: str = ""

    @property
    def title(self) -> str:
        """What it is called in the navigation."""
        folder = self.modules[0].parent
        return ", ".join(path.stem for path in self.modules) if folder == PACKAGE else _name(folder)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of the API into the navigation, and leave out pages that do not exist."""
    config.nav = list(_existing(config.nav or [], Path(config.docs_dir)))
    return config


def _existing(entries: list, docs: Path) -> Iterator[dict]:
    for entry in entries:
        ((title, value),) = entry.items()
        if value == "api/index.md":
            yield {title: [value, *({page.title: page.uri} for page in api_pages())]}
        elif isinstance(value, list):
            yield {title: list(_existing(value, docs))}
        elif value == "index.md" or (docs / value).exists():
            yield entry


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README, the API and what the search needs."""
    pages = {"index.md": (ROOT / "README.md").read_text(encoding="utf-8"), "api/index.md": api_index()}
    pages |= {page.uri: api_page(page) for page in api_pages()}
    for uri, content in pages.items():
        files.append(File.generated(config, uri, content=content))
    for uri in ASSETS:
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / "website" / Path(uri).name)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Links from the README and to it, and pipes within code in tables, which GitHub wants escaped."""
    if page.file.src_uri == "index.md":
        markdown = markdown.replace("](docs/", "](")
    lines = markdown.replace("](../README.md", "](index.md").split("\n")
    return "\n".join(_without_escapes(line) if line.startswith("|") else line for line in lines)


def _without_escapes(line: str) -> str:
    return re.sub(r"`[^`]*`", lambda code: code[0].replace("\\|", "|"), line)


def _rows() -> Iterator[tuple[list[Path], str]]:
    """The table of docs/architecture.md: files and folders of a row, and what it says of them."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for line in page.partition("| --- | --- |\n")[2].partition("\n\n")[0].splitlines():
        names, about = line.strip("| ").split(" | ", maxsplit=1)
        yield [PACKAGE / name for name in re.findall(r"`([^`]+)`", names)], about


def api_pages() -> list[Api]:
    """All pages, in the order of docs/architecture.md, from the ground up."""
    pages = list[Api]()
    for paths, about in _rows():
        files = [path for path in paths if path.is_file()]
        if files:
            pages.append(Api(f"api/two_tower.{files[0].stem}.md", files, about))
        for folder in (path for path in paths if path.is_dir()):
            inner = sorted(path.parent for path in folder.rglob("__init__.py"))
            abouts = dict.fromkeys(inner, "") | {folder: about}  # those within say themselves what they are
            pages += [Api(f"api/two_tower.{_name(each)}.md", _modules(each), abouts[each]) for each in inner]
    return pages


def _modules(folder: Path) -> list[Path]:
    """The modules of a folder: itself, what its choices have in common, its choices."""
    public = [path for path in folder.glob("*.py") if not path.stem.startswith("_")]
    return [folder / "__init__.py", *sorted(public, key=lambda path: (path.stem != "base", path.stem))]


def _name(path: Path) -> str:
    """``tower.base`` for two_tower/tower/base.py."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def api_index() -> str:
    """The table of docs/architecture.md, with links."""
    head = "# API\n\nWhat each part of the package offers, from the ground up.\n"
    rows = (f"| [{page.title}]({page.uri.removeprefix('api/')}) | {_beside(page.about)} |" for page in api_pages())
    return "\n".join([head, "| module | what it does |", "| --- | --- |", *rows])


def api_page(page: Api) -> str:
    """A page whose texts mkdocstrings takes from the docstrings."""
    parts = [f"# {page.title}", _beside(page.about)]
    for path in page.modules:
        parts.append(f"::: two_tower.{_name(path)}")
        if path.stem == "__init__":  # what it only passes on stands below
            parts[-1] += f"\n    options:\n      members: {_defined(path) or 'false'}"
    return "\n\n".join(parts) + "\n"


def _beside(text: str) -> str:
    """A text of docs/architecture.md as it is in a subfolder."""
    return text.replace("](", "](../")


def _defined(path: Path) -> list[str]:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    names = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return [name for name in names if not name.startswith("_")]
