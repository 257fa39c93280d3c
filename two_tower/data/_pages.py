"""Files that people write for people, as Markdown: text, Markdown, HTML and PDF."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from two_tower.data.reading.content import chunks, kind_of, opened
from two_tower.errors import UserError, first_line

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag
    from pypdf import PdfReader

TEXT = (".md", ".markdown", ".txt", ".text", ".rst")
HTML = (".html", ".htm", ".xhtml")
PDF = (".pdf",)
KINDS = (*TEXT, *HTML, *PDF)

_FRONT_MATTER = re.compile(r"\A---\n(.*?\n)?---\n", re.DOTALL)
_LINK = re.compile(r"(?<!\\)!?\[((?:[^\[\]\\]|\\.)*)\](?:\((?:[^()\\]|\\.|\([^()]*\))*\)|\[[^\]]*\])")
_DEFINITION = re.compile(r"^ {0,3}\[[^\]]+\]: \S+.*$", re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
# What surrounds the text of a web page; a form, too.
_AROUND = (
    "script",
    "style",
    "noscript",
    "template",
    "nav",
    "header",
    "footer",
    "aside",
    "form",
    "svg",
    "iframe",
    "button",
)
_HEADING = re.compile("^h[1-6]$")
_HYPHEN, _WRAPPED = re.compile(r"(?<=\w)-\n(?=[a-zß-ÿ])"), re.compile(r"(?<=\S)\n(?=\S)")


class Page(NamedTuple):
    """A document, or a page of one."""

    title: str  # of the document; "" where it says none
    markdown: str
    place: str = ""  # within the document, as an address has it behind the ``#``
    heading: str = ""  # of the chapter that the page is in


def pages(path: Path) -> list[Page]:
    """The text of a file of one of `KINDS`; a UserError says why there is none."""
    if kind_of(path) in PDF:
        return list(_pdf(path))
    if kind_of(path) in HTML:
        with opened(path) as file:
            return [_html(file.read())]
    text = b"".join(chunks(path)).decode(errors="replace")
    return [_markdown(text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", ""))]


def _markdown(text: str) -> Page:
    """Links become their words: where they lead to is nothing to search for."""
    title, front = "", _FRONT_MATTER.match(text)
    if front and (found := re.search(r"^title:[ \t]*(\S.*)$", front[1] or "", re.MULTILINE)):
        title = found[1].strip().strip("\"'")
    text = _COMMENT.sub("", text[front.end() :] if front else text)
    return Page(title, _DEFINITION.sub("", _LINK.sub(r"\1", text)))


def _html(content: bytes) -> Page:
    """The main part of a web page, in whatever encoding it says that it is."""
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    soup = BeautifulSoup(content, "html.parser")
    title = soup.title.get_text(" ", strip=True) if soup.title else ""
    body = soup.find("main") or soup.find(None, {"role": "main"}) or soup.find("article") or soup.body or soup
    for tag in body.find_all([*_AROUND]):
        tag.decompose()
    for heading in body.find_all(_HEADING):
        _keep_anchor(heading, soup)
    converter = MarkdownConverter(
        heading_style="ATX", strip=["a", "img"], escape_misc=False, escape_underscores=False, escape_asterisks=False
    )
    markdown = converter.convert_soup(body)
    return Page(title, re.sub(r"[ \t]+$", "", markdown, flags=re.MULTILINE))


def _keep_anchor(heading: Tag, soup: BeautifulSoup) -> None:
    """Write a heading's anchor behind it, as Markdown has it: ``## Title {#anchor}``."""
    named = heading.find(id=True) or heading.find("a", attrs={"name": True})
    anchors = [heading.get("id"), named and (named.get("id") or named.get("name"))]
    outer = heading.find_parent("section")
    if outer is not None and outer.find(_HEADING) is heading:
        anchors.append(outer.get("id"))
    for sign in heading.find_all("a"):
        if len(sign.get_text(strip=True)) <= 1:  # ¶ or #
            sign.decompose()
    if anchor := next(filter(None, anchors), None):
        heading.append(soup.new_string(f" {{#{anchor}}}"))


def _pdf(path: Path) -> Iterator[Page]:
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # of each small fault of a file
    try:
        with opened(path) as file:
            reader = PdfReader(io.BytesIO(file.read()))
        if reader.is_encrypted and not reader.decrypt(""):
            raise UserError(f"{path} is locked with a password")
        title = str((reader.metadata and reader.metadata.title) or "").strip()
        chapters = dict(sorted(_chapters(reader)))
        heading = ""
        for number, page in enumerate(reader.pages):
            heading = chapters.get(number, heading)
            yield Page(title, _unwrapped(page.extract_text() or ""), f"page={number + 1}", heading)
    except (PyPdfError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise UserError(f"{path} is no PDF that can be read ({first_line(error)})") from error


def _chapters(reader: PdfReader) -> Iterator[tuple[int, str]]:
    """The number of a page and the last heading that begins on it, by the outline."""

    def walk(items: list[Any]) -> Iterator[tuple[int, str]]:
        for item in items:
            if isinstance(item, list):
                yield from walk(item)
            elif (number := reader.get_destination_page_number(item)) is not None and number >= 0:
                yield number, str(item.title).strip()

    try:
        yield from walk(reader.outline)
    except Exception:  # outlines are often damaged, and only a help
        return


def _unwrapped(text: str) -> str:
    """Words that a line's end has cut are whole again, and lines of a paragraph one line; blank lines stay."""
    return _WRAPPED.sub(" ", _HYPHEN.sub("", re.sub(r"[ \t]+", " ", text)))
