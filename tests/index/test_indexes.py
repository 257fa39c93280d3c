"""One suite for all indexes: they find what exact search finds, with the scores of the similarity."""

import json
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from test_store import stored

from two_tower.config import build
from two_tower.errors import UserError
from two_tower.index import is_made, load_index, make_index
from two_tower.index._make import Sample, choose_search_value, exact_hits, recalls
from two_tower.index.faiss import HnswIndex, faiss_threads
from two_tower.similarity import SIMILARITIES, Similarity
from two_tower.store import VectorStore

# Class and settings, and the recall@10 that clustered vectors must reach.
INDEXES: dict[str, tuple[str, dict[str, Any], float]] = {
    "flat": ("faiss.FlatIndex", {}, 1.0),
    "hnsw": ("faiss.HnswIndex", {}, 0.97),
    "ivf": ("faiss.IvfIndex", {}, 0.97),
    "ivf_pq": ("faiss.IvfPqIndex", {"pq_m": 8}, 0.45),
    "faiss": ("faiss.FactoryIndex", {"factory_string": "IVF8,SQ8", "parameters": "nprobe=8"}, 0.9),
    "chroma": ("chroma.ChromaIndex", {}, 0.9),
    "milvus": ("milvus.MilvusIndex", {}, 1.0),
}
DIM, ROWS = 32, 1500


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """FAISS's threads spin while they wait, which takes seconds beside other tests; and one thread repeats."""
    with faiss_threads(1):
        yield


def config_of(name: str, **keys: object) -> dict[str, Any]:
    if name in ("chroma", "milvus"):
        package = {"chroma": "chromadb", "milvus": "pymilvus"}[name]
        pytest.importorskip(package, reason=f"needs pip install -e '.[{name}]'")
    kind, settings, _ = INDEXES[name]
    return {"_target_": f"two_tower.index.{kind}", "sample": 400, **settings, **keys}


def vectors_of(rows: int, similarity: str = "cosine", seed: int = 0) -> np.ndarray:
    """Clustered, as texts are: on random vectors no index is any good."""
    centres = np.random.default_rng(0).normal(size=(30, DIM))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(0, 30, rows)] + 0.4 * rng.normal(size=(rows, DIM))
    return Similarity(similarity).prepare(torch.from_numpy(vectors.astype(np.float32))).numpy()


def write_store(folder: Path, rows: int = ROWS, similarity: str = "cosine") -> VectorStore:
    return stored(folder / f"{similarity}-{rows}", vectors_of(rows, similarity), 400, similarity)


def hits_by_sort(queries: np.ndarray, store: VectorStore, own: np.ndarray | None = None) -> np.ndarray:
    """The scores of the 10 rows nearest by Euclidean distance, but for each query's own."""
    distances = np.linalg.norm(queries[:, None] - np.concatenate(list(store.vectors()))[None], axis=2)
    if own is not None:
        distances[np.arange(len(queries)), own] = np.inf
    return -np.sort(distances, axis=1)[:, :10]


# Building ivf_pq takes seconds, and its inner products are cosine's.
@pytest.mark.parametrize(
    ("name", "similarity"), [(n, s) for n in INDEXES for s in SIMILARITIES if (n, s) != ("ivf_pq", "dot")]
)
def test_it_finds_what_exact_search_finds(name: str, similarity: str, tmp_path: Path) -> None:
    config, least, store = config_of(name), INDEXES[name][2], write_store(tmp_path, similarity=similarity)
    report, queries = make_index(config, store, None), vectors_of(50, similarity, seed=1)
    vectors = np.concatenate(list(store.vectors()))
    scores = Similarity(similarity).scores(torch.from_numpy(queries), torch.from_numpy(vectors)).numpy()
    found, rows = load_index(store.path).search(queries, 10)
    assert [(found.shape, found.dtype), (rows.shape, rows.dtype)] == [((50, 10), np.float32), ((50, 10), np.int64)]
    assert (np.diff(found, axis=1) <= 1e-6).all()  # best first
    if name not in ("ivf_pq", "faiss"):  # which know the vectors approximately
        rounded = 1e-3 if name in ("hnsw", "ivf") else 0.0  # they keep float16
        np.testing.assert_allclose(found, np.take_along_axis(scores, rows, 1), rtol=rounded, atol=1e-4 + rounded)
    best = np.argsort(-scores, axis=1)[:, :10]
    # Graphs and lists are made for distances.
    found = recalls(store, Sample(queries, "queries"), rows, np.take_along_axis(scores, best, 1))
    assert found.mean() >= (least if similarity != "dot" else least - 0.1)
    assert (report.vectors, report.bytes > 1000, 0 < report.recall <= 1) == (ROWS, True, True)
    assert 0 < report.p50_ms <= report.p99_ms
    assert json.loads((store.path / "report.json").read_text()) == vars(report)


