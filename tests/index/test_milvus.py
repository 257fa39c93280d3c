"""Milvus, embedded and as a server: a changed collection, a server that goes, and what is not to be touched.

The server is Milvus Lite's own, over gRPC, or that at the address in the variable MILVUS_URI: one of the package
``milvus`` from PyPI, for example.
"""

import base64
import json
import os
import shutil
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import composed, word
from forked import run_forked
from index.test_indexes import vectors_of
from test_store import stored
from test_train import fit

from two_tower import search
from two_tower.embed import embed
from two_tower.errors import UserError
from two_tower.index import is_made, load_index, make_index
from two_tower.search import Searcher
from two_tower.store import VectorStore

for package in ("pymilvus", "milvus_lite"):
    pytest.importorskip(package, reason="needs pip install -e '.[milvus]'")

QUERIES = vectors_of(20, seed=1)


class Server:
    """Milvus Lite in a thread, at one address however often it is started."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.port = str(folder), 0
        self.start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        from milvus_lite.adapter.grpc.server import start_server_in_thread

        self._server, self._database, self.port = start_server_in_thread(self._folder, port=self.port)

    def stop(self) -> None:
        self._server.stop(grace=0).wait()
        self._database.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    started = Server(tmp_path / "server")
    yield started
    started.stop()


@pytest.fixture(params=["embedded", "server"])
def where(request: pytest.FixtureRequest) -> dict[str, str]:
    """The keys that say where the collection is."""
    if request.param == "embedded":
        return {}
    return {"uri": os.environ.get("MILVUS_URI") or request.getfixturevalue("server").uri}


@pytest.fixture
def name() -> Iterator[str]:
    """A collection's, which MILVUS_URI's server has no more afterwards."""
    chosen = f"test_{os.urandom(4).hex()}"
    yield chosen
    if uri := os.environ.get("MILVUS_URI"):
        client = client_of(uri)
        for each in (chosen, f"{chosen}_2"):
            client.drop_collection(each)


def config(**keys: object) -> dict[str, Any]:
    return {"_target_": "two_tower.index.milvus.MilvusIndex", "sample": 20, **keys}


def client_of(uri: str) -> Any:  # noqa: ANN401
    from pymilvus import MilvusClient

    return MilvusClient(uri)


def found(folder: Path) -> list[list[str]]:
    """The passages that the index in a folder finds, by the ids of its store."""
    ids = np.array(VectorStore.open(folder).ids().to_pylist())
    return ids[load_index(folder).search(QUERIES, 10)[1]].tolist()


def made(folder: Path, vectors: np.ndarray, earlier: Path | None = None, **keys: object) -> Path:
    """An index in a folder, of passages that are named by the first number of their vectors."""
    store = stored(folder, vectors, 100, "cosine")
    make_index(config(**keys), store, (QUERIES, "queries"), None, earlier)
    return folder


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many vectors have been sent to a collection, and how many deleted there."""
    from two_tower.index.milvus import MilvusIndex

    upsert, delete, counts = MilvusIndex._upsert, MilvusIndex._delete, {"sent": 0, "deleted": 0}

    def counted_upsert(self: MilvusIndex, keys: np.ndarray, vectors: np.ndarray) -> None:
        upsert(self, keys, vectors)
        counts["sent"] += len(keys)

    def counted_delete(self: MilvusIndex, keys: np.ndarray) -> None:
        delete(self, keys)
        counts["deleted"] += len(keys)

    monkeypatch.setattr(MilvusIndex, "_upsert", counted_upsert)
    monkeypatch.setattr(MilvusIndex, "_delete", counted_delete)
    return counts


def test_only_what_has_changed_is_sent_and_the_state_before_stays_whole(
    where: dict[str, str], name: str, sent: dict[str, int], tmp_path: Path
) -> None:
    vectors, keys = vectors_of(300), {**where, "collection": name, "batch": 64}
    states = [vectors, np.concatenate([vectors[:3:-1], vectors_of(5, seed=2)])]  # other rows, 4 less and 5 more
    states.append(np.concatenate([states[1], vectors_of(2, seed=3)]))
    # On a server the second state gets another collection, and the third that of the first.
    changes = [(300, 0), (301, 0), (7, 4)] if where else [(300, 0), (5, 4), (2, 0)]
    folders, flat = (
        [tmp_path / str(number) for number in range(3)],
        [tmp_path / f"flat-{number}" for number in range(3)],
    )
    for number, state in enumerate(states):
        sent.update(sent=0, deleted=0)
        made(folders[number], state, folders[number - 1] if number else None, **keys)
        assert tuple(sent.values()) == changes[number]
        make_index({"_target_": "two_tower.index.faiss.FlatIndex"}, stored(flat[number], state, 100, "cosine"), None)
        if number == 0:
            first = load_index(folders[0])
        for each in range(max(0, number - 1), number + 1):
            assert found(folders[each]) == found(flat[each])
    if where:  # it is neither found any more nor searched by those that had found it
        for use in (lambda: load_index(folders[0]), lambda: first.search(QUERIES, 10)):
            with pytest.raises(UserError, match=f"has no whole collection {name}_state_.*run embed"):
                use()
    else:
        shutil.rmtree(folders[0])
        assert first.search(QUERIES, 10)[1].tolist() == load_index(flat[0]).search(QUERIES, 10)[1].tolist()


