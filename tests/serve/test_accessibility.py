"""The search page against WCAG 2.1 A and AA as axe-core checks them, and what it cannot check: keys and their place."""

import pytest
from serve.browsing import QUERY, Page, answer_with, search, settled, until

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-core: pip install -e '.[browser]'")

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"], "resultTypes": ["violations"]}
TEXT = """
## Install

Use **pip** and [read on](https://example.org/a), `or not`:

    pip install it

| a | b |
| --- | --- |
| 1 | 2 |

> - one
> - two
"""


def empty(page: Page) -> None:
    page.wait_for_selector("#welcome a")


def results(page: Page) -> None:
    fields = {"url": "https://example.org/guide/install.md#linux", "lang": "de"}
    marks = [[TEXT.index("pip"), TEXT.index("pip") + 3]]
    other = {"title": "Other", "text": "plain " * 100, "fields": {"url": "https://example.org/guide/install.md"}}
    answer_with(page, {"title": "Install", "text": TEXT, "fields": fields, "marks": marks}, other, {"text": "x" * 300})
    search(page, "pip")


def everything_open(page: Page) -> None:
    results(page)
    page.get_by_role("button", name="Filter").click()
    page.get_by_role("button", name="Judge").click()
    for opener in page.get_by_role("button", name="Whole text").all():
        opener.click()
    for summary in page.locator("#columns summary").all():
        if summary.is_visible():
            summary.click()
    page.keyboard.press("ArrowDown")
    page.locator("[data-grade='1']").first.click()
    page.locator("[data-grade='0']").last.click()


def columns(page: Page) -> None:
    search(page, QUERY)
    page.get_by_role("button", name="Compare").click()
    settled(page)
    page.get_by_role("button", name="Judge").click()
    page.locator("#columns li").first.hover()


def notes(page: Page) -> None:
    search(page, "xyzzy")


def problem(page: Page) -> None:
    page.get_by_role("button", name="Filter").click()
    page.fill("#filter", "nonsense")
    search(page, QUERY)


def keys(page: Page) -> None:
    search(page, QUERY)
    page.get_by_role("button", name="Keys and help").click()


def export(page: Page) -> None:
    everything_open(page)
    page.get_by_role("button", name="Export").click()


STATES = (empty, results, everything_open, columns, notes, problem, keys, export)


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", STATES)
def test_axe_finds_nothing(page: Page, state: object, scheme: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    state(page)
    found = axe.Axe().run(page, options=RULES)
    assert len(found.response["passes"]) > 10
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_axe_would_find_something(page: Page) -> None:
    page.evaluate("() => { document.getElementById('query').removeAttribute('aria-label') }")
    page.evaluate("() => { document.getElementById('query').removeAttribute('placeholder') }")
    page.evaluate("() => { document.body.append(document.createElement('img')) }")
    found = {violation["id"] for violation in axe.Axe().run(page, options=RULES).response["violations"]}
    assert {"label", "image-alt"} <= found


def test_tab_reaches_all_and_letters_can_be_keys_no_more(page: Page) -> None:
    results(page)
    reached = []
    page.locator("#query").focus()
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim()"))
    assert [each for each in reached if each in ("Search", "Filter", "Compare", "Judge", "?")] == [
        "Search", "Filter", "Compare", "Judge", "?",
    ]  # fmt: skip
    assert {"Install", "Whole text", "Details", "1 more from this page"} <= set(reached)
    page.keyboard.press("?")
    page.wait_for_selector("#help[open]")
    page.keyboard.press("j")  # the dialog has the keyboard
    assert page.evaluate("document.activeElement.closest('dialog') !== null")
    page.get_by_role("checkbox", name="Letters and signs").uncheck()
    page.keyboard.press("Escape")
    until(page, "!document.querySelector('dialog[open]')")
    page.evaluate("document.activeElement.blur()")
    for key in ("?", "/", "j"):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement === document.body"), key
        assert page.locator("dialog[open]").count() == 0
    page.reload()
    page.wait_for_selector("#columns li")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement === document.body")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.id")
