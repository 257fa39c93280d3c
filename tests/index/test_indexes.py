"""One suite for all indexes: they find what exact search finds, with the scores of the similarity."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from two_tower.config import build, read
from two_tower.errors import UserError
from two_tower.index._make import is_made, load_index, make_index
from two_tower.index._measure import choose_effort, exact, recall
from two_tower.index._sample import Sample, sample
from two_tower.index.base import VectorIndex
from two_tower.index.hnsw import HnswIndex
from two_tower.index.ivf import IvfIndex, IvfPqIndex
from two_tower.similarity import Similarity
from two_tower.store import Manifest, VectorStore

FACTORY = {"_target_": "two_tower.index.faiss.FactoryIndex"}
# Its configuration, and the recall@10 that clustered vectors must reach.
INDEXES: dict[str, tuple[dict[str, Any], float]] = {
    "flat": ({"_target_": "two_tower.index.flat.FlatIndex"}, 1.0),
    "hnsw": ({"_target_": "two_tower.index.hnsw.HnswIndex"}, 0.97),
    "ivf": ({"_target_": "two_tower.index.ivf.IvfIndex"}, 0.97),
    "ivf_pq": ({"_target_": "two_tower.index.ivf.IvfPqIndex", "pieces": 16}, 0.6),
    "faiss": ({**FACTORY, "factory_string": "IVF8,SQ8", "parameters": "nprobe=8"}, 0.9),
    "chroma": ({"_target_": "two_tower.index.chroma.ChromaIndex"}, 0.9),
}  # fmt: skip
DIM, ROWS = 32, 1500


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """FAISS's threads wait for each other in loops, which takes seconds where other tests run beside; one repeats."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


def config_of(name: str) -> dict[str, Any]:
    if name == "chroma":
        pytest.importorskip("chromadb", reason="needs pip install -e '.[chroma]'")
    return INDEXES[name][0]