def test_an_interrupted_build_goes_on(
    where: dict[str, str], name: str, sent: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from two_tower.index.milvus import MilvusIndex

    keys, upsert = {**where, "collection": name, "batch": 64}, MilvusIndex._upsert

    def interrupted(self: MilvusIndex, *batch: np.ndarray) -> None:
        upsert(self, *batch)
        if sent["sent"] > 100:
            raise KeyboardInterrupt

    monkeypatch.setattr(MilvusIndex, "_upsert", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "mine", vectors_of(300), **keys)
    monkeypatch.setattr(MilvusIndex, "_upsert", upsert)
    before = sent["sent"]
    assert not is_made(tmp_path / "mine", config(**keys))
    made(tmp_path / "mine", vectors_of(300), **keys)
    assert 100 < before < sent["sent"] == 300
    assert is_made(tmp_path / "mine", config(**keys))
    made(tmp_path / "next", vectors_of(300), tmp_path / "mine", **keys)  # nothing that counts has changed
    assert sent["sent"] == 300
    assert found(tmp_path / "next") == found(tmp_path / "mine")


def test_other_settings_make_the_index_anew(where: dict[str, str], name: str, tmp_path: Path) -> None:
    for kind in ("FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8"):
        folder = made(tmp_path / "mine", vectors_of(300), kind=kind, nlist=16, collection=name, **where)
        assert json.loads((folder / "report.json").read_text())["recall"] > 0.95
        assert load_index(folder).structure == f"Milvus {kind}"


def test_collections_of_others_are_neither_searched_nor_changed(server: Server, tmp_path: Path) -> None:
    keys = {"uri": server.uri}
    mine, client = made(tmp_path / "mine", vectors_of(60), **keys), client_of(server.uri)
    with pytest.raises(UserError, match=f"at {server.uri} has a collection passages that is not of this .*=NAME"):
        made(tmp_path / "other", vectors_of(50), **keys)
    other = made(tmp_path / "other", vectors_of(50), collection="others", **keys)
    shutil.copy(other / "milvus.json", mine / "milvus.json")
    with pytest.raises(UserError, match="has no whole collection others_state_"):
        load_index(mine)
    client.create_collection("foreign", dimension=3)
    with pytest.raises(UserError, match="has a collection foreign that is not of this index"):
        made(tmp_path / "third", vectors_of(50), collection="foreign", **keys)
    assert set(client.list_collections()) == {"passages", "others", "foreign"}
    key = client.query("others", output_fields=["id"], limit=1)[0]["id"]
    client.delete("others", ids=[key])
    with pytest.raises(UserError, match="has no whole collection others_state_"):
        load_index(other)
    client.upsert("others", [{"id": 1, "vector": QUERIES[0]}])  # as many as there were
    with pytest.raises(UserError, match="has no whole collection others_state_"):
        load_index(other).search(QUERIES, 1)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each, which do not pass."""
    waited = list[float]()
    monkeypatch.setattr("two_tower.index._milvus.sleep", waited.append)
    return waited


def test_a_server_that_goes_and_comes_back(server: Server, pauses: list[float], tmp_path: Path) -> None:
    folder = made(tmp_path / "mine", vectors_of(100), uri=server.uri)
    index, before = load_index(folder), found(folder)
    server.stop()
    for expected in ([0.5, 1, 2], []):  # a service that has lost it does not let all requests wait
        pauses.clear()
        with pytest.raises(UserError, match=f"^The Milvus server at {server.uri} does not answer .*is it there"):
            index.search(QUERIES, 10)
        assert pauses == expected
    with pytest.raises(UserError, match="does not answer"):
        load_index(folder)
    server.start()
    assert index.search(QUERIES, 10)[1].tolist() == load_index(folder).search(QUERIES, 10)[1].tolist()
    assert found(folder) == before


def test_a_build_outlasts_a_server_that_starts_anew(
    server: Server, sent: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, done = stored(tmp_path / "mine", vectors_of(300), 100, "cosine"), list[int]()

    def stop(count: int) -> None:
        done.append(count)
        if len(done) == 2:
            server.stop()

    monkeypatch.setattr("two_tower.index._milvus.sleep", lambda _: server.start())
    report = make_index(config(uri=server.uri, batch=64), store, (QUERIES, "queries"), stop)
    assert (report.recall, sum(done), sent["sent"]) == (1, 300, 300)


def test_a_token_is_sent_and_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    import grpc

    tokens = set[str]()

    def refuse(_: object, context: grpc.ServicerContext) -> None:
        tokens.add(dict(context.invocation_metadata()).get("authorization", ""))
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth check failure")

    class Handler(grpc.GenericRpcHandler):
        def service(self, _: object) -> grpc.RpcMethodHandler:
            return grpc.unary_unary_rpc_method_handler(refuse)

    refusing = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Handler()])
    uri = f"http://127.0.0.1:{refusing.add_insecure_port('127.0.0.1:0')}"
    refusing.start()
    try:
        for variable, given, said in (("", None, "a token"), ("root:x", None, "another token"), ("", "a:b", "another")):
            monkeypatch.setenv("MILVUS_TOKEN", variable)
            with pytest.raises(UserError, match=f"{uri} wants {said}.*: put it into the variable MILVUS_TOKEN"):
                made(tmp_path / "refused", vectors_of(9), uri=uri, token=given)
    finally:
        refusing.stop(0)
    assert tokens == {"", base64.b64encode(b"root:x").decode(), base64.b64encode(b"a:b").decode()}
    assert not pauses  # it has answered
    folder = made(tmp_path / "mine", vectors_of(9), token="a:b")
    assert is_made(folder, config(token="c:d"))
    assert not [path for path in folder.rglob("*") if path.is_file() and b"a:b" in path.read_bytes()]


def test_a_database_that_is_damaged_or_missing_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path / "mine", vectors_of(60))
    (segment,) = folder.rglob("data_*.parquet")
    segment.write_bytes(segment.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"Milvus Lite in .*milvus\.db"):
        load_index(folder)
    for name, message in (("milvus.db", "milvus.db is missing"), ("milvus.npy", "milvus.npy is missing or damaged")):
        (folder / name).rename(tmp_path / name)
        with pytest.raises(UserError, match=message):
            load_index(folder)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kind": "IVF_PQ"}, "Milvus Lite in .* refuses what it is asked: .*IVF_PQ"),
        ({"batch": 0}, r"index\.batch=0 must be at least 1"),
        ({"uri": "http://a:secret@b"}, r"index\.uri holds a password: .*MILVUS_TOKEN"),
        ({"uri": "http://127.0.0.1:9", "retries": 0}, "The Milvus server at http://127.0.0.1:9 does not answer"),
        ({"uri": "nonsense"}, "nonsense"),
    ],
)  # fmt: skip
def test_settings_that_are_refused(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as raised:
        made(tmp_path / "mine", vectors_of(9), **keys)
    assert "secret" not in str(raised.value)
    assert not (tmp_path / "mine" / "index.yaml").exists()


@pytest.fixture(scope="module")
def run(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and beside it passages with fields."""
    folder = tmp_path_factory.mktemp("milvus")
    fit(collection, folder / "run", "tokenizer.min_frequency=1", "trainer.max_steps=1")
    rows = [json.loads(line) for line in (collection / "corpus.jsonl").read_text().splitlines()]
    described = [{**row, "lang": "de" if i % 3 else "en"} for i, row in enumerate(rows)]
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in described))
    return folder / "run"


