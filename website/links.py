"""Links of the documents as GitHub resolves them: files, anchors and addresses elsewhere."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
_ADDRESS = re.compile(r"https?://")
_SHOWN = re.compile(r"https://[^\s<>()\"'`,;]+")


def pages(root: Path = ROOT) -> list[Path]:
    """README.md and the pages of docs/."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def slug(heading: str) -> str:
    """The anchor of a heading, given its text."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: str) -> set[str]:
    """The anchors of a Markdown page; of equal headings the second gets ``-1``, the third ``-2``."""
    tokens, found, seen = _parsed(page), set[str](), Counter[str]()
    for token, inline in pairwise(tokens):
        if token.type == "heading_open":
            words = (child.content for child in inline.children or [] if child.type in ("text", "code_inline"))
            name = slug("".join(words))
            found.add(f"{name}-{seen[name]}" if seen[name] else name)
            seen[name] += 1
    return found


def links(page: str) -> list[str]:
    """Where the links and pictures of a Markdown page point to, as written."""
    found = (token.attrGet({"a": "href", "img": "src"}.get(token.tag, "")) for token in _leaves(page))
    return [str(target) for target in found if target]


def addresses(page: str) -> set[str]:
    """The addresses elsewhere that a page links to or shows; not those in code."""
    shown = " ".join(token.content for token in _leaves(page) if token.type == "text")
    found = {*filter(_ADDRESS.match, links(page)), *_SHOWN.findall(shown)}
    return {address.rstrip(".:") for address in found}


def broken(path: Path) -> list[str]:
    """The links of a page that lead to no file, or to no heading in it."""
    wrong = []
    for link in links(path.read_text(encoding="utf-8")):
        if _ADDRESS.match(link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = path.parent / name if name else path
        if not target.exists():
            wrong.append(f"{path.name}: {link}: no such file")
        elif anchor and anchor not in anchors(target.read_text(encoding="utf-8")):
            wrong.append(f"{path.name}: {link}: no such heading")
    return wrong


def listed() -> str:
    """All addresses elsewhere, one a line."""
    found = {address for path in pages() for address in addresses(path.read_text(encoding="utf-8"))}
    return "".join(f"{address}\n" for address in sorted(found))


def _parsed(page: str) -> list[Token]:
    return MarkdownIt("gfm-like", {"linkify": False}).parse(page)


def _leaves(page: str) -> Iterator[Token]:
    return (child for token in _parsed(page) for child in token.children or [])
