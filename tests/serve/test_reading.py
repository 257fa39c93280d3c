"""The page for readers: one column of the best mode, snippets, Markdown, pages, documents of the disk."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from serve.browsing import QUERY, Page, answer_with, search, settled, until
from serve.serving import Service, served

from two_tower.serve import Runs


def html(page: Page, text: str, **fields: str) -> str:
    """A text as the page shows it once it is opened."""
    answer_with(page, {"text": text, "fields": fields})
    search(page, "question")
    return page.locator("#columns .text").inner_html()


def test_the_empty_page_invites(page: Page, service: Service) -> None:
    assert page.locator("#query").evaluate("e => e === document.activeElement")
    assert page.inner_text("#welcome p >> nth=0") == "Search 243 passages with first, second."
    examples = service.ask("/runs")[1][0]["examples"]
    assert page.locator("#welcome a").all_inner_texts() == examples
    page.locator("#welcome a").nth(1).click()
    page.wait_for_selector("#columns li")
    assert page.input_value("#query") == examples[1]
    assert not page.locator("#welcome").is_visible()
    page.get_by_role("link", name="Two-tower search").click()
    page.wait_for_selector("#welcome a")
    assert page.input_value("#query") == ""


def test_it_opens_in_one_column_of_the_best_mode(page: Page, service: Service) -> None:
    best = service.ask("/runs")[1][0]["best"]
    assert best == "bm25"  # which knows one passage of these words; the towers were trained for seconds
    search(page, QUERY)
    hits = service.ask(f"/search?q={QUERY.replace(' ', '+')}&mode={best}")[1]["hits"]
    shown = page.locator("#columns li")
    assert [item.get_attribute("data-id") for item in shown.all()] == [hit["id"] for hit in hits]
    assert page.locator("section").count() == 1
    assert page.inner_text("#status").startswith("1 passage in ")
    assert urlsplit(page.url).query == f"q={QUERY.replace(' ', '+')}"
    facts = shown.first.locator("dl")
    assert not facts.is_visible()
    shown.first.get_by_text("Details").click()
    assert facts.inner_text().split("\n")[:6] == [
        "rank", "1 by BM25", "score", f"{hits[0]['score']:.3f}", "id", hits[0]["id"],
    ]  # fmt: skip


def test_another_mode_more_passages_and_filters_are_in_the_address(page: Page, service: Service) -> None:
    search(page, QUERY)
    assert not page.locator("#filter").is_visible()
    page.select_option("#way", label="second + BM25")
    page.get_by_role("button", name="More results").click()
    until(page, "document.querySelectorAll('#columns li').length === 20")
    page.get_by_role("button", name="Filter").click()
    page.fill("#filter", "views>2 and lang=de")
    page.keyboard.press("Enter")
    settled(page)
    assert parse_qs(urlsplit(page.url).query) == {
        "q": [QUERY], "k": ["20"], "filter": ["views>2", "lang=de"], "in": ["second:hybrid"],
    }  # fmt: skip
    assert "No passage has a field views" in page.inner_text("#columns")
    page.reload()
    settled(page)
    assert page.input_value("#filter") == "views>2 and lang=de"
    assert page.locator("#filter").is_visible()
    assert page.input_value("#way") == "second:hybrid"
    page.goto(f"{service.url}/?q=bababa&in=gone&k=100")
    page.wait_for_selector("#columns li")
    assert page.input_value("#way") in ("first", "first:bm25", "first:hybrid")
    assert not page.get_by_role("button", name="More results").is_visible()  # the service gives no more


def test_a_snippet_shows_where_the_words_are(page: Page) -> None:
    filler, middle = "Nothing of it is here. " * 40, "The old \U0001d4b3 harbour has a lighthouse."
    text = f"{filler}harbour. {filler}{middle} {filler}"
    marks = []
    for found in ("harbour", "harbour", "lighthouse"):
        start = text.index(found, marks[-1][1] if marks else 0)
        marks.append([start, start + len(found)])
    answer_with(page, {"text": text, "marks": marks}, {"text": "short"}, {"text": "ab" * 500})
    search(page, "harbour lighthouse")
    snippet, short, endless = page.locator(".snippet").all()
    assert middle in snippet.inner_text()
    assert snippet.locator("mark").all_inner_texts() == ["harbour", "lighthouse"]
    assert 60 < len(snippet.inner_text()) < 200
    assert snippet.inner_text().startswith("…\u00a0") and snippet.inner_text().endswith("…")  # noqa: PT018
    assert short.inner_text() == "short"
    assert len(endless.inner_text()) < 200
    item = page.locator("#columns li").first
    opener = item.get_by_role("button", name="Whole text")
    assert opener.get_attribute("aria-expanded") == "false"
    snippet.click()
    assert opener.get_attribute("aria-expanded") == "true"
    assert item.locator(".text").text_content() == text
    assert item.locator(".text mark").all_inner_texts() == ["harbour", "harbour", "lighthouse"]
    assert not snippet.is_visible()
    opener.click()
    assert snippet.is_visible()


MARKDOWN = {
    "**bold**, *italic*, _too_, ~~gone~~ and `co*d*e`":
        "<p><strong>bold</strong>, <em>italic</em>, <em>too</em>, <s>gone</s> and <code>co*d*e</code></p>",
    "snake_case_name 2 * 3 * 4 \\*not\\* **open":
        "<p>snake_case_name 2 * 3 * 4 *not* **open</p>",
    "# One\ntext\n## Two ##\nThree\n-----":
        "<h4>One</h4><p>text</p><h4>Two</h4><h4>Three</h4>",
    "a\n\n```sh\nls <x>\n\n# no heading\n```\nb":
        "<p>a</p><pre><code>ls &lt;x&gt;\n\n# no heading</code></pre><p>b</p>",
    "a:\n\n    code **x**\n\n      more\n\nb":
        "<p>a:</p><pre><code>code **x**\n\n  more</code></pre><p>b</p>",
    "- a\n- b\n  - c\n- d":
        "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>",
    "3. a\n4. b\n   c":
        '<ol start="3"><li>a</li><li>b\nc</li></ol>',
    "- a\n\n- b":
        "<ul><li><p>a</p></li><li><p>b</p></li></ul>",
    "> *a*\n> > b\n\nc":
        "<blockquote><p><em>a</em></p><blockquote><p>b</p></blockquote></blockquote><p>c</p>",
    "a\n\n***\nb":
        "<p>a</p><hr><p>b</p>",
    "| a | `b` |\n| --- | ---: |\n| **1** | x \\| y |\n| 2 |":
        "<table><thead><tr><th>a</th><th><code>b</code></th></tr></thead>"
        "<tbody><tr><td><strong>1</strong></td><td>x | y</td></tr><tr><td>2</td></tr></tbody></table>",
    "<b>a</b> <script>bad()</script> &lt; <!-- b -->":
        "<p>&lt;b&gt;a&lt;/b&gt; &lt;script&gt;bad()&lt;/script&gt; &amp;lt; &lt;!-- b --&gt;</p>",
    "a | b\n> c\n1986\\. d":
        "<p>a | b</p><blockquote><p>c</p></blockquote><p>1986. d</p>",
    "a  \nb":
        "<p>a  <br>b</p>",
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), MARKDOWN.items())
def test_markdown_is_rendered(page: Page, text: str, expected: str) -> None:
    assert html(page, text, document="guide/a.md") == expected


def test_links_of_markdown_lead_to_the_web_only(page: Page) -> None:
    text = """