def embedded(run: Path, output: Path, *index: str) -> Searcher:
    data = ("data=passages", f"data.path={run.parent / 'mine.jsonl'}", "shard_rows=100")
    embed(composed(f"run={run}", f"output={output}", *data, *index, program="embed"))
    return Searcher.load(run, output)


@pytest.mark.parametrize("few", [search.FEW, 0])
def test_filters_and_searches_are_those_of_the_exact_index(
    few: int, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "FEW", few)  # else few are compared one by one
    milvus, flat = embedded(run, tmp_path / "milvus", "index=milvus"), embedded(run, tmp_path / "flat")
    queries = [word(0), f"{word(1)} {word(5)} {word(9)}"]
    for where in ([], ["lang=de"], ["lang!=de"]):
        hits, expected = (
            [[hit.id for hit in a.hits] for a in s.search(queries, 8, where=where)] for s in (milvus, flat)
        )
        assert hits == expected
    # While this process searches, another does.
    asked = ("two-tower", "search", run, word(0), "--index", tmp_path / "milvus", "--filter", "lang=en", "--json")
    ended = run_forked(*asked, cwd=tmp_path)
    assert ended.status == 0, ended.err
    assert [hit["id"] for hit in json.loads(ended.out)["hits"][:8]] == [
        hit.id for hit in flat.search([word(0)], 8, where=["lang=en"])[0].hits
    ]


def test_a_service_says_that_its_server_has_gone_until_it_is_back(
    run: Path, server: Server, pauses: list[float], tmp_path: Path
) -> None:
    pytest.importorskip("fastapi", reason="needs pip install -e '.[serve]'")
    from serve.serving import served

    from two_tower.serve import Runs

    with served(Runs([embedded(run, tmp_path / "index", "index=milvus", f"index.uri={server.uri}")])) as service:
        good = service.ask(f"/search?q={word(0)}")
        assert (good[0], len(good[1]["hits"])) == (200, 10)
        server.stop()
        status, answer, _ = service.ask(f"/search?q={word(0)}")
        assert (status, answer["detail"][:19], pauses) == (503, "The Milvus server a", [0.5, 1, 2])
        assert service.ask(f"/search?q={word(0)}&mode=bm25")[0] == 200
        server.start()
        assert service.ask(f"/search?q={word(0)}")[:2] == good[:2]
