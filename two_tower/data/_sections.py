"""Markdown cut into passages of sensible length: at headings, between paragraphs, at the ends of sentences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

_ANCHOR = re.compile(r"\s*\{:?\s*#([^\s}]+)[^}]*\}\s*$")
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？।])\s*")
_DENSE = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")  # no blanks between words
_NOT_IN_ANCHORS = re.compile(r"[^\w\- ]")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
# Tags that stand within Markdown; others may be meant, as ``<NAME>`` is.
_INLINE_TAG = re.compile(r"</?(?:a|b|br|div|em|i|img|kbd|p|small|span|strong|sub|sup|u)(?:\s[^<>]*)?/?>", re.IGNORECASE)


class Section(NamedTuple):
    """A passage of a document."""

    headings: tuple[str, ...]  # under which it stands, the outermost first
    anchor: str  # of the innermost, as in an address; "" before the first heading
    part: int  # 0 for the first passage under a heading
    text: str  # Markdown


class _Block(NamedTuple):
    text: str
    level: int = 0  # of a heading, 1 to 6
    anchor: str = ""
    lines: bool = False  # whether its lines mean something: of a list, a table, code


def length(text: str) -> int:
    """About how many words a text has; two letters of a script without blanks are one."""
    rest, letters = _DENSE.subn(" ", text)
    return len(rest.split()) + letters // 2


def sections(markdown: str, most: int) -> Iterator[Section]:
    """The passages of a document, of at most about ``most`` words.

    A heading begins a new one. Anchors are GitHub's, where a heading has none of its own.
    """
    path: list[_Block] = []  # the headings above
    kept: list[str] = []
    part = words = 0

    def close() -> Iterator[Section]:
        nonlocal part, words
        if text := "\n\n".join(kept).strip("\n"):  # blanks in front are code
            yield Section(tuple(h.text for h in path), path[-1].anchor if path else "", part, text)
            part += 1
        kept.clear()
        words = 0

    for block in _blocks(markdown):
        if block.level:
            yield from close()
            while path and path[-1].level >= block.level:
                path.pop()
            path.append(block)
            part = 0
            continue
        for piece in _pieces(block.text, most, block.lines):
            if kept and words + length(piece) > most:
                yield from close()
            kept.append(piece)
            words += length(piece)
    yield from close()


def _blocks(markdown: str) -> Iterator[_Block]:
    """The blocks of the outermost level."""
    lines, seen = markdown.split("\n"), Counter[str]()
    tokens = _parser().parse(markdown)
    for i, token in enumerate(tokens):
        if token.level or token.map is None or token.nesting < 0 or token.type == "hr":
            continue
        if token.type == "heading_open":
            words = "".join(
                child.content if child.type in ("text", "code_inline") else " "
                for child in tokens[i + 1].children or ()
                if child.type in ("text", "code_inline", "softbreak")
            )
            named = _ANCHOR.search(words)
            words = " ".join(_ANCHOR.sub("", words).split())
            if words:
                yield _Block(words, int(token.tag[1]), named[1] if named else _anchor(words, seen))
            continue
        text = "\n".join(lines[token.map[0] : token.map[1]]).strip("\n")
        if token.type == "html_block":
            text = _TAG.sub("", text).strip()
        elif token.type not in ("fence", "code_block"):
            text = _INLINE_TAG.sub("", text)
        if text.strip():
            yield _Block(text, lines=token.type != "paragraph_open")


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable("table")


def _anchor(heading: str, seen: Counter[str]) -> str:
    """As GitHub makes it; the second of a name gets ``-1``."""
    name = _NOT_IN_ANCHORS.sub("", heading.lower()).replace(" ", "-")
    seen[name] += 1
    return f"{name}-{seen[name] - 1}" if seen[name] > 1 else name


def _pieces(text: str, most: int, lines: bool) -> Iterator[str]:
    """A block in pieces of at most ``most`` words: of whole lines, or of sentences."""
    if length(text) <= most:
        yield text
    elif lines and "\n" in text:
        for group in _packed(text.split("\n"), most, "\n"):
            yield from _pieces(group, most, lines=False)
    else:
        sentences = (part for part in _SENTENCE_END.split(" ".join(text.split())) if part)
        yield from _packed((short for sentence in sentences for short in _cut(sentence, most)), most, " ")


def _cut(sentence: str, most: int) -> Iterator[str]:
    """A sentence, in parts of ``most`` words where it has more; letters where there are no blanks."""
    if length(sentence) <= most:
        yield sentence
        return
    words = sentence.split()
    if len(words) > 1:
        yield from _packed((part for word in words for part in _cut(word, most)), most, " ")
    else:
        yield from (sentence[i : i + 2 * most] for i in range(0, len(sentence), 2 * most))


def _packed(parts: Iterable[str], most: int, between: str) -> Iterator[str]:
    """Consecutive parts joined as long as they have no more than ``most`` words."""
    kept: list[str] = []
    words = 0
    for part in parts:
        if kept and words + length(part) > most:
            yield between.join(kept)
            kept, words = [], 0
        kept.append(part)
        words += length(part)
    if kept:
        yield between.join(kept)