@pytest.mark.parametrize("name", ["hnsw", "ivf"])
def test_shorter_numbers_take_less_room_and_find_the_same(name: str, tmp_path: Path) -> None:
    store = write_store(tmp_path)
    reports = [make_index(config_of(name, dtype=dtype), store, None) for dtype in ("float32", "float16", "int8")]
    sizes = [report.bytes for report in reports]
    np.testing.assert_allclose(np.diff(sizes), [-2 * ROWS * DIM, -ROWS * DIM], atol=1000)
    assert min(report.recall for report in reports) >= 0.97


@pytest.mark.parametrize("name", [name for name in INDEXES if name != "faiss"])  # whose string fixes a size
@pytest.mark.parametrize("rows", [1, 60])
def test_small_collections_and_many_hits(name: str, rows: int, tmp_path: Path) -> None:
    store = write_store(tmp_path, rows)
    make_index(config_of(name), store, None)
    index = load_index(store.path)
    scores, found = index.search(vectors_of(3, seed=1), 500)
    assert scores.shape == found.shape == (3, rows)
    assert all(sorted(row) == list(range(rows)) for row in found.tolist())
    scores, found = index.search(np.zeros((0, DIM), np.float32), 2)
    assert scores.shape == found.shape == (0, min(2, rows))


@pytest.mark.parametrize(("name", "keys"), [("hnsw", {}), ("ivf_pq", {"pq_m": 1}), ("faiss", {})])
def test_a_build_repeats(name: str, keys: dict[str, Any], tmp_path: Path) -> None:
    store, built = write_store(tmp_path), set[bytes]()
    for _ in range(2):
        make_index(config_of(name, **keys), store, None)
        built.add((store.path / "index.faiss").read_bytes())
    assert len(built) == 1


def refused(store: VectorStore, config: dict[str, Any], message: str) -> None:
    assert not is_made(store.path, config)
    with pytest.raises(UserError, match=message):
        load_index(store.path)


def test_an_index_that_is_damaged_or_of_other_vectors_or_of_another_version_is_refused(tmp_path: Path) -> None:
    config, store, other = config_of("flat"), write_store(tmp_path, 50), write_store(tmp_path, 60)
    for each in (store, other):
        make_index(config, each, None)
        assert is_made(each.path, config)
    path = store.path / "index.faiss"
    whole = path.read_bytes()
    for damaged in (whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:], whole[:200]):
        path.write_bytes(damaged)
        refused(store, config, r"index\.faiss is missing or damaged: run embed\.py again")
    for name in ("index.faiss", "index.yaml"):
        shutil.copy(other.path / name, store.path / name)
    refused(store, config, "made of other vectors than those beside it")
    (store.path / "index.yaml").write_text("_target_: two_tower.index.flat.FlatIndex\n")
    refused(store, config, "of another version of two_tower")


