"""From vectors on disk to ranked passages: store, encoding, index and search of one small run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from test_encode import random_encoder
from test_train import fit

from embed import embed
from two_tower.data.base import full_text
from two_tower.data.beir import Beir
from two_tower.encode import Encoder, embed_corpus
from two_tower.errors import UserError
from two_tower.files import file_hash
from two_tower.index import load_index, make_index
from two_tower.run import Run
from two_tower.search import Searcher
from two_tower.store import VectorStore

FLAT = {"_target_": "two_tower.index.faiss.FlatIndex"}


@pytest.fixture(scope="module")
def run(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("search") / "run"
    fit(collection, path, "shared_towers=false")
    embed({"run": str(path), "output": None, "data": None, "index": FLAT, "shard_rows": 100})
    return Run(path)


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Run:
    """A run of one's own to damage."""
    shutil.copytree(run.path, tmp_path / "copy")
    return Run(tmp_path / "copy")


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_search_equals_brute_force(similarity: str, collection: Path, tmp_path: Path) -> None:
    source = Beir(str(collection))
    encoder = random_encoder([text for batch in source.corpus() for text in batch["text"].to_pylist()], similarity)
    store = embed_corpus(encoder, source, tmp_path, shard_rows=100)
    make_index(tmp_path, FLAT, store, encoder.model.similarity, None)
    searcher = Searcher(encoder, load_index(tmp_path, encoder.model.similarity), store)
    queries = source.queries("test")["text"].to_pylist()
    passages = pa.concat_tables(store.texts())
    ids = passages["id"].to_pylist()
    scores = encoder.model.similarity.scores(
        torch.from_numpy(encoder.queries(queries)), torch.from_numpy(encoder.documents(full_text(passages)))
    ).numpy()
    for row, answer in zip(scores, searcher.search(queries, k=7), strict=True):
        best = sorted(range(len(ids)), key=lambda i: (row[i], ids[i].encode()), reverse=True)[:7]
        assert [h.rank for h in answer.hits] == list(range(1, 8))
        np.testing.assert_allclose([h.score for h in answer.hits], row[best], atol=1e-5)
        # Scores that differ by rounding only may change places.
        if np.diff(np.sort(row)[-8:]).min() > 1e-5:
            assert [h.id for h in answer.hits] == [ids[i] for i in best]


def test_hits_carry_the_passage(run: Run, collection: Path) -> None:
    rows = {r["_id"]: r for r in map(json.loads, (collection / "corpus.jsonl").read_text().splitlines())}
    for hit in Searcher.load(run.path).search([rows["d17"]["title"]], k=3)[0].hits:
        assert (hit.title, hit.text) == (rows[hit.id]["title"], rows[hit.id]["text"])


def test_more_hits_than_passages_and_unknown_words(run: Run) -> None:
    searcher = Searcher.load(run.path)
    rare = searcher.encoder.tokenizer.vocabulary[-1]
    answers = searcher.search([f"{rare} xyz", f"xyz {rare}", "", "xyz", " ?! 無"], k=5000)
    assert [len(answer.hits) for answer in answers] == [240, 240, 0, 0, 0]
    assert answers[0].notes == answers[1].notes == ["Not in the vocabulary of this model, so left out: xyz."]
    assert answers[2].notes == ["The query is empty."]
    assert answers[3].notes == ["No word of 'xyz' is in the vocabulary of this model: nothing to search with."]
    assert "nothing to search with" in answers[4].notes[0]


def test_the_store_is_the_contract(run: Run) -> None:
    folder = run.index
    assert sorted(p.name for p in folder.glob("vectors-*.npy")) == [f"vectors-0000{i}.npy" for i in range(3)]
    assert (folder / "ids.txt").read_text().splitlines() == [f"d{i}" for i in range(240)]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["complete"]
    assert manifest["checkpoint"] == file_hash(run.best)
    vectors = np.concatenate([np.load(p) for p in sorted(folder.glob("vectors-*.npy"))])
    assert vectors.shape == (240, 16)
    store = VectorStore.open(folder)
    store.verify()
    np.testing.assert_array_equal(vectors, np.concatenate(list(store.vectors())))
    assert [p["id"] for p in store.passages([239, 0, 101])] == ["d239", "d0", "d101"]


class _Killed(BaseException):
    """As if the process had died."""


@pytest.mark.parametrize("shard_rows", [70, 100, 240, 1000])
def test_an_interrupted_embedding_continues_with_equal_bytes(
    run: Run, collection: Path, tmp_path: Path, shard_rows: int
) -> None:
    encoder = Encoder.load(run)

    class Dying(Beir):
        def search_corpus(self) -> Iterator[pa.RecordBatch]:
            for batch in super().corpus():
                yield batch.slice(0, 150)
                raise _Killed

    whole = embed_corpus(encoder, Beir(str(collection)), tmp_path / "whole", shard_rows)
    with pytest.raises(_Killed):
        embed_corpus(encoder, Dying(str(collection)), tmp_path / "cut", shard_rows)
    first = tmp_path / "cut" / "vectors-00000.npy"
    stamp = first.stat().st_mtime_ns if first.exists() else None
    with pytest.raises(UserError, match="holds no finished index"):
        Searcher.load(run.path, tmp_path / "cut")
    continued = embed_corpus(encoder, Beir(str(collection)), tmp_path / "cut", shard_rows)
    assert stamp is None or first.stat().st_mtime_ns == stamp
    assert continued.manifest == whole.manifest
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "cut" / path.name).read_bytes(), path.name
    assert not list((tmp_path / "cut").glob(".*tmp"))


def test_a_store_of_another_run_is_recognized(run: Run) -> None:
    encoder, manifest = Encoder.load(run), VectorStore.open(run.index).manifest
    assert encoder.mismatches(manifest) == []
    for key in ("tokenizer", "checkpoint", "similarity", "dim"):
        assert encoder.mismatches(replace(manifest, **{key: "another"})) == [key]


def test_damaged_files_are_named(copy: Run) -> None:
    for damage in (b"nonsense", b""):
        (copy.index / "index.faiss").write_bytes(damage)
        with pytest.raises(UserError, match=r"index.faiss is missing or damaged"):
            Searcher.load(copy.path)
    (copy.index / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest.json cannot be read"):
        VectorStore.open(copy.index)
    copy.best.write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"best.ckpt cannot be read as a checkpoint"):
        Encoder.load(copy)
