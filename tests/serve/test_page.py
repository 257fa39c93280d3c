"""The search page in a real browser: type, see results, compare, keys, a narrow screen, hostile passages."""

import shutil
from collections.abc import Iterator
from itertools import pairwise

import pytest
from conftest import word
from serve.serving import Service, served

from two_tower.serve import Runs

for package in ("fastapi", "prometheus_client"):
    pytest.importorskip(package, reason="needs the service: pip install -e '.[serve]'")
playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install -e '.[browser]'")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium")

QUERY = f"{word(1000)} {word(1001)}"


@pytest.fixture(scope="module")
def service(runs: Runs) -> Iterator[Service]:
    with served(runs) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser: playwright.Browser, service: Service) -> Iterator[playwright.Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    opened = context.new_page()
    opened.set_default_timeout(15_000)
    problems, asked = list[str](), list[str]()
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(service.url)
    opened.wait_for_selector("#ways input")
    yield opened
    assert [problem for problem in problems if "status of 422" not in problem] == []
    assert all(url.startswith(service.url) for url in asked)
    context.close()


def until(page: playwright.Page, what: str) -> None:
    """Wait; Playwright's own way evaluates within the page, which its policy forbids."""
    for _ in range(150):
        if page.evaluate(what):
            return
        page.wait_for_timeout(100)
    raise AssertionError(what)


def search(page: playwright.Page, query: str) -> None:
    page.fill("#query", query)
    page.keyboard.press("Enter")
    until(page, "document.title.startsWith(document.getElementById('query').value)")
    until(page, "!document.getElementById('status').textContent.startsWith('Searching')")


def titles(page: playwright.Page) -> list[str]:
    return [heading.rsplit(" ", 2)[0] for heading in page.locator("h2").all_inner_texts()]


def test_results_stand_beside_bm25(page: playwright.Page, service: Service) -> None:
    assert page.locator("#query").evaluate("e => e === document.activeElement")
    search(page, QUERY)
    assert titles(page) == ["first", "second", "BM25"]
    for column, (run, mode) in enumerate([("first", "dense"), ("second", "dense"), ("first", "bm25")]):
        hits = service.ask(f"/search?q={QUERY.replace(' ', '+')}&run={run}&mode={mode}")[1]["hits"]
        items = page.locator("section").nth(column).locator("li")
        assert items.count() == len(hits) > 0
        for item, hit in zip(items.all(), hits, strict=True):
            assert item.locator(".rank").inner_text() == str(hit["rank"])
            assert item.locator(".score").inner_text() == f"{hit['score']:.3f}"
            assert item.locator(".text").text_content() == hit["text"]
            assert item.locator("mark").count() == len(hit["marks"]) + len(hit["title_marks"])
    assert set() < set(page.locator(".text mark").all_text_contents()) <= set(QUERY.split())
    assert "are in every column" in page.inner_text("#status")
    one = page.locator("section").first.locator("li").first
    twin = page.locator("section").last.locator(f"li[data-id='{one.get_attribute('data-id')}']")
    assert f"BM25: {twin.locator('.rank').inner_text()}" in one.locator(".facts").inner_text()
    one.hover()
    assert "same" in (twin.get_attribute("class") or "")


def test_what_is_compared_can_be_chosen_kept_and_gone_back_to(page: playwright.Page) -> None:
    search(page, QUERY)
    page.get_by_role("checkbox", name="second", exact=True).uncheck()
    page.get_by_role("checkbox", name="first + BM25").check()
    until(page, "document.querySelectorAll('h2').length === 3")
    page.wait_for_selector("section[aria-label='first + BM25'] li")
    assert (chosen := titles(page)) == ["first", "BM25", "first + BM25"]
    page.reload()
    page.wait_for_selector("main li")
    assert titles(page) == chosen
    assert page.input_value("#query") == QUERY
    search(page, word(5))
    page.go_back()
    until(page, f"document.title.startsWith('{QUERY}')")
    assert page.input_value("#query") == QUERY


def test_keys_are_enough(page: playwright.Page) -> None:
    focused = "document.activeElement.dataset.id ?? document.activeElement.id"
    search(page, QUERY)
    columns = [[li.get_attribute("data-id") for li in s.locator("li").all()] for s in page.locator("section").all()]
    for key, expected in (
        ("ArrowDown", columns[0][0]), ("j", columns[0][1]), ("ArrowRight", columns[1][1]), ("k", columns[1][0]),
        ("ArrowLeft", columns[0][0]), ("ArrowUp", "query"), ("ArrowDown", columns[0][0]), ("/", "query"),
    ):  # fmt: skip
        page.keyboard.press(key)
        assert page.evaluate(focused) == expected, key
    assert page.input_value("#query") == QUERY
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator("li.whole").count() == 1
    page.keyboard.press("Escape")
    page.keyboard.type("bababa")
    assert page.input_value("#query") == "bababa"


def test_a_narrow_screen_shows_a_column_at_a_time(page: playwright.Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    search(page, QUERY)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    boxes = [section.bounding_box() for section in page.locator("section").all()]
    assert all(270 <= box["width"] <= 330 for box in boxes), boxes
    assert all(right["x"] >= left["x"] + left["width"] for left, right in pairwise(boxes))
    for item in page.locator("section").first.locator("li").all():
        assert item.bounding_box()["width"] <= boxes[0]["width"] + 1
    page.locator("section").last.scroll_into_view_if_needed()
    assert page.locator("section").last.bounding_box()["x"] < 60


def test_it_is_dark_where_the_system_is(page: playwright.Page) -> None:
    def brightness(selector: str, what: str) -> float:
        color = page.eval_on_selector(selector, f"e => getComputedStyle(e).{what}")
        return sum(map(float, color.strip("rgba()").split(",")[:3])) / 3

    search(page, QUERY)
    for scheme, dark in (("light", False), ("dark", True)):
        page.emulate_media(color_scheme=scheme)
        for selector in ("body", "li", "#query", "mark"):
            ground, text = brightness(selector, "backgroundColor"), brightness(selector, "color")
            assert (ground < text) is dark, (scheme, selector)
            assert abs(ground - text) > 90, (scheme, selector)


def test_passages_with_markup_appear_as_text(page: playwright.Page) -> None:
    page.evaluate("() => { window.bad = () => { window.ran = true } }")
    search(page, "zazuzu <img src=x onerror=bad()>")
    texts = "\n".join(page.locator("main li").all_text_contents())
    for shown in (
        "<b>id</b>", "<i>zazuzu</i>", "<script>bad()</script> 𝒳 zazuzu", "<img src=x onerror=bad()> &lt;b&gt;",
        "</title>", "</li></ol><form>",
    ):  # fmt: skip
        assert shown in texts
    assert page.locator("main img, main script, main form, main i, main b").count() == 0
    assert page.evaluate("window.ran") is None
    hit = page.locator("section").last.locator("li", has_text="𝒳").first
    marks = hit.locator(".text mark").all_text_contents()
    assert marks == ["zazuzu", "bad", "𝒳", "zazuzu"]  # right beyond the Basic Plane, too


def test_fields_are_facts_links_are_http_and_texts_run_in_their_direction(page: playwright.Page) -> None:
    fields = [
        {"Link": "https://example.org/<b>", "lang": "de", "views": 3, "empty": None, "by": "<img src=x>"},
        {"url": "javascript:window.ran = true", "source": "http://example.org"}, {"url": " javascript:x"}, {},
    ]  # fmt: skip
    no_marks = {"title_marks": [], "marks": []}
    hits = [
        {"rank": i, "id": f"d{i}", "score": 1, "title": title, "text": "שלום עולם", "fields": its, **no_marks}
        for i, (title, its) in enumerate(zip(["مرحبا", "", "plain", ""], fields, strict=True))
    ]
    reply = {"query": "", "hits": hits, "notes": [], "run": "first", "mode": "dense"}
    page.route("**/search?*", lambda route: route.fulfill(json=reply))
    search(page, "שלום")
    items = page.locator("section").first.locator("li")
    facts = [item.locator(".field").all_text_contents() for item in items.all()]
    bad = "url: javascript:window.ran = true"
    assert facts == [["lang: de", "views: 3", "by: <img src=x>"], [bad], ["url:  javascript:x"], []]
    links = [(a.get_attribute("href"), a.text_content(), a.get_attribute("rel")) for a in items.locator("a").all()]
    assert links == [
        ("https://example.org/<b>", "مرحبا", "noopener"), ("http://example.org", "http://example.org", "noopener"),
    ]  # fmt: skip
    for selector in ("#query", "main h3 >> nth=0", "main .text >> nth=0"):
        assert page.locator(selector).evaluate("e => getComputedStyle(e).direction") == "rtl", selector
    assert items.nth(2).locator("h3").evaluate("e => getComputedStyle(e).direction") == "ltr"


def test_notes_and_problems_are_shown(page: playwright.Page) -> None:
    search(page, "xyzzy")
    assert "No word of 'xyzzy' is in the vocabulary" in page.inner_text("section:first-child")
    page.fill("#k", "1000")
    page.evaluate("document.getElementById('form').noValidate = true")
    search(page, QUERY)
    page.wait_for_selector("section .note")
    assert "k: input should be less than or equal to 100" in page.inner_text("main")
