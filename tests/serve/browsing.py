"""What tests of the search page do in a browser."""

from typing import Any

import pytest
from conftest import word

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install -e '.[browser]'")
Page = playwright.Page

QUERY = f"{word(1000)} {word(1001)}"


def until(page: Page, what: str) -> None:
    """Wait; Playwright's own way evaluates within the page, which its policy forbids."""
    for _ in range(150):
        if page.evaluate(what):
            return
        page.wait_for_timeout(100)
    raise AssertionError(what)


def settled(page: Page) -> None:
    """Wait for the answers to the question that the page shows."""
    until(page, "document.title.startsWith(document.getElementById('query').value)")
    until(page, "!document.getElementById('status').textContent.startsWith('Searching')")


def search(page: Page, query: str) -> None:
    page.fill("#query", query)
    page.keyboard.press("Enter")
    settled(page)


def reply(*hits: dict[str, Any], notes: tuple[str, ...] = ()) -> dict[str, Any]:
    """An answer of the service with such passages, of which only the texts need be said."""
    usual = {"score": 1.5, "title": "", "text": "", "title_marks": [], "marks": [], "fields": {}}
    found = [{"rank": rank, "id": f"d{rank}", **usual, **hit} for rank, hit in enumerate(hits, 1)]
    return {"query": "", "hits": found, "notes": list(notes), "run": "first", "mode": "dense"}


def answer_with(page: Page, *hits: dict[str, Any]) -> None:
    """From now on every search finds these."""
    page.route("**/search?*", lambda route: route.fulfill(json=reply(*hits)))
