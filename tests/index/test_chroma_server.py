"""A Chroma server that wants a token, answers badly or has gone: one sentence with the remedy, nothing else."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
import pytest
from test_store import stored

from two_tower.errors import UserError
from two_tower.index import make_index

chromadb = pytest.importorskip("chromadb", reason="needs pip install -e '.[chroma]'")

IDENTITY = {"user_id": "u", "tenant": "default_tenant", "databases": ["default_database"]}
COLLECTION = "00000000-0000-4000-8000-000000000001"


class Answer(NamedTuple):
    status: int
    body: str
    kind: str = "application/json"


def failing(status: int, text: str = "") -> Answer:
    return Answer(status, json.dumps({"error": text, "message": f"{text} says the server"}))


class Stand(NamedTuple):
    """A server that answers by path, the longest that fits, and what it was asked."""

    port: int
    answers: dict[str, Answer]
    headers: list[dict[str, str]]


@contextmanager
def standing(answers: dict[str, Answer]) -> Iterator[Stand]:
    stand = Stand(0, answers, [])

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            stand.headers.append({key.lower(): value for key, value in self.headers.items()})
            self.rfile.read(int(self.headers.get("content-length", 0)))
            path = self.path.partition("?")[0].partition("/api/v2")[2]
            fits = [key for key in stand.answers if path.endswith(key)]
            answer = stand.answers[max(fits, key=len)]
            self.send_response(answer.status)
            body = answer.body.encode()
            for key, value in (("content-type", answer.kind), ("content-length", str(len(body)))):
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = _answer

        def log_message(self, *_: Any) -> None:  # noqa: ANN401
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield stand._replace(port=server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def config(port: int, **keys: object) -> dict[str, Any]:
    target = {"_target_": "two_tower.index.chroma.ChromaIndex", "sample": 5}
    return {**target, "host": "127.0.0.1", "port": port, **keys}


def said(path: Path, settings: dict[str, Any]) -> str:
    """The sentence with which an index is not made."""
    store = stored(path / "store", np.eye(6, dtype=np.float32), 400, "cosine")
    with pytest.raises(UserError) as raised:
        make_index(settings, store, None)
    sentence = str(raised.value)
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    assert len(sentence) < 450
    assert not (store.path / "index.yaml").exists()
    return sentence


@pytest.mark.parametrize(
    "answer",
    [
        failing(401, "AuthError"), failing(403, "AuthError"), Answer(401, "Unauthorized", "text/plain"),
        Answer(403, "<html>Forbidden</html>", "text/html"), Answer(401, ""),
        Answer(401, "<html><head><title>401 Authorization Required</title></head></html>", "text/html"),  # nginx's
    ],
)  # fmt: skip
def test_a_server_that_wants_a_token_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
    monkeypatch.delenv("CHROMA_TOKEN", raising=False)
    with standing({"": answer}) as stand:
        sentence = said(tmp_path, config(stand.port))
    assert f"127.0.0.1:{stand.port}" in sentence
    assert "wants a token" in sentence
    assert "CHROMA_TOKEN" in sentence
    assert not any({"authorization", "x-chroma-token"} & each.keys() for each in stand.headers)


@pytest.mark.parametrize(
    "answer",
    [
        failing(500, "InternalError"), Answer(500, "", "text/plain"), Answer(404, "Not Found", "text/plain"),
        failing(404, "NotFoundError"), Answer(200, "<html>a proxy</html>", "text/html"), Answer(200, "[]"),
        Answer(410, json.dumps({"error": "Unimplemented", "message": "The v1 API is deprecated."})),
    ],
)  # fmt: skip
def test_a_server_that_answers_badly_is_named_with_what_it_says(tmp_path: Path, answer: Answer) -> None:
    with standing({"": answer}) as stand:
        sentence = said(tmp_path, config(stand.port))
    assert f"127.0.0.1:{stand.port} does not answer as one should (" in sentence
    assert "token" not in sentence
    assert "index.ssl" in sentence


def test_http_where_https_is_asked_for(tmp_path: Path) -> None:
    with standing({"": Answer(200, "{}")}) as stand:
        assert "index.ssl" in said(tmp_path, config(stand.port, ssl=True))


@pytest.mark.parametrize("variable", ["CHROMA_TOKEN", "MY_TOKEN"])
def test_the_token_of_the_variable_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv("CHROMA_TOKEN", "wrong")
    monkeypatch.setenv(variable, "secret-1")
    with standing({"": failing(401, "AuthError")}) as stand:
        sentence = said(tmp_path, config(stand.port, token_variable=variable))
    assert variable in sentence
    assert "secret" not in sentence
    assert {each["authorization"] for each in stand.headers} == {"Bearer secret-1"}
    assert {each["x-chroma-token"] for each in stand.headers} == {"secret-1"}


class Served(NamedTuple):
    stand: Stand
    folder: Path


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Served]:
    """An index on a server that answers as Chroma does, as far as it is asked here."""
    collection = {
        "id": COLLECTION, "name": "passages", "configuration_json": {}, "schema": None, "metadata": None,
        "dimension": 6, "tenant": "default_tenant", "database": "default_database", "log_position": 0, "version": 0,
    }  # fmt: skip
    hits = {"ids": [["3", "0"]], "distances": [[0.0, 1.0]], "embeddings": None, "documents": None, "include": []}
    hits |= {"metadatas": None, "uris": None}
    answers = {
        "": Answer(200, "{}"), "/auth/identity": Answer(200, json.dumps(IDENTITY)),
        "/passages": Answer(200, json.dumps(collection)), "/count": Answer(200, "6"),
        "/query": Answer(200, json.dumps(hits)),
        "/tenants/default_tenant": Answer(200, json.dumps({"name": "default_tenant"})),
        "/databases/default_database": Answer(
            200, json.dumps({"id": COLLECTION, "name": "default_database", "tenant": "default_tenant"})
        ),
    }  # fmt: skip
    store = stored(tmp_path / "store", np.eye(6, dtype=np.float32), 400, "cosine")
    make_index({"_target_": "two_tower.index.faiss.FlatIndex", "sample": 5}, store, None)
    with standing(answers) as stand:
        lines = [f"{key}: {value}" for key, value in config(stand.port).items() if key != "sample"]
        (store.path / "index.yaml").write_text("\n".join(lines) + "\n")
        (store.path / "chroma.json").write_text(json.dumps({"id": COLLECTION, "rows": 6}))
        yield Served(stand, store.path)


def load(folder: Path) -> Any:  # noqa: ANN401
    from two_tower.index.chroma import ChromaIndex
    from two_tower.similarity import Similarity

    lines = dict(line.split(": ") for line in (folder / "index.yaml").read_text().splitlines())
    index = ChromaIndex(host=lines["host"], port=int(lines["port"]))
    index.load(folder, Similarity("cosine"))
    return index


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (failing(500, "InternalError"), "does not answer as one should"),
        (failing(503, "Unavailable"), "does not answer as one should"),
        (failing(401, "AuthError"), "wants a token"),
    ],
)
def test_a_search_while_the_server_fails_and_after(made: Served, answer: Answer, words: str) -> None:
    index = load(made.folder)
    query = np.eye(6, dtype=np.float32)[3:4]
    good = made.stand.answers["/query"]
    assert index.search(query, 2)[1].tolist() == [[3, 0]]
    made.stand.answers["/query"] = answer
    with pytest.raises(UserError, match=words):
        index.search(query, 2)
    made.stand.answers["/query"] = good
    assert index.search(query, 2)[1].tolist() == [[3, 0]]


@pytest.mark.parametrize("path", ["/passages", "/count"])
def test_a_server_that_fails_while_an_index_is_opened_is_not_called_empty(made: Served, path: str) -> None:
    """Embedding again, which takes hours, is no remedy."""
    made.stand.answers[path] = failing(500, "InternalError")
    with pytest.raises(UserError, match="does not answer as one should"):
        load(made.folder)


def test_another_collection_of_that_name_is_no_index(made: Served) -> None:
    (made.folder / "chroma.json").write_text(json.dumps({"id": COLLECTION, "rows": 7}))
    with pytest.raises(UserError, match=r"holds no whole collection passages: run embed\.py again"):
        load(made.folder)
