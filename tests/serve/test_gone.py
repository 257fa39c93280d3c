"""A database that goes away while it is served: a sentence with status 503, and answers again once it is back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from serve.serving import Service, served

from two_tower.search import Searcher
from two_tower.serve import Runs

for package in ("fastapi", "prometheus_client", "chromadb"):
    pytest.importorskip(package, reason="needs pip install -e '.[serve,chroma]'")

FOUND: dict[str, Any] = {"ids": [["0", "1"]], "distances": [[0.1, 0.2]]}


@pytest.fixture
def collection_of_chroma() -> Mock:
    return Mock(**{"query.return_value": FOUND})


@pytest.fixture
def service(run_folders: list[Path], collection_of_chroma: Mock) -> Iterator[Service]:
    """A run whose index says that it is on a server."""
    from two_tower.index.chroma import ChromaIndex
    from two_tower.similarity import Similarity

    index = ChromaIndex(host="example.org")
    index._collection, index._rows, index._similarity = collection_of_chroma, 243, Similarity("cosine")
    searcher = Searcher.load(run_folders[0])
    searcher.index = index
    with served(Runs([searcher])) as running:
        yield running


def errors() -> dict[str, Exception]:
    import httpx
    from chromadb.errors import ChromaAuthError, InternalError

    return {
        "refused": httpx.ConnectError("[Errno 111] Connection refused"),
        "value": ValueError("Could not connect to a Chroma server. Are you sure it is running?"),
        "internal": InternalError("disk\nis full"),
        "token": ChromaAuthError("Forbidden"),
        "other": KeyError("ids"),
    }


@pytest.mark.parametrize("kind", ["refused", "value", "internal", "token", "other"])
def test_gone_and_back(service: Service, collection_of_chroma: Mock, kind: str) -> None:
    good = service.ask("/search?q=zazuzu&k=2")
    assert (good[0], len(good[1]["hits"])) == (200, 2)
    collection_of_chroma.query.side_effect = errors()[kind]
    for path, body in (
        ("/search?q=zazuzu", None),
        ("/search", '{"query": "zazuzu"}'),
        ("/search?q=b&mode=hybrid", None),
    ):
        status, answer, headers = service.ask(path, body)
        assert status == 503
        assert answer["detail"].startswith("The Chroma server at example.org:8000 ")
        assert "\n" not in answer["detail"]
        assert ("wants a token" in answer["detail"]) is (kind == "token")
        assert headers["content-type"] == "application/json"
    assert service.ask("/search?q=zazuzu&mode=bm25")[0] == 200  # needs no vectors
    assert service.ask("/health")[0] == 200
    collection_of_chroma.query.side_effect = None
    assert service.ask("/search?q=zazuzu&k=2")[:2] == good[:2]
    assert 'requests_total{path="/search",status="503"} 3.0' in service.ask("/metrics")[1]


def test_one_search_of_several_runs_says_so_alone(run_folders: list[Path], collection_of_chroma: Mock) -> None:
    """The other run still answers."""
    from two_tower.index.chroma import ChromaIndex

    broken, whole = map(Searcher.load, run_folders)
    broken.index = ChromaIndex(host="example.org")
    broken.index._collection, broken.index._rows = collection_of_chroma, 243
    collection_of_chroma.query.side_effect = ConnectionError("gone")
    with served(Runs([broken, whole])) as running:
        assert running.ask("/search?q=zazuzu&run=first")[0] == 503
        assert running.ask("/search?q=zazuzu&run=second")[0] == 200
