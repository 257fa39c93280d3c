"""The search page in a real browser: type, see results, compare, keys, a narrow screen, hostile passages."""

from itertools import pairwise

from conftest import word
from serve.browsing import QUERY, Page, answer_with, search, settled, until
from serve.serving import Service


def compare(page: Page, query: str) -> None:
    search(page, query)
    page.get_by_role("button", name="Compare").click()
    settled(page)


def titles(page: Page) -> list[str]:
    return [heading.rsplit(" ", 2)[0] for heading in page.locator("main h2").all_inner_texts()]


def test_results_stand_beside_bm25(page: Page, service: Service) -> None:
    compare(page, QUERY)
    assert titles(page) == ["first", "second", "BM25"]
    for column, (run, mode) in enumerate([("first", "dense"), ("second", "dense"), ("first", "bm25")]):
        hits = service.ask(f"/search?q={QUERY.replace(' ', '+')}&run={run}&mode={mode}")[1]["hits"]
        items = page.locator("section").nth(column).locator("li")
        assert items.count() == len(hits) > 0
        for item, hit in zip(items.all(), hits, strict=True):
            assert item.locator(".rank").inner_text() == str(hit["rank"])
            assert item.locator(".score").inner_text() == f"{hit['score']:.3f}"
            assert item.locator(".text").text_content() == hit["text"]
            assert item.locator(".text mark, h3 mark").count() == len(hit["marks"]) + len(hit["title_marks"])
    assert set() < set(page.locator(".text mark").all_text_contents()) <= set(QUERY.split())
    assert "are in every column" in page.inner_text("#status")
    one = page.locator("section").first.locator("li").first
    twin = page.locator("section").last.locator(f"li[data-id='{one.get_attribute('data-id')}']")
    assert f"BM25: {twin.locator('.rank').inner_text()}" in one.locator(".facts").inner_text()
    one.hover()
    assert "same" in (twin.get_attribute("class") or "")


def test_what_is_compared_can_be_chosen_kept_and_gone_back_to(page: Page) -> None:
    compare(page, QUERY)
    page.get_by_role("checkbox", name="second", exact=True).uncheck()
    page.get_by_role("checkbox", name="first + BM25").check()
    until(page, "document.querySelectorAll('main h2').length === 3")
    page.wait_for_selector("section[aria-label='first + BM25'] li")
    assert (chosen := titles(page)) == ["first", "BM25", "first + BM25"]
    page.reload()
    page.wait_for_selector("#columns li")
    assert titles(page) == chosen
    assert page.input_value("#query") == QUERY
    search(page, word(5))
    page.go_back()
    until(page, f"document.title.startsWith('{QUERY}')")
    assert page.input_value("#query") == QUERY
    page.get_by_role("button", name="Compare").click()
    page.wait_for_selector("section[aria-label='Results'] li")
    assert page.locator("section").count() == 1
    page.go_back()
    page.wait_for_selector("section[aria-label='first + BM25'] li")
    assert titles(page) == chosen


def test_addresses_of_earlier_pages_still_lead_to_columns(page: Page, service: Service) -> None:
    page.goto(f"{service.url}/?q={QUERY.replace(' ', '+')}&k=10&in=second&in=first%3Abm25")
    page.wait_for_selector("#columns li")
    assert titles(page) == ["second", "BM25"]


def test_keys_are_enough(page: Page) -> None:
    focused = "document.activeElement.dataset.id ?? document.activeElement.id"
    compare(page, QUERY)
    columns = [
        [li.get_attribute("data-id") for li in s.locator("li[data-id]").all()] for s in page.locator("section").all()
    ]
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


def test_a_narrow_screen_shows_a_column_at_a_time(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    compare(page, QUERY)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    boxes = [section.bounding_box() for section in page.locator("section").all()]
    assert all(270 <= box["width"] <= 330 for box in boxes), boxes
    assert all(right["x"] >= left["x"] + left["width"] for left, right in pairwise(boxes))
    for item in page.locator("section").first.locator("li").all():
        assert item.bounding_box()["width"] <= boxes[0]["width"] + 1
    page.locator("section").last.scroll_into_view_if_needed()
    assert page.locator("section").last.bounding_box()["x"] < 60


def test_it_is_dark_where_the_system_is(page: Page) -> None:
    def brightness(selector: str, what: str) -> float:
        color = page.eval_on_selector(selector, f"e => getComputedStyle(e).{what}")
        return sum(map(float, color.strip("rgba()").split(",")[:3])) / 3

    search(page, QUERY)
    for scheme, dark in (("light", False), ("dark", True)):
        page.emulate_media(color_scheme=scheme)
        for selector in ("body", "#query", "mark", "pre"):
            ground, text = brightness(selector, "backgroundColor"), brightness(selector, "color")
            assert (ground < text) is dark, (scheme, selector)
            assert abs(ground - text) > 90, (scheme, selector)


def test_passages_with_markup_appear_as_text(page: Page) -> None:
    page.evaluate("() => { window.bad = () => { window.ran = true } }")
    compare(page, "zazuzu <img src=x onerror=bad()>")
    texts = "\n".join(page.locator("#columns li").all_text_contents())
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


def test_fields_are_facts_links_are_http_and_texts_run_in_their_direction(page: Page) -> None:
    fields = [
        {"Link": "https://example.org/<b>", "lang": "de", "views": 3, "empty": None, "by": "<img src=x>"},
        {"url": "javascript:window.ran = true", "source": "http://example.org"}, {"url": " javascript:x"}, {},
    ]  # fmt: skip
    titles = ["مرحبا", "", "plain", ""]
    hits = [{"title": title, "text": "שלום עולם", "fields": its} for title, its in zip(titles, fields, strict=True)]
    answer_with(page, *hits)
    compare(page, "שלום")
    items = page.locator("section").first.locator("li")
    facts = [item.locator(".field").all_text_contents() for item in items.all()]
    bad = "url: javascript:window.ran = true"
    assert facts == [["lang: de", "views: 3", "by: <img src=x>"], [bad], ["url:  javascript:x"], []]
    links = [(a.get_attribute("href"), a.text_content(), a.get_attribute("rel")) for a in items.locator("a").all()]
    assert links == [
        ("https://example.org/<b>", "مرحبا", "noopener"), ("http://example.org", "example.org", "noopener"),
    ]  # fmt: skip
    for selector in ("#query", "main h3 >> nth=0", "main .snippet >> nth=0"):
        assert page.locator(selector).evaluate("e => getComputedStyle(e).direction") == "rtl", selector
    assert items.nth(2).locator("h3").evaluate("e => getComputedStyle(e).direction") == "ltr"


def test_notes_and_problems_are_shown(page: Page) -> None:
    search(page, "xyzzy")
    page.get_by_role("button", name="Compare").click()
    settled(page)
    assert "No word of 'xyzzy' is in the vocabulary" in page.inner_text("section:first-child")
    page.get_by_role("button", name="Filter").click()
    page.fill("#k", "1000")
    page.evaluate("document.getElementById('form').noValidate = true")
    search(page, QUERY)
    page.wait_for_selector("section .note")
    assert "k: input should be less than or equal to 100" in page.inner_text("main")
