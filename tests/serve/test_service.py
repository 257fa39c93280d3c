"""The API answers as search does, refuses what it should in a sentence, and nothing brings it down."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import run_command, start_command, word
from serve.serving import Service, application, served

from two_tower.search import Searcher
from two_tower.serve import Limits
from two_tower.serve.runs import Runs

pytest.importorskip("fastapi", reason="needs the service: pip install -e '.[serve]'")
pytest.importorskip("prometheus_client", reason="needs the service: pip install -e '.[serve]'")
LIMITS = Limits(body=2000, characters=300, k=20, seconds=5, queue=64, batch=8)


@pytest.fixture(scope="module")
def runs(run_folders: list[Path]) -> Runs:
    loaded = Runs.load(run_folders)
    loaded.warm()
    return loaded


@pytest.fixture(scope="module")
def service(runs: Runs) -> Iterator[Service]:
    with served(application(runs, LIMITS)) as running:
        yield running


@pytest.mark.parametrize("mode", ["dense", "bm25", "hybrid"])
def test_get_and_post_answer_as_search_does(service: Service, run_folders: list[Path], mode: str) -> None:
    query = "zazuzu bababa"
    (expected,) = Searcher.load(run_folders[1]).search([query], 5, mode)
    status, got, _ = service.ask(f"/search?q={quote(query)}&k=5&run=second&mode={mode}")
    body = json.dumps({"query": query, "k": 5, "run": "second", "mode": mode})
    assert (200, got) == (status, service.ask("/search", body)[1])
    assert got["query"] == query
    assert (got["run"], got["mode"], got["notes"]) == ("second", mode, expected.notes)
    assert [hit["id"] for hit in got["hits"]] == [hit.id for hit in expected.hits]
    assert [hit["score"] for hit in got["hits"]] == pytest.approx([hit.score for hit in expected.hits], abs=1e-6)
    for hit, one in zip(got["hits"], expected.hits, strict=True):
        assert list(hit)[:5] == ["rank", "id", "score", "title", "text"]
        assert (hit["rank"], hit["title"], hit["text"]) == (one.rank, one.title, one.text)
        assert hit["marks"] == [list(mark) for mark in one.marks]


def test_defaults_are_the_first_run_ten_passages_and_vectors(service: Service) -> None:
    _, got, headers = service.ask("/search?q=bababa")
    assert (got["run"], got["mode"], len(got["hits"])) == ("first", "dense", 10)
    assert headers["content-type"] == "application/json"


def test_many_at_once_get_each_their_own_answer(service: Service, runs: Runs) -> None:
    queries = [word(number) for number in range(20)]
    got: dict[str, list[str]] = {}

    def ask(query: str) -> None:
        got[query] = [hit["id"] for hit in service.ask(f"/search?q={query}&k=3&mode=bm25")[1]["hits"]]

    threads = [threading.Thread(target=ask, args=(query,)) for query in queries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = runs.search(runs.params(None, "bm25", 3), queries)
    assert got == {a.query: [hit.id for hit in a.hits] for a in expected}


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/search", None, 422, "q: field required"),
        ("/search?q=a&k=0", None, 422, "k: input should be greater than or equal to 1"),
        ("/search?q=a&k=21", None, 422, "k: input should be less than or equal to 20"),
        ("/search?q=a&k=ten", None, 422, "k: input should be a valid integer"),
        ("/search?q=a&run=frist", None, 422, "run=frist is not served here; did you mean 'first'?"),
        ("/search?q=a&mode=bm52", None, 422, "mode=bm52 does not exist here; did you mean 'bm25'?"),
        ("/search?q=" + "a" * 301, None, 422, "q: string should have at most 300 characters"),
        ("/search", '{"query": 5}', 422, "query: input should be a valid string"),
        ("/search", '{"query": "a", "top_k": 5}', 422, "top_k: extra inputs are not permitted"),
        ("/search", '{"query": "a", "k": NaN}', 422, "k: input should be a finite number"),
        ("/search", '{"query": "\\ud800"}', 422, "query: input should be a valid string"),
        ("/search", '["a"]', 422, "The body must be a JSON object"),
        ("/search", "{", 422, "The body is not JSON"),
        ("/search", "", 422, "body: field required"),
        ("/search", '{"query": "' + "a" * 3000 + '"}', 413, "The request's body is larger than 2,000 bytes"),
        ("/nothing", None, 404, "Not Found"),
        ("/../../etc/passwd", None, 404, "Not Found"),
    ],
)
def test_mistakes_get_a_sentence(service: Service, path: str, body: str | None, status: int, said: str) -> None:
    got, answer, _ = service.ask(path, body)
    assert got == status
    assert answer["detail"].startswith(said)


def test_questions_that_cannot_be_used_are_told(service: Service) -> None:
    assert service.ask("/search?q=%20")[1]["notes"] == ["The query is empty."]
    unknown = service.ask("/search?q=xyzzy")[1]
    assert unknown["hits"] == []
    assert "No word of 'xyzzy'" in unknown["notes"][0]


def test_nothing_that_is_served_may_run_or_load_anything_else(service: Service) -> None:
    for path in ("/", "/page.js", "/page.css", "/openapi.json", "/search?q=zazuzu", "/nothing"):
        _, text, headers = service.ask(path)
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["x-content-type-options"] == "nosniff"
        assert "http://" not in str(text)
        assert "https://" not in str(text)


def test_facts(service: Service, runs: Runs) -> None:
    assert service.ask("/health")[1] == {"status": "ok", "runs": ["first", "second"]}
    first, second = service.ask("/runs")[1]
    assert (first["name"], first["passages"], first["index"]) == ("first", 243, "flat")
    assert first["corpus"] == second["corpus"]
    assert second["modes"] == ["dense", "bm25", "hybrid"]
    api = service.ask("/openapi.json")[1]
    assert {"/search", "/health", "/metrics", "/runs"} == set(api["paths"])
    assert api["components"]["schemas"]["Question"]["properties"]["k"]["maximum"] == 20
    service.ask("/no/such/page")
    text = service.ask("/metrics")[1]
    assert 'two_tower_requests_total{path="/health",status="200"}' in text
    assert 'two_tower_requests_total{path="other",status="404"}' in text
    assert 'two_tower_passages{run="second"} 243.0' in text
    assert "/no/such/page" not in text


class _Slow(Runs):
    """Searches when it is told to."""

    def __init__(self, runs: Runs) -> None:
        super().__init__([searcher for _, searcher in runs])
        self.go_on, self.begun = threading.Event(), threading.Event()

    def search(self, way, queries):  # noqa: ANN001, ANN202
        self.begun.set()
        self.go_on.wait(20)
        return super().search(way, queries)


def test_a_full_queue_and_a_slow_search_are_told(runs: Runs) -> None:
    slow = _Slow(runs)
    with served(application(slow, replace(LIMITS, seconds=0.5, queue=1))) as service:
        statuses: list[int] = []
        ask = lambda: statuses.append(service.ask("/search?q=bababa")[0])  # noqa: E731
        threads = [threading.Thread(target=ask) for _ in range(8)]
        threads[0].start()
        assert slow.begun.wait(10)
        for thread in threads[1:]:
            thread.start()
        for thread in threads:
            thread.join()
        # One is searched for, one waits, both too long; for the others there is no place.
        assert sorted(statuses) == [503] * 6 + [504] * 2
        assert service.ask("/health")[0] == 200
        slow.go_on.set()
        while (status := service.ask("/search?q=bababa")[0]) == 503:  # who gave up is still in the queue
            time.sleep(0.01)
        assert status == 200


def test_a_body_that_does_not_arrive_is_not_waited_for(runs: Runs) -> None:
    with served(application(runs, replace(LIMITS, seconds=0.3))) as service:
        head = b"POST /search HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{"
        import socket

        with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
            connection.sendall(head)
            assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_a_failing_search_is_logged_and_does_not_stop_the_service(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def search(self: Runs, way: object, queries: list[str]) -> list[object]:
        if "bad" in queries:
            raise ValueError("a defect")
        return next(searcher.search(queries, 1) for _, searcher in runs)

    monkeypatch.setattr(Runs, "search", search)
    with served(application(runs, LIMITS)) as service:
        status, answer, _ = service.ask("/search?q=bad")
        assert (status, answer["detail"]) == (500, "The service failed; its log says how.")
        assert service.ask("/search?q=bababa")[0] == 200
    assert "a defect" in caplog.text


JSON_PIECES = [
    "{",
    "}",
    "[",
    "]",
    '"query"',
    ":",
    ",",
    '"k"',
    "1e999",
    "-1",
    "null",
    '"\\u0000"',
    '"\\ud800"',
    "NaN",
    " ",
]
HEADS = [
    "GET /search?q={} HTTP/1.1\r\nhost: a\r\n\r\n",
    "POST /search HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999\r\n\r\n{}",
    "POST /search HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "POST /search HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
    "{} /search HTTP/1.1\r\n\r\n",
    "GET {} HTTP/1.1\r\nhost: {}\r\nx: {}\r\n\r\n",
    "GET /search?q=a HTTP/9.9\r\n\r\n{}",
]
STRANGE = [
    "%00",
    "%ff%fe",
    "\x00",
    "'; drop table",
    "<script>",
    "../" * 50,
    "%2e%2e/",
    "a" * 5000,
    "%",
    "𝒳",
    "${jndi:x}",
    "",
]


def _hostile(service: Service, rng: random.Random) -> int:
    """Send something hostile; the status that came back, 0 for none."""
    kind = rng.randrange(6)
    if kind == 0:
        raw = rng.choice(HEADS).replace("{}", rng.choice(STRANGE)).encode("utf-8", "replace")
    elif kind == 1:
        raw = rng.randbytes(rng.randrange(1, 2000))
    elif kind == 2:
        raw = b"GET /search?q=" + bytes(rng.randrange(33, 256) for _ in range(50)) + b" HTTP/1.1\r\nhost: a\r\n\r\n"
    else:
        body = "".join(rng.choice(JSON_PIECES) for _ in range(rng.randrange(40)))
        if kind == 4:
            body = "[" * rng.randrange(3000) if rng.random() < 0.5 else '{"query": ' * rng.randrange(190)
        if kind == 5:
            body = json.dumps(
                {"query": rng.choice(STRANGE), "k": rng.choice([0, 10**400, 1.5, "1", None, [], 3, 4, 5])}
            )
        coded = body.encode("utf-8")
        kinds = [
            "application/json",
            "text/plain",
            "multipart/form-data; boundary=x",
            "application/json; charset=\\",
            "",
        ]
        head = f"POST /search HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: {rng.choice(kinds)}\r\n"
        raw = f"{head}content-length: {len(coded)}\r\n\r\n".encode() + coded
    answer = service.send(raw)
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0


def test_a_thousand_hostile_requests(service: Service) -> None:
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda seed: _hostile(service, random.Random(seed)), range(1000)))
    assert not {status for status in statuses if status >= 500}
    assert {200, 400, 413, 422} <= set(statuses)
    assert service.ask("/search?q=bababa")[0] == 200
    assert 'status="5' not in service.ask("/metrics")[1]


def test_the_command_serves_and_stops_in_order(run_folders: list[Path], tmp_path: Path) -> None:
    with start_command("two-tower", "serve", *run_folders, "--port", "0", cwd=tmp_path) as process:
        assert process.stdout is not None
        lines = []
        while not (lines and lines[-1].startswith("Search page: ")):
            lines.append(process.stdout.readline())
            assert lines[-1], process.communicate()
        address = lines[-1].split()[2]
        assert address.startswith("http://127.0.0.1:")
        port = int(address.rsplit(":", 1)[1])
        service = Service(port)
        assert service.ask("/health")[0] == 200
        taken = run_command("two-tower", "serve", run_folders[0], "--port", str(port), cwd=tmp_path)
        assert taken.returncode == 2
        assert f"port {port}" in taken.stderr
        answers: list[int] = []
        asking = [
            threading.Thread(target=lambda: answers.append(service.ask("/search?q=bababa&mode=hybrid")[0]))
            for _ in range(4)
        ]
        for thread in asking:
            thread.start()
        time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        for thread in asking:
            thread.join()
        assert set(answers) <= {200}
        _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, "")


def test_mistakes_in_the_command_exit_with_2(run_folders: list[Path], tmp_path: Path) -> None:
    for arguments, said in (
        (["no-such-run"], "no-such-run"),
        ([run_folders[0], "--host", "203.0.113.1", "--port", "0"], "203.0.113.1"),
        ([run_folders[0], "--port", "99999"], "65535"),
    ):
        done = run_command("two-tower", "serve", *arguments, cwd=tmp_path)
        assert done.returncode == 2, done
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_equal_names_are_told_apart(runs: Runs) -> None:
    searcher = next(iter(runs))[1]
    assert [name for name, _ in Runs([searcher, searcher, searcher])] == ["first", "first-2", "first-3"]
