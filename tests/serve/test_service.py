"""The API answers as search does, refuses what it should in a sentence, and nothing brings it down."""

import json
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from urllib.parse import quote

import pytest
from forked import forked
from serve.serving import Service, served
from training import WithFields, indexed

from two_tower.errors import UserError
from two_tower.files import file_hash
from two_tower.run import Run
from two_tower.search import Answer, Searcher, by_name, load_searchers
from two_tower.serve import Limits, Runs, SearchParams, serve

for package in ("fastapi", "prometheus_client"):
    pytest.importorskip(package, reason="needs the service: pip install -e '.[serve]'")

LIMITS = Limits(body=2000, characters=300, k=20, seconds=5, queue=64, batch=8)


@pytest.fixture(scope="module")
def service(runs: Runs) -> Iterator[Service]:
    with served(runs, LIMITS) as running:
        yield running


@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_get_and_post_answer_as_search_does(service: Service, run_folders: list[Path], mode: str) -> None:
    query = "zazuzu bababa"
    (expected,) = Searcher.load(run_folders[1]).search([query], 5, mode)
    status, got, headers = service.ask(f"/search?q={quote(query)}&k=5&run=second&mode={mode}")
    body = json.dumps({"query": query, "k": 5, "run": "second", "mode": mode})
    assert (200, got) == (status, service.ask("/search", body)[1])
    assert headers["content-type"] == "application/json"
    assert (got["query"], got["run"], got["mode"], got["notes"]) == (query, "second", mode, expected.notes)
    scores = [hit.pop("score") for hit in got["hits"]]
    assert scores == pytest.approx([hit.score for hit in expected.hits], abs=1e-6)
    wanted = json.loads(json.dumps([vars(hit) for hit in expected.hits]))
    assert got["hits"] == [{key: value for key, value in hit.items() if key != "score"} for hit in wanted]
    assert any(hit["marks"] for hit in got["hits"])


def test_mistakes_get_a_sentence(service: Service) -> None:
    for path, body, status, detail in (
        ("/search", None, 422, "q: field required"),
        ("/search?q=a&k=21", None, 422, "k: input should be less than or equal to 20"),
        ("/search?q=a&run=frist", None, 422, "run=frist is not served here; did you mean 'first'?"),
        ("/search?q=a&mode=bm52", None, 422, "mode=bm52 does not exist here; did you mean 'bm25'?"),
        ("/search?q=" + "a" * 301, None, 422, "q: string should have at most 300 characters"),
        ("/search", '{"query": "a", "top_k": 5}', 422, "top_k: extra inputs are not permitted"),
        ("/search", '{"query": "a", "k": NaN}', 422, "k: input should be a finite number"),
        ("/search", '{"query": "\\ud800"}', 422, "query: input should be a valid string"),
        ("/search", '["a"]', 422, "The body must be a JSON object"),
        ("/search", "{", 422, "The body is not JSON"),
        ("/search", '{"query": "' + "a" * 3000 + '"}', 413, "The request's body is larger than 2,000 bytes"),
        ("/../../etc/passwd", None, 404, "Not Found"),
    ):
        got, answer, _ = service.ask(path, body)
        assert (got, answer["detail"][: len(detail)]) == (status, detail)


def test_nothing_that_is_served_may_run_or_load_anything_else(service: Service) -> None:
    from two_tower.serve.app import PAGE_FILES

    assert {"/", "/page.js", "/page.css", "/markdown.js"} <= set(PAGE_FILES)
    for path in (*PAGE_FILES, "/openapi.json", "/search?q=zazuzu", "/nothing"):
        status, text, headers = service.ask(path)
        assert status == (404 if path == "/nothing" else 200)
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["x-content-type-options"] == "nosniff"
        assert not re.search("https?://", str(text).replace('xmlns="http://www.w3.org/2000/svg"', ""))


def test_facts_notes_and_defaults(service: Service) -> None:
    assert service.ask("/search?q=%20")[1]["notes"] == ["The query is empty."]
    unknown = service.ask("/search?q=xyzzy")[1]
    assert (unknown["hits"], "No word of 'xyzzy'" in unknown["notes"][0]) == ([], True)
    defaults = service.ask("/search?q=bababa")[1]
    assert (defaults["run"], defaults["mode"], len(defaults["hits"])) == ("first", "dense", 10)
    assert list(defaults["hits"][0])[:5] == ["rank", "id", "score", "title", "text"]
    health = service.ask("/health")[1]
    assert (health["status"], health["runs"]) == ("ok", ["first", "second"])
    assert {name: index["passages"] for name, index in health["indexes"].items()} == {"first": 243, "second": 243}
    first, second = service.ask("/runs")[1]
    assert (first["name"], first["passages"], first["index"]) == ("first", 243, "flat")
    assert first["corpus"] == second["corpus"]
    assert second["modes"] == ["dense", "bm25", "hybrid"]
    assert (second["max_k"], second["files"], len(second["examples"])) == (20, [], 3)
    api = service.ask("/openapi.json")[1]
    assert {"/search", "/health", "/metrics", "/runs"} == set(api["paths"])
    assert api["components"]["schemas"]["Question"]["properties"]["k"]["maximum"] == 20
    service.ask("/no/such/page")
    text, counts = service.ask("/metrics")[1], 'two_tower_requests_total{path="%s",status="%d"}'
    for line in (counts % ("/health", 200), counts % ("other", 404), 'two_tower_passages{run="second"} 243.0'):
        assert line in text
    assert "/no/such/page" not in text