@pytest.mark.parametrize("name", ["hnsw", "ivf"])
def test_a_target_recall_chooses_the_search_value(name: str, tmp_path: Path) -> None:
    store, reports, done = write_store(tmp_path), {}, list[int]()
    queries = vectors_of(400, seed=1), "queries"
    for target in (0.5, 0.999):
        reports[target] = make_index(config_of(name, target_recall=target), store, queries, done.append)
        assert reports[target].target_reached
        assert reports[target].queries == "200 queries"  # the other half chose
        index = load_index(store.path)
        assert f"index.{index.search_param}={index.search_value}" == reports[target].search_param
    assert reports[0.999].recall >= 0.99
    assert sum(done) == 2 * ROWS  # progress counts the vectors
    low, high = (int(report.search_param.partition("=")[2]) for report in reports.values())
    assert low < high


class Lottery(HnswIndex):
    """Finds more with larger values up to a point, and never enough to be sure."""

    search_values = (1, 2, 3, 4)

    def set_search_value(self, value: int) -> None:
        self.ef_search = value

    def search(self, q_BD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        missed = (5, 4, 3, 3)[self.ef_search - 1]
        rows = np.tile(np.arange(10), (100, 1))
        rows[:missed, 5:] = -1
        return np.zeros_like(rows, np.float32), rows


@pytest.mark.parametrize(("target", "reached", "chosen"), [(0.9, 1, 1), (0.97, 1, 3), (0.983, 1, 3), (0.99, 0, 3)])
def test_if_no_value_is_sure_the_best_is_taken(target: float, reached: int, chosen: int, tmp_path: Path) -> None:
    index, sample = Lottery(), Sample(np.zeros((100, DIM), np.float32), "queries")  # all documents are equally near
    exact = np.zeros((100, 10), np.float32)
    assert choose_search_value(index, write_store(tmp_path), sample, exact, target) == bool(reached)
    assert index.ef_search == chosen


def test_a_report_reads_in_two_lines_and_a_miss_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    report = make_index(config_of("ivf_pq", pq_m=1, nlist=500, target_recall=0.999), write_store(tmp_path), None)
    assert report.target_reached is False
    first, second = str(report).splitlines()
    assert first.startswith(f"1,500 vectors as {report.structure}, ")
    assert f"recall@10 {report.recall:.3f} with {report.search_param}, a query takes" in second
    assert second.endswith("on one thread; measured with 200 passages as queries (each looks for the others).")
    assert report.structure.startswith("IVF38,")
    assert "index.target_recall=0.999 is not reached" in caplog.text
    assert "index.nlist=500 is too many for 1,500 vectors: 38 lists." in caplog.text


def test_settings_that_are_refused(tmp_path: Path) -> None:
    store = write_store(tmp_path, 50)
    for name, keys, message in (
        ("faiss", {"factory_string": "Nonsense"}, "FAISS refuses 'Nonsense'"),
        ("faiss", {"parameters": "nonsense=3"}, r"index\.parameters=nonsense=3"),
        ("flat", {"gpu": True}, r"index\.gpu=true needs faiss-gpu and a GPU"),
        ("hnsw", {"ef_search": 0}, r"index\.ef_search=0 must be at least 1"),
        ("ivf_pq", {"pq_m": 7}, r"index\.pq_m=7 must divide the 32 dimensions"),
        ("chroma", {"m": 0}, r"index\.m=0 must be at least 2"),
        ("chroma", {"host": "127.0.0.1", "port": 9}, r"The Chroma server at 127\.0\.0\.1:9"),
        ("flat", {"target_recall": 1.5}, r"index\.target_recall=1\.5 must be"),
    ):
        if name != "chroma" or find_spec("chromadb"):
            with pytest.raises(UserError, match=message):
                make_index(config_of(name, **keys), store, None)
            assert not (store.path / "index.yaml").exists()


def test_a_gpu_is_used_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    move = Mock(side_effect=lambda *arguments: arguments[-1])
    fakes = {"index_cpu_to_gpu": move, "index_gpu_to_cpu": move, "get_num_gpus": lambda: 1}
    fakes |= {"StandardGpuResources": object, "GpuParameterSpace": faiss.ParameterSpace}
    for name, fake in fakes.items():
        monkeypatch.setattr(faiss, name, fake, raising=False)
    store = write_store(tmp_path)
    make_index(config_of("ivf", gpu=True), store, None)
    assert load_index(store.path).search(vectors_of(2), 3)[1].shape == (2, 3)
    assert [len(call.args) for call in move.call_args_list] == [3, 1, 3]  # there, back to be saved, and there again
    with pytest.raises(UserError, match="gpu"):  # FAISS has no graph there
        build("index", {"_target_": config_of("hnsw")["_target_"], "gpu": True})


def test_exact_hits_samples_and_recall_are_those_of_a_sort(tmp_path: Path) -> None:
    store, queries = write_store(tmp_path, similarity="euclidean"), vectors_of(20, "euclidean", seed=2)
    exact = hits_by_sort(queries, store)
    np.testing.assert_allclose(exact_hits(store, Sample(queries, "queries")), exact, rtol=1e-4)
    best = np.argsort(np.linalg.norm(np.concatenate(list(store.vectors())) - queries[0], axis=1))
    found = np.array([[best[0], best[-1], -1, best[9]]])  # two of the four are among the ten best
    assert recalls(store, Sample(queries[:1], "queries"), found, exact[:1]).tolist() == [0.2]
    vectors, sample = np.concatenate(list(store.vectors())), Sample.draw(store, None, 200)
    np.testing.assert_array_equal(sample.vectors, vectors[sample.own_rows])  # passages look for the others
    exact = hits_by_sort(sample.vectors, store, sample.own_rows)
    np.testing.assert_allclose(exact_hits(store, sample), exact, rtol=1e-4)
    assert make_index(config_of("flat"), store, None).recall == 1
    sample = Sample.draw(store, (queries, "queries of 'dev'"), 15)
    assert (len(sample), sample.kind, sample.own_rows) == (15, "queries of 'dev'", None)
    assert {tuple(v) for v in sample.vectors.tolist()} <= {tuple(v) for v in queries.tolist()}
    assert len(Sample.draw(store, (queries[:0], "none"), 5000)) == ROWS
    rows = np.array([[3, 0, 5], [1, 2, 3]])
    absent = Sample(vectors[:2], "queries", np.array([0, 7])).without_own(rows, rows)
    np.testing.assert_array_equal(absent, [[3, 5], [1, 2]])


def test_a_shared_chroma_server_keeps_other_collections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chromadb = pytest.importorskip("chromadb", reason="needs pip install -e '.[chroma]'")
    server = chromadb.PersistentClient(str(tmp_path / "server"))
    monkeypatch.setattr(chromadb, "HttpClient", lambda host, port, settings, **_: server)
    config = config_of("chroma", host="example.org")
    mine, other = write_store(tmp_path, 60), write_store(tmp_path, 50)
    for _ in range(2):  # its own collection is made anew
        make_index(config, mine, None)
    with pytest.raises(UserError, match=r"example\.org:8000 has a collection passages that is not of .*=NAME"):
        make_index(config, other, None)
    make_index({**config, "collection": "others"}, other, None)
    for store, rows in ((mine, 60), (other, 50)):
        assert load_index(store.path).search(vectors_of(1), 99)[1].shape == (1, rows)
    server.get_collection("others").delete(ids=["3"])
    server.delete_collection("passages")
    server.create_collection("passages")
    for store, name in ((mine, "passages"), (other, "others")):
        with pytest.raises(UserError, match=f"holds no whole collection {name}"):
            load_index(store.path)


@pytest.mark.parametrize("name", ["flat", "hnsw"])
def test_vectors_are_never_there_twice(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The array has room for all of them before the first is added, so it does not move."""
    import faiss

    seen = set[int]()
    store = write_store(tmp_path, rows=3 * 64)
    monkeypatch.setattr("two_tower.index.faiss.BLOCK", 64)
    config = config_of(name)
    index = build("index", {key: value for key, value in config.items() if key != "sample"})

    def look(_: int) -> None:
        array = faiss.downcast_index(getattr(index_of[0], "storage", index_of[0]))
        seen.add(int(array.codes.data()))

    index_of: list[Any] = []
    monkeypatch.setattr(index, "_prepare", index_of.append)
    index.build(store, look)
    assert len(seen) == 1