def vectors_of(rows: int, similarity: str, seed: int = 0) -> np.ndarray:
    """Clustered, as texts are: on random vectors no index is any good."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(30, DIM))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(0, 30, rows)] + 0.4 * rng.normal(size=(rows, DIM))
    return Similarity(similarity).prepare(torch.from_numpy(vectors.astype(np.float32))).numpy()


Make = Callable[..., VectorStore]


@pytest.fixture
def store_of(tmp_path: Path) -> Make:
    """``store_of(rows, similarity)``: a complete store in shards of 400."""

    def make(rows: int = ROWS, similarity: str = "cosine") -> VectorStore:
        folder = tmp_path / f"{similarity}-{rows}"
        folder.mkdir()
        store = VectorStore(folder, Manifest("c", "t", "x", similarity, DIM, 400))
        vectors = vectors_of(rows, similarity)
        for number, start in enumerate(range(0, rows, 400)):
            part = vectors[start : start + 400]
            ids = [str(start + i) for i in range(len(part))]
            store.write(number, part, pa.table({"id": ids, "title": ids, "text": ids}))
        store.finish()
        return store

    return make


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("name", INDEXES)
def test_it_finds_what_exact_search_finds(name: str, similarity: str, store_of: Make) -> None:
    store, measure = store_of(similarity=similarity), Similarity(similarity)
    config, least = config_of(name), INDEXES[name][1]
    report = make_index(store.path, config, store, measure, None)
    queries = vectors_of(50, similarity, seed=1)
    vectors = np.concatenate(list(store.vectors()))
    scores = measure.scores(torch.from_numpy(queries), torch.from_numpy(vectors)).numpy()
    for index in (load_index(store.path, measure),):
        found, rows = index.search(queries, 10)
        assert found.shape == rows.shape == (50, 10)
        assert found.dtype == np.float32
        assert rows.dtype == np.int64
        assert (np.diff(found, axis=1) <= 1e-6).all()  # best first
        if name not in ("ivf_pq", "faiss"):  # which know the vectors approximately
            rounded = 1e-3 if name == "hnsw" else 0.0  # it keeps float16
            np.testing.assert_allclose(found, np.take_along_axis(scores, rows, 1), rtol=rounded, atol=1e-4 + rounded)
        wanted = np.argsort(-scores, axis=1)[:, :10]
        least = least if similarity != "dot" else least - 0.1  # graphs and lists are made for distances
        assert recall(rows, wanted) >= least
    assert report.vectors == ROWS
    assert report.bytes > 1000
    assert 0 < report.p50_ms <= report.p99_ms
    assert 0 < report.recall <= 1
    assert json.loads((store.path / "report.json").read_text()) == report.to_dict()


@pytest.mark.parametrize("name", INDEXES)
@pytest.mark.parametrize("rows", [1, 5, 60])
def test_small_collections_and_many_hits(name: str, rows: int, store_of: Make) -> None:
    if name == "faiss":
        pytest.skip("its factory string says how many vectors it needs")
    store, similarity = store_of(rows), Similarity()
    make_index(store.path, config_of(name), store, similarity, None)
    index = load_index(store.path, similarity)
    scores, found = index.search(vectors_of(3, "cosine", seed=1), 500)
    assert scores.shape == found.shape == (3, rows)
    assert all(sorted(row) == list(range(rows)) for row in found.tolist())
    scores, found = index.search(np.zeros((0, DIM), np.float32), 2)
    assert scores.shape == found.shape == (0, min(2, rows))


@pytest.mark.parametrize("name", ["flat", "hnsw", "ivf", "ivf_pq", "faiss"])
def test_a_build_repeats(name: str, store_of: Make) -> None:
    store = store_of()
    make_index(store.path, INDEXES[name][0], store, Similarity(), None)
    first = (store.path / "index.faiss").read_bytes()
    make_index(store.path, INDEXES[name][0], store, Similarity(), None)
    assert (store.path / "index.faiss").read_bytes() == first


@pytest.mark.parametrize("name", INDEXES)
def test_a_damaged_index_is_told_in_a_sentence(name: str, store_of: Make) -> None:
    store, config = store_of(), config_of(name)
    make_index(store.path, config, store, Similarity(), None)
    assert is_made(store.path, config, Similarity())
    if name == "chroma":
        from chromadb.api.shared_system_client import SharedSystemClient

        SharedSystemClient.clear_system_cache()  # as another process would find it
        for file in (store.path / "chroma").rglob("*"):
            if file.is_file():
                file.unlink()
    else:
        path = store.path / "index.faiss"
        whole = path.read_bytes()
        path.write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])
        with pytest.raises(UserError, match=r"index\.faiss is missing or damaged: run embed\.py again"):
            load_index(store.path, Similarity())
        path.write_bytes(whole[:200])
    with pytest.raises(UserError, match=r"run embed\.py again"):
        load_index(store.path, Similarity())
    assert not is_made(store.path, config, Similarity())


@pytest.mark.parametrize("name", ["hnsw", "ivf"])
def test_a_target_recall_chooses_the_effort(name: str, store_of: Make, caplog: pytest.LogCaptureFixture) -> None:
    store, config = store_of(), INDEXES[name][0]
    queries = vectors_of(400, "cosine", seed=1)
    made: dict[float, Any] = {}
    for target in (0.5, 0.999):
        made[target] = make_index(
            store.path, {**config, "target_recall": target}, store, Similarity(), (queries, "queries")
        )
        assert made[target].target_reached
        assert made[target].queries == "200 queries"  # the other half chose
        index = load_index(store.path, Similarity())
        assert f"index.{index.name}={getattr(index, index.name)}" == made[target].effort
    assert made[0.999].recall >= 0.99
    assert int(made[0.5].effort.partition("=")[2]) < int(made[0.999].effort.partition("=")[2])


def test_lists_are_all_read_where_the_target_asks_for_it(store_of: Make) -> None:
    store, index = store_of(), IvfIndex()
    index.build(store, Similarity(), store.path)
    asked = sample(store, None, 400)
    assert index.grid[-1] == 38  # lists
    assert choose_effort(index, asked, exact(store, Similarity(), asked), 1.0) == index.probes
    assert (
        recall(
            index.search(vectors_of(30, "cosine", seed=2), 10)[1],
            exact(store, Similarity(), Sample(vectors_of(30, "cosine", seed=2), "q")),
        )
        == 1
    )


class Lottery(HnswIndex):
    """Finds more with more effort up to a point, and never enough to be sure."""

    grid = (1, 2, 3, 4)

    def set_effort(self, value: int) -> None:
        self.ef_search = value

    def search(self, q_BD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        missed = (5, 4, 3, 3)[self.ef_search - 1]
        rows = np.tile(np.arange(10), (100, 1))
        rows[:missed, 5:] = -1
        return np.zeros_like(rows, np.float32), rows


@pytest.mark.parametrize(("target", "chosen"), [(0.9, 1), (0.97, 3), (0.983, 3), (0.99, None)])
def test_where_no_effort_is_sure_the_best_is_taken(target: float, chosen: int | None) -> None:
    index, asked = Lottery(), Sample(np.zeros((100, DIM), np.float32), "queries")
    wanted = np.tile(np.arange(10), (100, 1))
    assert choose_effort(index, asked, wanted, target) == chosen
    assert index.ef_search == (chosen or 3)


def test_a_target_out_of_reach_is_told(store_of: Make, caplog: pytest.LogCaptureFixture) -> None:
    store = store_of()
    config = {**INDEXES["ivf_pq"][0], "pieces": 4, "target_recall": 0.999}
    report = make_index(store.path, config, store, Similarity(), None)
    assert report.target_reached is False
    assert "index.target_recall=0.999 is not reached" in caplog.text


def test_exact_neighbours_and_recall_are_those_of_a_sort(store_of: Make) -> None:
    store = store_of(similarity="euclidean")
    queries, vectors = vectors_of(20, "euclidean", seed=2), np.concatenate(list(store.vectors()))
    distances = np.linalg.norm(queries[:, None] - vectors[None], axis=2)
    wanted = exact(store, Similarity("euclidean"), Sample(queries, "queries"))
    assert recall(wanted, np.argsort(distances, axis=1)[:, :10]) == 1
    np.testing.assert_array_equal(wanted, np.argsort(distances, axis=1)[:, :10])
    assert recall(np.array([[1, 2, 3, -1]]), np.array([[1, 2, 8, 9]])) == 0.5


def test_sizes_follow_the_collection() -> None:
    assert IvfIndex().factory(1_000_000, 256) == "IVF4000,Flat"
    assert IvfIndex(lists=100).factory(1000, 256) == "IVF25,Flat"
    assert IvfIndex().factory(10, 256) == "IVF1,Flat"
    assert IvfPqIndex().factory(1_000_000, 256) == "IVF4000,PQ64x8"
    assert IvfPqIndex().factory(1_000_000, 50) == "IVF4000,PQ10x8"
    assert IvfPqIndex().factory(2000, 256) == "IVF51,PQ64x5"
    assert IvfPqIndex().factory(100, 256) == "IVF2,Flat"
    with pytest.raises(UserError, match="must divide the 50 dimensions"):
        IvfPqIndex(pieces=7).factory(100, 50)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({**FACTORY, "factory_string": "Nonsense"}, "FAISS refuses 'Nonsense'"),
        ({**FACTORY, "factory_string": "IVF9999,Flat"}, "FAISS refuses 'IVF9999"),
        ({**FACTORY, "parameters": "nonsense=3"}, "index.parameters=nonsense=3"),
    ],
)  # fmt: skip
def test_what_faiss_refuses_is_told(config: dict[str, Any], said: str, store_of: Make) -> None:
    store = store_of()
    with pytest.raises(UserError, match=said):
        make_index(store.path, config, store, Similarity(), None)
    assert not (store.path / "index.yaml").exists()


def test_a_gpu_that_is_not_there_is_told() -> None:
    for name in ("flat", "ivf", "ivf_pq"):
        with pytest.raises(UserError, match=r"index\.gpu=true needs faiss-gpu and a GPU"):
            build("index", {**INDEXES[name][0], "gpu": True})


def test_a_gpu_is_used_where_there_is_one(store_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    moved: list[str] = []
    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: "resources", raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)

    def to_gpu(resources: str, device: int, index: Any) -> Any:  # noqa: ANN401
        moved.append(f"{resources} {device}")
        return index

    def to_cpu(index: Any) -> Any:  # noqa: ANN401
        moved.append("back")
        return index

    monkeypatch.setattr(faiss, "index_cpu_to_gpu", to_gpu, raising=False)
    monkeypatch.setattr(faiss, "index_gpu_to_cpu", to_cpu, raising=False)
    monkeypatch.setattr(faiss, "GpuParameterSpace", faiss.ParameterSpace, raising=False)
    store = store_of()
    make_index(store.path, {**INDEXES["ivf"][0], "gpu": True}, store, Similarity(), None)
    found: VectorIndex = load_index(store.path, Similarity())
    assert found.search(vectors_of(2, "cosine"), 3)[1].shape == (2, 3)
    assert moved == ["resources 0", "back", "resources 0"]
    assert read(store.path / "index.yaml")["index"]["gpu"] is True


def test_passages_as_queries_look_for_the_others(store_of: Make) -> None:
    store = store_of(similarity="euclidean")
    vectors = np.concatenate(list(store.vectors()))
    asked = sample(store, None, 200)
    assert asked.own is not None
    np.testing.assert_array_equal(asked.vectors, vectors[asked.own])
    distances = np.linalg.norm(asked.vectors[:, None] - vectors[None], axis=2)
    distances[np.arange(200), asked.own] = np.inf
    np.testing.assert_array_equal(exact(store, Similarity("euclidean"), asked), np.argsort(distances, axis=1)[:, :10])
    assert make_index(store.path, INDEXES["flat"][0], store, Similarity("euclidean"), None).recall == 1
    absent = Sample(vectors[:2], "queries", np.array([0, 7])).others(np.array([[3, 0, 5], [1, 2, 3]]))
    np.testing.assert_array_equal(absent, [[3, 5], [1, 2]])


def test_no_more_queries_than_asked_for(store_of: Make) -> None:
    store, queries = store_of(), vectors_of(30, "cosine", seed=1)
    asked = sample(store, (queries, "queries of 'dev'"), 20)
    assert (len(asked), asked.which, asked.own) == (20, "queries of 'dev'", None)
    assert {tuple(v) for v in asked.vectors.tolist()} <= {tuple(v) for v in queries.tolist()}
    assert len(sample(store, (queries[:0], "none"), 5000)) == ROWS


def test_an_index_of_other_vectors_is_refused(store_of: Make) -> None:
    store, other = store_of(), store_of(60)
    for each in (store, other):
        make_index(each.path, INDEXES["flat"][0], each, Similarity(), None)
    for name in ("index.faiss", "index.yaml"):
        (store.path / name).write_bytes((other.path / name).read_bytes())
    with pytest.raises(UserError, match="made of other vectors than those beside it"):
        load_index(store.path, Similarity())
    (store.path / "index.yaml").write_text("_target_: two_tower.index.flat.FlatIndex\n")
    with pytest.raises(UserError, match="of another version of two_tower"):
        load_index(store.path, Similarity())
    assert not is_made(store.path, INDEXES["flat"][0], Similarity())


def test_a_shared_chroma_server_keeps_the_collections_of_others(
    store_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chromadb = pytest.importorskip("chromadb", reason="needs pip install -e '.[chroma]'")
    server = chromadb.PersistentClient(str(tmp_path / "server"))
    monkeypatch.setattr(chromadb, "HttpClient", lambda host, port, settings: server)
    config = {**INDEXES["chroma"][0], "host": "example.org"}
    mine, other = store_of(60), store_of(50)
    make_index(mine.path, config, mine, Similarity(), None)
    make_index(mine.path, config, mine, Similarity(), None)  # its own collection is made anew
    with pytest.raises(UserError, match=r"example\.org:8000 has a collection passages that is not of .*=NAME"):
        make_index(other.path, config, other, Similarity(), None)
    make_index(other.path, {**config, "collection": "others"}, other, Similarity(), None)
    assert load_index(mine.path, Similarity()).search(vectors_of(1, "cosine"), 99)[1].shape == (1, 60)
    assert load_index(other.path, Similarity()).search(vectors_of(1, "cosine"), 99)[1].shape == (1, 50)
    server.get_collection("others").delete(ids=["3"])
    with pytest.raises(UserError, match="holds no whole collection others"):
        load_index(other.path, Similarity())
    server.delete_collection("passages")
    server.create_collection("passages")
    with pytest.raises(UserError, match="holds no whole collection passages"):
        load_index(mine.path, Similarity())


def test_a_chroma_server_that_does_not_answer_is_told(store_of: Make) -> None:
    store, config = store_of(5), {**config_of("chroma"), "host": "127.0.0.1", "port": 9}
    with pytest.raises(UserError, match=r"No Chroma server answers at 127\.0\.0\.1:9"):
        make_index(store.path, config, store, Similarity(), None)


@pytest.mark.parametrize(
    ("name", "sizes", "said"),
    [
        ("hnsw", {"m": 1}, r"index\.m=1 must be at least 2"),
        ("hnsw", {"ef_search": 0}, r"index\.ef_search=0 must be at least 1"),
        ("ivf", {"lists": 0}, r"index\.lists=0 must be at least 1"),
        ("ivf", {"probes": -1}, r"index\.probes=-1 must be at least 1"),
        ("ivf_pq", {"pieces": 0}, r"index\.pieces=0 must be at least 1"),
        ("chroma", {"m": 0}, r"index\.m=0 must be at least 2"),
        ("flat", {"target_recall": 1.5}, r"index\.target_recall=1\.5 must be"),
        ("flat", {"sample": 0}, r"index\.sample=0 must be"),
    ],
)  # fmt: skip
def test_sizes_that_cannot_be_are_told(name: str, sizes: dict[str, float], said: str, store_of: Make) -> None:
    store = store_of(5)
    with pytest.raises(UserError, match=said):
        make_index(store.path, {**config_of(name), **sizes}, store, Similarity(), None)


def test_too_many_lists_are_reduced_aloud(store_of: Make, caplog: pytest.LogCaptureFixture) -> None:
    store = store_of()
    report = make_index(store.path, {**INDEXES["ivf"][0], "lists": 500}, store, Similarity(), None)
    assert report.structure == "IVF38,Flat"
    assert "index.lists=500 is too many for 1,500 vectors: 38 lists." in caplog.text


def test_a_report_reads_in_two_lines_and_progress_counts_the_vectors(store_of: Make) -> None:
    store, done = store_of(), [0]
    report = make_index(store.path, INDEXES["hnsw"][0], store, Similarity(), None, done.append)
    assert sum(done) == ROWS
    first, second = str(report).splitlines()
    assert first.startswith("1,500 vectors as HNSW32,SQfp16, ")
    assert f"recall@10 {report.recall:.3f} with index.ef_search=64, a query takes" in second
    assert second.endswith("on one thread; measured with 1,000 passages as queries (each looks for the others).")
