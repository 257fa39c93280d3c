"""The documentation as a site: built without a warning, every link leads somewhere, nothing comes from elsewhere."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from conftest import ROOT
from markdown_it import MarkdownIt

from website.links import pages

for package in ("material", "mkdocstrings"):
    pytest.importorskip(package, reason="needs MkDocs: pip install -e '.[docs]'")

LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "object": "data"}
# Elements that a reader would miss.
COUNTED = ("h1", "h2", "h3", "h4", "table", "th", "li", "pre", "img", "blockquote")


class Html(HTMLParser):
    """Elements, anchors, links and the article's text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links, self.loaded, self.ids = list[str](), list[str](), set[str]()
        self.counts, self.words = Counter[str](), list[str]()
        self._skipped = ""  # the element that is being left out
        self._in_article = "<article" not in text
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.ids |= {values["id"]} if "id" in values else set()
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if values.get(LOADED.get(tag, "")):
            self.loaded.append(values[LOADED[tag]])
        self._in_article |= tag == "article"
        if "headerlink" in values.get("class", ""):
            self._skipped = tag
        self.counts[tag] += self._in_article

    def handle_endtag(self, tag: str) -> None:
        self._in_article &= tag != "article"
        self._skipped = "" if tag == self._skipped else self._skipped

    def handle_data(self, data: str) -> None:
        if self._in_article and not self._skipped:
            self.words.append(data)

    @property
    def text(self) -> str:
        """The article's text without blanks, which code in tables keeps differently."""
        return re.sub(r"\s", "", "".join(self.words))


@cache
def parsed(path: Path) -> Html:
    return Html(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert (built.returncode, built.stdout, built.stderr) == (0, "", "")
    return folder


def broken(site: Path) -> list[str]:
    """What pages link to or show that is not there."""
    wrong = []
    for path in sorted(site.rglob("*.html")):
        page = parsed(path)
        for link in (*page.links, *page.loaded):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            start = site if parts.path.startswith("/") else path.parent  # 404.html is shown anywhere
            target = (start / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            there = target.exists() and (not parts.fragment or unquote(parts.fragment) in {"", *parsed(target).ids})
            wrong += [] if there else [f"{path.relative_to(site)}: {link}"]
    return wrong


def foreign(site: Path) -> list[str]:
    """What pages load from elsewhere, whatever the address is written like."""
    found = [link for path in site.rglob("*.html") for link in parsed(path).loaded if urlsplit(link).netloc]
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    return found + [url for url in re.findall(r"url\(\s*['\"]?([^)'\"]+)", styles) if urlsplit(url).netloc]


def test_every_link_leads_somewhere(site: Path) -> None:
    assert broken(site) == []
    assert sum(len(parsed(path).links) for path in site.rglob("*.html")) > 5000


def test_nothing_comes_from_elsewhere(site: Path) -> None:
    assert foreign(site) == []


def test_what_is_wrong_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="b.html#x">b</a><a href="#y">y</a><img src="c.png"><a href="/a.html">a</a>'
    )
    (tmp_path / "b.html").write_text(
        '<h1 id="z">b</h1><script src="//example.org/x.js"></script><a href="d.html">d</a>'
    )
    (tmp_path / "x.css").write_text("@font-face { src: url('https://example.org/x.woff') }")
    assert broken(tmp_path) == ["a.html: b.html#x", "a.html: #y", "a.html: c.png", "b.html: d.html"]
    assert foreign(tmp_path) == ["//example.org/x.js", "https://example.org/x.woff"]


@pytest.mark.parametrize("source", pages(), ids=lambda path: path.name)
def test_a_page_says_what_it_says_on_github(source: Path, site: Path) -> None:
    html = parsed(site / f"{'index' if source.name == 'README.md' else source.stem}.html")
    text = re.sub(r"<!--.*?-->", "", source.read_text(encoding="utf-8"))
    github = Html(MarkdownIt("gfm-like", {"linkify": False}).render(text))
    assert html.text == github.text
    assert {tag: html.counts[tag] for tag in COUNTED} == {tag: github.counts[tag] for tag in COUNTED}


def test_every_module_has_its_place(site: Path) -> None:
    ids = {anchor for path in (site / "api").glob("*.html") for anchor in parsed(path).ids}
    public = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "two_tower").rglob("*.py")
        if path.stem == "__init__" or not path.stem.startswith("_")
    }
    assert public - {"two_tower"} <= ids
    assert {"two_tower.tower.base.WordTable.pool", "two_tower.loss.base.LossInput", "two_tower.metrics.Qrels"} <= ids
    assert not [anchor for anchor in ids if re.search(r"two_tower(\.\w+)*\._", anchor)]


def test_the_search_knows_the_pages(site: Path) -> None:
    documents = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))["docs"]
    known: dict[str, str] = {}
    for document in documents:
        page = document["location"].partition("#")[0]
        known[page] = known.get(page, "") + document["title"] + document["text"]
    assert "hardest_negative_collapse" in known["doctor.html"]
    assert "tower.token_dropout" in known["configuration.html"]
    assert "Weighted mean of each text's vectors" in known["api/two_tower.tower.html"]
    assert {path.relative_to(site).as_posix() for path in site.rglob("*.html")} - {"404.html"} <= {*known}


@pytest.fixture
def page(site: Path) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install -e '.[browser]'")
    chromium = shutil.which("chromium") or pytest.skip("needs Debian's package chromium")
    problems, asked = list[str](), list[str]()
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_context(color_scheme="dark").new_page()
        opened.on("pageerror", lambda error: problems.append(str(error)))
        opened.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        opened.on("request", lambda request: asked.append(request.url))
        opened.goto((site / "index.html").as_uri())
        yield opened
        browser.close()
    assert problems == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def test_it_can_be_read_and_searched_from_the_disk(page: Any) -> None:  # noqa: ANN401
    assert page.evaluate("document.body.dataset.mdColorScheme") == "slate"
    page.click("text=When it goes wrong")
    page.wait_for_url(re.compile("/doctor.html$"))
    page.fill("input.md-search__input", "hardest_negative_collapse")
    page.click(".md-search-result__item a[href*='/doctor.html?h=hardest']")
    page.wait_for_url(re.compile(r"/doctor.html\?h=hardest"))
    assert page.locator("mark").count()
