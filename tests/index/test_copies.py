"""Collections in which many passages have one vector: every index finds as much as exact search, and says so."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import configure
from hypothesis import given
from hypothesis import strategies as st
from index.test_indexes import DIM, config_of, vectors_of
from test_store import stored

from two_tower.embed import embed
from two_tower.index import load_index, make_index
from two_tower.index._copies import Copies, DistinctVectors
from two_tower.search import Searcher
from two_tower.similarity import Similarity
from two_tower.store import VectorStore
from two_tower.train import train


def crowds(*sizes: int, single: int, seed: int = 0) -> np.ndarray:
    """Vectors of which some come many times, in any order."""
    vectors = vectors_of(len(sizes) + single, seed=seed)
    counts = [*sizes, *[1] * single]
    return np.random.default_rng(seed).permutation(np.repeat(vectors, counts, axis=0))


def exact(store: VectorStore, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and rows of all passages by brute force: of equal scores the largest id first."""
    vectors = torch.from_numpy(np.concatenate(list(store.vectors())))
    scores = Similarity("cosine").scores(torch.from_numpy(queries), vectors).numpy()
    ids = np.argsort(np.argsort([id.encode() for id in store.ids().to_pylist()]))
    rows = np.stack([np.lexsort((-ids, -row)) for row in scores])[:, :k]
    return np.take_along_axis(scores, rows, 1), rows


@pytest.mark.parametrize(
    ("sizes", "single"),
    [((600,), 900), ((1200,), 0), ((100,) * 12, 0), ((2,) * 500, 0), ((60, 60), 1080)],
    ids=["boilerplate", "all one", "few texts", "each twice", "two small crowds"],
)
@pytest.mark.parametrize("name", ["flat", "hnsw", "chroma"])
def test_recall_is_that_of_distinct_vectors(name: str, sizes: tuple[int, ...], single: int, tmp_path: Path) -> None:
    store = stored(tmp_path / "store", crowds(*sizes, single=single), 400, "cosine")
    report = make_index(config_of(name), store, None)
    assert report.recall >= (1.0 if name == "flat" else 0.99)
    queries = vectors_of(40, seed=1)
    scores, rows = load_index(store.path).search(queries, 10)
    best, _ = exact(store, queries, 10)
    assert (scores[:, -1] >= best[:, -1] - 1e-2).mean() >= 0.99
    assert all(len({*found}) == 10 for found in rows.tolist())  # copies are other passages


def test_of_a_crowd_the_largest_ids_come_first_as_in_exact_search(tmp_path: Path) -> None:
    store = stored(tmp_path / "store", crowds(300, 5, single=100), 100, "cosine")
    make_index(config_of("flat"), store, None)
    queries = vectors_of(20, seed=1)
    scores, rows = load_index(store.path).search(queries, 400)
    expected, order = exact(store, queries, 400)
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    same = np.abs(np.diff(expected, axis=1)) > 1e-6  # where rounding does not decide
    np.testing.assert_array_equal(rows[:, :-1][same], order[:, :-1][same])


def test_a_crowd_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_index(config_of("flat"), stored(tmp_path / "many", crowds(40, single=50), 100, "cosine"), None)
    assert "40 of 90 passages have one vector, that of " in caplog.text
    caplog.clear()
    make_index(config_of("flat"), stored(tmp_path / "few", crowds(3, single=50), 100, "cosine"), None)
    assert not caplog.text


def test_an_index_made_anew_forgets_copies(tmp_path: Path) -> None:
    store = stored(tmp_path / "store", crowds(40, single=50), 100, "cosine")
    make_index(config_of("flat"), store, None)
    assert load_index(store.path).copies is not None
    for file in store.path.glob("vectors-*.npy"):
        np.save(file, vectors_of(90).astype(np.load(file).dtype))
    make_index(config_of("flat"), store, None)
    assert load_index(store.path).copies is None


@given(numbers=st.lists(st.integers(-2, 2), min_size=1, max_size=40), k=st.integers(1, 50))
def test_expanding_equals_a_plain_loop(numbers: list[int], k: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    vectors = np.zeros((len(numbers), DIM), np.float32)
    vectors[:, 0] = numbers
    store = stored(tmp_path_factory.mktemp("store") / "store", vectors, 7, "dot")
    copies = Copies.find(store)
    if copies is None:
        assert len({*numbers}) == len(numbers)
        return
    distinct = np.concatenate(list(DistinctVectors(store, copies).vectors()))[:, 0].tolist()
    assert distinct == list(dict.fromkeys(numbers))
    order = np.argsort([-value for value in distinct], kind="stable")
    scores = np.array([[distinct[i] for i in order]], np.float32)
    found, rows = copies.expand(scores, order[None], k)
    ids = store.ids().to_pylist()
    wanted = sorted(range(len(numbers)), key=lambda row: (numbers[row], ids[row].encode()), reverse=True)[:k]
    assert rows[0, : len(wanted)].tolist() == wanted
    assert found[0, : len(wanted)].tolist() == [numbers[row] for row in wanted]


def test_a_search_that_finds_too_few_says_so(collection: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(configure(collection, run, "trainer.max_steps=4", "validation.bm25=false"))
    index: dict[str, Any] = {**config_of("ivf"), "nlist": 60, "nprobe": 1, "target_recall": None}
    embed({"run": str(run), "output": None, "data": None, "index": index, "shard_rows": 65_536})
    (question,) = {json.loads(line)["text"] for line in (collection / "queries.jsonl").read_text().splitlines()[:1]}
    (answer,) = Searcher.load(run, None).search([question], 100)
    assert len(answer.hits) < 100
    assert f"The index found {len(answer.hits):,} passages instead of 100: a larger index.nprobe" in answer.notes[0]