def test_a_full_queue_a_slow_search_and_a_slow_request_are_refused(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, search = Event(), Event(), runs.search

    def slow(params: SearchParams, queries: list[str]) -> list[Answer]:
        begun.set()
        go_on.wait(20)
        return search(params, queries)

    monkeypatch.setattr(runs, "search", slow)
    with served(runs, replace(LIMITS, seconds=0.5, queue=1)) as service, ThreadPoolExecutor(8) as pool:
        ask = lambda: service.ask("/search?q=bababa")[0]  # noqa: E731
        waiting = [pool.submit(ask)]
        assert begun.wait(10)
        waiting += [pool.submit(ask) for _ in range(7)]
        # One is searched for, one waits, both too long; for the others there is no place.
        assert sorted(one.result() for one in waiting) == [503] * 6 + [504] * 2
        assert service.ask("/health")[0] == 200
        go_on.set()
        while (status := ask()) == 503:  # who gave up is still in the queue
            time.sleep(0.01)
        assert status == 200
        head = b"POST /search HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{"
        assert service.send(head, silence=10).startswith(b"HTTP/1.1 408 ")  # a body that does not arrive


def test_failures_are_logged(runs: Runs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    search = runs.search

    def failing(params: SearchParams, queries: list[str]) -> list[Answer]:
        if "bad" in queries:
            raise ValueError("a defect")
        return search(params, queries)

    monkeypatch.setattr(runs, "search", failing)
    with served(runs, LIMITS) as service:
        assert service.ask("/search?q=bad")[:2] == (500, {"detail": "The service failed; its log says how."})
        assert service.ask("/search?q=bababa")[0] == 200
        assert 'two_tower_requests_total{path="/search",status="500"} 1.0' in service.ask("/metrics")[1]
    assert "a defect" in caplog.text


JSON_PIECES = [*"{}[]:, ", '"query"', '"k"', "1e999", "-1", "null", '"\\u0000"', '"\\ud800"', "NaN"]
HEADS = [
    "GET /search?q={} HTTP/1.1\r\nhost: a\r\n\r\n",
    "POST /search HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999\r\n\r\n{}",
    "POST /search HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "POST /search HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
    "{} /search HTTP/1.1\r\n\r\n",
    "GET {} HTTP/1.1\r\nhost: {}\r\nx: {}\r\n\r\n",
    "GET /search?q=a HTTP/9.9\r\n\r\n{}",
]
STRANGE = ["%00", "%ff%fe", "\x00", "'; drop", "<script>", "../" * 50, "%2e%2e/", "a" * 5000, "%", "𝒳", "${jndi:x}", ""]
KINDS = ["application/json", "text/plain", "multipart/form-data; boundary=x", "application/json; charset=\\", ""]


def hostile(rng: random.Random) -> bytes:
    """A request that is none, or whose address, headers or body is strange."""
    kind = rng.randrange(5)
    if kind == 0:
        return rng.choice(HEADS).replace("{}", rng.choice(STRANGE)).encode("utf-8", "replace")
    if kind == 1:
        return rng.choice([b"", b"GET /search?q="]) + rng.randbytes(rng.randrange(1, 2000)) + b" HTTP/1.1\r\n\r\n"
    if kind == 2:
        body = "".join(rng.choices(JSON_PIECES, k=rng.randrange(40)))
    elif kind == 3:
        opening = rng.choice(["[", '{"query": '])
        body = opening * rng.randrange(3000 // len(opening))
    else:
        body = json.dumps({"query": rng.choice(STRANGE), "k": rng.choice([0, 10**400, 1.5, "1", None, [], 3, 4, 5])})
    head = f"POST /search HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: {rng.choice(KINDS)}\r\n"
    return f"{head}content-length: {len(body.encode())}\r\n\r\n{body}".encode()


def test_hundreds_of_hostile_requests(service: Service) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda seed: service.send(hostile(random.Random(seed))), range(500)))
    statuses = {int(answer[9:12]) for answer in answers if answer.startswith(b"HTTP/1.1 ")}
    assert {200, 400, 413, 422} <= statuses
    assert max(statuses) < 500
    assert service.ask("/search?q=bababa")[0] == 200
    assert 'status="5' not in service.ask("/metrics")[1]


def test_the_command_serves_and_stops_in_order(run_folders: list[Path], tmp_path: Path) -> None:
    port = random.randrange(20_000, 32_000)  # below those that the system gives to others
    service = Service(f"http://127.0.0.1:{port}")
    index = shutil.copytree(run_folders[0] / "index", tmp_path / "index")
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "a.md").write_text("# Ä")
    command = ["serve", run_folders[0], "--index", index, "--port", str(port), "--files", "documents", "--open"]
    (tmp_path / "browser.sh").write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    (tmp_path / "browser.sh").chmod(0o755)
    with forked("two-tower", *command, cwd=tmp_path, BROWSER=str(tmp_path / "browser.sh")) as process:
        while not service.listens():
            process.check_alive()
            time.sleep(0.05)
        assert service.ask("/health")[0] == 200
        assert service.ask("/runs")[1][0]["files"] == [f"{(tmp_path / 'documents').as_uri()}/"]
        assert service.ask("/files/a.md")[:2] == (200, "# Ä")
        with pytest.raises(UserError, match=f"port {port}"):  # it is taken
            serve(run_folders, *service.address, Limits())
        while not (opened := tmp_path / "opened").exists() or not opened.read_text():
            time.sleep(0.05)
        assert opened.read_text() == f"{service.url}\n"
        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(service.ask, "/search?q=bababa&mode=hybrid") for _ in range(4)]
            time.sleep(0.02)
            process.send(signal.SIGTERM)
            answered = [one for one in asking if not isinstance(one.exception(), OSError)]
        assert {one.result()[0] for one in answered} <= {200}
        ended = process.ended()
    assert (ended.status, ended.err) == (0, "")
    assert f"Search page: {service.url}" in ended.out