[web](https://example.org/a_(b)) [by `code`](http://example.org "title")
<https://example.org/x> https://example.org/y.
[script](javascript:window.ran=true) [data](data:text/html,x) [file](file:///etc/passwd) [mail](mailto:a@b.c)
[here](#part) [there](../other.md) ![picture](https://example.org/p.png)
[a]b](c) [JAVA](JaVaScRiPt:x) [tab](java\tscript:x)
"""
    html(page, text, url="https://docs.example.org/guide/install.md#linux")
    links = page.locator("#columns .text a").evaluate_all("all => all.map(a => [a.text, a.getAttribute('href')])")
    assert links == [
        ["web", "https://example.org/a_(b)"], ["by code", "http://example.org/"],
        ["https://example.org/x", "https://example.org/x"], ["https://example.org/y", "https://example.org/y"],
        ["here", "https://docs.example.org/guide/install.md#part"], ["there", "https://docs.example.org/other.md"],
        ["picture", "https://example.org/p.png"],
    ]  # fmt: skip
    assert "script data file mail" in page.locator("#columns .text").inner_text()
    assert page.locator("#columns .text img").count() == 0
    assert page.evaluate("window.ran") is None


def test_marks_show_in_markdown(page: Page) -> None:
    text = "## \U0001d4b3 one\n\n- **two** `three`\n  fo*ur*"
    words = ("one", "two", "three", "fo*u")
    marks = [[text.index(each), text.index(each) + len(each)] for each in words]
    answer_with(page, {"text": text, "marks": marks})
    search(page, "question")
    assert page.locator("#columns .text").inner_html() == (
        "<h4>\U0001d4b3 <mark>one</mark></h4><ul><li><strong><mark>two</mark></strong> "
        "<code><mark>three</mark></code>\n<mark>fo</mark><em><mark>u</mark>r</em></li></ul>"
    )
    assert page.locator(".snippet").inner_html() == (
        "\U0001d4b3 <mark>one</mark> <mark>two</mark> <mark>three</mark> <mark>fo</mark><mark>u</mark>r"
    )


def test_texts_that_are_no_markdown_stay_as_they_are(page: Page) -> None:
    for text in (
        "f(*args, **kwargs) and __init__(**options) give a * b", "x = a[0](b)\n# a comment\nreturn x", "1. one\n- two",
    ):  # fmt: skip
        assert html(page, text).replace("&amp;", "&") == text
    assert html(page, "## Heading\ntext") == "<h4>Heading</h4><p>text</p>"
    assert html(page, "see [this](https://example.org)").startswith("<p>see <a")


PIECES = ("*", "**a ", "[", "![a](", "`", "_a", "<https://", "\\", "[a](b", "~~", "\n> ", "\n- ", "\n|", "\n>>>>>>>>>")


@pytest.mark.parametrize("piece", PIECES)
def test_no_text_is_too_much_for_it(page: Page, piece: str) -> None:
    """Neither time nor depth grows with what a text opens and never closes."""
    text = "a" + piece * (20_000 // len(piece))
    html(page, text, document="a.md")
    shown = page.locator("#columns .text").text_content()
    assert shown.startswith("a")
    assert piece[0] in "\\\n" or len(shown) > 4_000


def test_passages_of_a_page_stand_together(page: Page) -> None:
    pages = [
        {"url": "https://example.org/a#x"}, {"url": "https://example.org/b"}, {"url": "https://example.org/a#y"},
        {"document": "m.pdf"}, {}, {"document": "m.pdf"}, {}, {"url": "https://example.org/a"},
    ]  # fmt: skip
    answer_with(page, *({"title": f"t{i}", "text": "x", "fields": its} for i, its in enumerate(pages, 1)))
    search(page, "question")
    ids = "all => all.map(item => item.dataset.id)"
    assert page.locator("section > ol > li").evaluate_all(ids) == ["d1", "d2", "d4", "d5", "d7"]
    more = page.locator("#columns .more > summary")
    assert more.all_inner_texts() == ["2 more from this page", "1 more from this page"]
    hidden = page.locator("li[data-id=d3]")
    assert not hidden.is_visible()
    for key, expected in (("ArrowDown", "d1"), ("j", "d2")):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.dataset.id") == expected
    more.first.click()
    assert hidden.is_visible()
    assert page.locator("li[data-id=d1] li").evaluate_all(ids) == ["d3", "d8"]
    page.locator("#query").focus()
    for expected in ("d1", "d3", "d8", "d2"):
        page.keyboard.press("ArrowDown")
        assert page.evaluate("document.activeElement.dataset.id") == expected
    assert page.locator("li[data-id=d2] .place").inner_text() == "example.org › b"


@pytest.fixture
def with_files(runs: Runs, tmp_path: Path) -> Iterator[Service]:
    (tmp_path / "my guide").mkdir()
    (tmp_path / "my guide" / "ü#1.md").write_text("# Linux")
    with served(runs, files=tmp_path) as service:
        yield service


def test_documents_are_linked_where_they_are_served(with_files: Service, page: Page, tmp_path: Path) -> None:
    inside = f"{(tmp_path / 'my guide' / 'ü#1.md').as_uri()}#linux"
    addresses = [
        inside, f"{tmp_path.as_uri()}/manual.pdf#page=3", "file:///etc/passwd", f"{tmp_path.as_uri()}/../x.md",
        f"{tmp_path.as_uri()}-2/x.md", f"file://host{tmp_path}/x.md", f"{tmp_path.as_uri()}/%2e%2e/x.md",
        "javascript:bad()", f"{tmp_path.as_uri()}/%",
    ]  # fmt: skip
    context = page.context
    other = context.new_page()
    other.goto(with_files.url)
    other.wait_for_selector("#way option", state="attached")
    titles = {inside: "The guide › On-Linux"}
    answer_with(
        other,
        *({"title": titles.get(a, a), "text": "[next](other.md)", "fields": {"url": a}} for a in addresses),
    )
    search(other, "question")
    links = other.locator("#columns h3 a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    assert links == ["files/my%20guide/%C3%BC%231.md#linux:~:text=On%2DLinux", "files/manual.pdf#page=3"]
    assert other.locator(".place").all_inner_texts()[:2] == ["my guide › ü#1.md", "manual.pdf › page 3"]
    texts = other.locator(".text a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    assert texts == ["files/my%20guide/other.md", "files/other.md", "files/other.md"]
    with context.expect_page() as opened:
        other.locator("#columns h3 a").first.click()
    opened.value.wait_for_load_state()
    assert opened.value.inner_text("body") == "# Linux"
    answer_with(page, {"title": "t", "text": "x", "fields": {"url": inside}})  # by the service that serves no files
    search(page, "question")
    assert page.locator("#columns h3 a").count() == 0
    assert opened.value.url.startswith(with_files.url)
    other.unroute_all()
    opened.value.close()
    other.close()
