"""A service over two small runs, and a real browser for its page."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serve.serving import Service, served
from test_train import fit
from training import embedded

from two_tower.search import Searcher
from two_tower.serve import Runs

HOSTILE = r"""
{"_id": "<b>id</b>", "title": "<i>zazuzu</i>", "text": "zazuzu <script>bad()</script> 𝒳 zazuzu"}
{"_id": "m2", "title": "", "text": "zazuzu <img src=x onerror=bad()> &lt;b&gt; \u0000"}
{"_id": "m3", "title": "</title>", "text": "javascript:bad() zazuzu </li></ol><form>"}
"""


@pytest.fixture(scope="session")
def run_folders(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two embedded runs over one corpus, of which three passages hold markup."""
    folder = tmp_path_factory.mktemp("serve")
    hostile = shutil.copytree(collection, folder / "collection")
    with (hostile / "corpus.jsonl").open("a", encoding="utf-8") as corpus:
        corpus.write(HOSTILE.lstrip())
    paths = []
    for name, overrides in (("first", ()), ("second", ("tower=gru", "tower.dim=12"))):
        fit(hostile, folder / name, *overrides)
        paths.append(embedded(folder / name))
    return paths


@pytest.fixture(scope="session")
def runs(run_folders: list[Path]) -> Runs:
    loaded = Runs(map(Searcher.load, run_folders))
    loaded.warm()
    return loaded


@pytest.fixture(scope="module")
def service(runs: Runs) -> Iterator[Service]:
    for package in ("fastapi", "prometheus_client"):
        pytest.importorskip(package, reason="needs the service: pip install -e '.[serve]'")
    with served(runs) as running:
        yield running


@pytest.fixture(scope="module")  # no longer: no other event loop may run beside Playwright's
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install -e '.[browser]'")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Debian's package chromium")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Any, service: Service) -> Iterator[Any]:  # noqa: ANN401
    """The search page, which may neither fail nor ask any other server for anything."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    opened = context.new_page()
    opened.set_default_timeout(15_000)
    problems, asked = list[str](), list[str]()
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(service.url)
    opened.wait_for_selector("#way option", state="attached")
    yield opened
    assert [problem for problem in problems if "status of 422" not in problem] == []
    assert all(url.removeprefix("blob:").startswith(service.url) for url in asked)
    context.close()
