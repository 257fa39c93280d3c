"""The passages of documents and tables as rows, and the queries that are made of them."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from two_tower.data import _pages
from two_tower.data._sections import length, sections
from two_tower.data.base import FIELDS, Source
from two_tower.data.pairs import PairsSource
from two_tower.data.passages import Passages
from two_tower.data.reading import names, table_files
from two_tower.errors import UserError

log = logging.getLogger(__name__)

_QUESTION = re.compile(r"[?？؟]\W*$")
_FIRST_SENTENCE = re.compile(r"[^\s#>|`*\-+\d].{20,300}?(?:[.!?…](?=\s)|[。！？।])", re.DOTALL)

Row = dict[str, str]


class NoText(UserError):
    """A table that holds something else."""


def document_rows(path: Path, relative: str, most: int) -> Iterator[Row]:
    """The passages of a document."""
    for page in _pages.pages(path):
        above = [" ".join(title.split()) for title in (page.title or _spoken(path), page.heading) if title]
        for section in sections(page.markdown, most):
            parts = [part for part in (relative, page.place or section.anchor) if part]
            place = "#".join(parts)
            outer = above if page.title or not section.headings else above[1:]
            titles = dict.fromkeys([*outer, *section.headings])  # a document's title is usually its first heading too
            yield {
                "id": f"{place}:{section.part + 1}" if section.part else place,
                "title": " › ".join(titles), "text": section.text, "link": "#".join(map(_quoted, parts)),
                "heading": section.headings[-1] if section.headings else "", "section": place,
                "part": str(section.part or ""),
            }  # fmt: skip


def table_rows(path: Path, relative: str) -> Iterator[Row]:
    """The rows of a table: passages, or questions with their answers."""
    columns = table_files.open_table(path).schema.names
    question = names.first_of(names.QUERY, columns)
    if question and names.first_of(names.POSITIVE, [name for name in columns if name != question]):
        pairs, asked = PairsSource(path), defaultdict[str, list[str]](list)
        for split in pairs.splits():
            texts = dict(zip(*pairs.queries(split).to_pydict().values(), strict=True))
            for query, passage, _ in zip(*pairs.qrels(split).to_pydict().values(), strict=True):
                asked[passage].append(texts[query])
        source: Source = pairs
    elif names.first_of(names.TEXT, columns):
        source, asked = Passages(path), defaultdict(list)
    else:
        raise NoText(f"{path} has no column that is called like a text ({', '.join(names.TEXT[:5])} …)")
    for batch in source.search_corpus():
        for row in batch.to_pylist():
            query = next(iter(asked[row["id"]]), "")
            title, kind = row["title"], "question" if query else ""
            yield {
                "id": f"{relative}#{row['id']}", "title": title or query, "text": row["text"],
                "link": _quoted(relative), "fields": row.get(FIELDS, ""), "own_title": title,
                "query": query, "kind": kind,
            }  # fmt: skip


def _quoted(part: str) -> str:
    return quote(part, safe="/=~:.-_")


def _spoken(path: Path) -> str:
    """A file's name as a title."""
    return re.sub(r"[-_]+", " ", path.stem).strip()


def distinct(rows: Sequence[Row]) -> list[Row]:
    """Rows without copies (the same words under the same heading); ids that occur again get a number."""
    kept = {(row.get("heading", row["title"]), " ".join(row["text"].split())): row for row in reversed(rows)}
    seen, distinct = Counter[str](), list(reversed(kept.values()))
    for row in distinct:
        seen[row["id"]] += 1
        if seen[row["id"]] > 1:
            row["id"] = f"{row['id']}~{seen[row['id']]}"
    if len(distinct) < len(rows):
        log.info("%s passages are copies of others and were left out.", f"{len(rows) - len(distinct):,}")
    return distinct


def ask(rows: list[Row]) -> list[Row]:
    """Give passages a query where they have none, and hold that back from what is trained on.

    The first passage of a section gets its heading, where no other section has the same; others their first sentence.
    """
    sections_of = defaultdict[str, set[str]](set)
    for row in rows:
        sections_of[_same(row.get("heading", ""))].add(row.get("section", ""))
    taken = {row["query"] for row in rows if row.get("query")}
    for row in rows:
        row |= {"own_title": row.get("own_title", row["title"]), "own_text": row["text"]}
        heading, asks = row.get("heading", ""), _QUESTION.search(row.get("heading", ""))
        told = heading and len(sections_of[_same(heading)]) == 1 and (asks or length(heading) > 1)
        if told:
            row["own_title"] = row["title"].removesuffix(heading).removesuffix(" › ")
        if row.get("query"):
            continue
        if told and not row["part"] and heading not in taken:
            row |= {"query": heading, "kind": "question" if asks else "heading"}
        elif found := _FIRST_SENTENCE.match(row["text"]):
            sentence, rest = " ".join(found[0].split()), row["text"][found.end() :].strip()
            if length(sentence) >= 5 and length(rest) >= 20 and sentence not in taken:
                row |= {"query": sentence, "kind": "sentence", "own_text": rest}
        taken.add(row.get("query", ""))
    return rows


def _same(heading: str) -> str:
    return " ".join(heading.casefold().split())