def test_what_cannot_be_served_is_named_and_equal_names_get_numbers(runs: Runs) -> None:
    for run, host in (("no-such-run", "127.0.0.1"), ("run", "203.0.113.1")):
        with pytest.raises(UserError, match=run if run != "run" else host):
            serve([Path(run)], host, 0, Limits())
    with pytest.raises(UserError, match="--files nowhere is no folder"):
        serve([Path("run")], "127.0.0.1", 0, Limits(), files=Path("nowhere"))
    _, searcher = next(iter(runs))
    assert [name for name, _ in Runs([searcher, searcher, searcher])] == ["first", "first-2", "first-3"]


def test_each_index_is_served_by_the_run_that_made_it(
    run_folders: list[Path], collection: Path, tmp_path: Path
) -> None:
    first, second = run_folders
    source = WithFields(str(collection))
    faq, wiki = indexed(second, source, tmp_path / "faq"), indexed(second, source, tmp_path / "old" / "faq")
    served_here = [
        (name, s.encoder.fingerprint) for name, s in by_name(load_searchers(run_folders, [wiki, faq])).items()
    ]
    by_first, by_second = (file_hash(Run(run).best) for run in run_folders)
    assert served_here == [("first", by_first), ("faq", by_second), ("faq-2", by_second)]
    with pytest.raises(UserError, match=rf"faq was made by none of {first}, .*name the run that made it"):
        load_searchers([first, first], [faq])
    with pytest.raises(UserError, match=r"faq was made with another .* embed again"):
        load_searchers([first], [faq])
    with served(Runs(load_searchers([second], [faq, second / "index"]), bm25=False)) as service:
        assert [run["name"] for run in service.ask("/runs")[1]] == ["faq", "second"]
        hits = service.ask("/search?q=bababa&k=100&run=faq")[1]["hits"]
        assert {"URL": "https://example.org/ü", "views": 3, "share": None} in [hit["fields"] for hit in hits]
        fitting = service.ask("/search?q=bababa&k=100&run=faq&filter=views%3E2&filter=URL!=x")[1]["hits"]
        assert fitting == service.ask("/search", json.dumps(
            {"query": "bababa", "k": 100, "run": "faq", "filter": ["views>2", "URL!=x"]}
        ))[1]["hits"]  # fmt: skip
        assert {hit["fields"].get("views") for hit in fitting} == {3}
        for where, said in (
            ("view=3", "No passage has a field view; did you mean 'views'"),
            ("views", "cannot be read"),
        ):
            status, answer, _ = service.ask(f"/search?q=bababa&run=faq&filter={where}")
            assert (status, said in answer["detail"]) == (422, True), answer
        schemas = service.ask("/openapi.json")[1]["components"]["schemas"]
        assert schemas["Hit"]["properties"]["fields"]["type"] == "object"
