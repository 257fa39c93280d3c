"""From vectors on disk to ranked passages: store, encoding, index and search of one small run."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import word
from killing import Killed
from test_encode import random_encoder
from test_train import fit
from training import WithFields, embedded, indexed

from two_tower.ask import ask
from two_tower.data.base import full_text
from two_tower.data.beir import Beir
from two_tower.encode import Encoder, embed_corpus
from two_tower.errors import UserError
from two_tower.files import file_hash
from two_tower.index import load_index, make_index
from two_tower.run import Run
from two_tower.search import Hit, Searcher
from two_tower.store import VectorStore

QUERY = f"{word(1000)} {word(1001)}"


@pytest.fixture(scope="module")
def run(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("search") / "run"
    fit(collection, path, "shared_towers=false")
    return Run(embedded(path))


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_search_equals_brute_force(similarity: str, collection: Path, tmp_path: Path) -> None:
    source = Beir(str(collection))
    rows = {row["id"]: row for batch in source.corpus() for row in batch.to_pylist()}
    encoder = random_encoder([row["text"] for row in rows.values()], similarity)
    store = embed_corpus(encoder, source, tmp_path, shard_rows=100)
    make_index({"_target_": "two_tower.index.faiss.FlatIndex"}, store, None)
    searcher, queries = Searcher(encoder, load_index(tmp_path), store), source.queries("test")["text"].to_pylist()
    passages = pa.concat_tables(store.texts())
    ids = passages["id"].to_pylist()
    vectors = [torch.from_numpy(v) for v in (encoder.queries(queries), encoder.documents(full_text(passages)))]
    scores = encoder.model.similarity.scores(*vectors).numpy()
    for row, answer in zip(scores, searcher.search(queries, k=7), strict=True):
        best = sorted(range(len(ids)), key=lambda i: (row[i], ids[i].encode()), reverse=True)[:7]
        assert [h.rank for h in answer.hits] == list(range(1, 8))
        assert all((h.title, h.text) == (rows[h.id]["title"], rows[h.id]["text"]) for h in answer.hits)
        np.testing.assert_allclose([h.score for h in answer.hits], row[best], atol=1e-5)
        # Scores that differ by rounding only may change places.
        if np.diff(np.sort(row)[-8:]).min() > 1e-5:
            assert [h.id for h in answer.hits] == [ids[i] for i in best]


def test_more_hits_than_passages_and_unknown_words(run: Run) -> None:
    searcher = Searcher.load(run.path)
    rare = searcher.encoder.tokenizer.vocabulary[-1]
    answers = searcher.search([f"{rare} xyz", f"xyz {rare}", "", "xyz", " ?! 無"], k=5000)
    assert [len(answer.hits) for answer in answers] == [240, 240, 0, 0, 0]
    unknown, nothing = "so left out: xyz.", "nothing to search with."
    for answer, end in zip(answers, (unknown, unknown, "query is empty.", nothing, nothing), strict=True):
        assert len(answer.notes) == 1
        assert answer.notes[0].endswith(end)


def test_the_store_is_the_contract_and_one_of_another_run_is_recognized(run: Run) -> None:
    store, encoder = VectorStore.open(run.index), Encoder.load(run)
    manifest = store.manifest
    assert (run.index / "ids.txt").read_text().splitlines() == [f"d{i}" for i in range(240)]
    assert (manifest.complete, manifest.checkpoint, manifest.rows, manifest.dim) == (True, file_hash(run.best), 240, 16)
    assert [p["id"] for p in store.passages([239, 0, 101])] == ["d239", "d0", "d101"]
    assert encoder.mismatches(manifest) == []
    for key, value in (("tokenizer", "another"), ("checkpoint", "another"), ("similarity", "another"), ("dim", 17)):
        assert encoder.mismatches(replace(manifest, **{key: value})) == [key]


@pytest.mark.parametrize("shard_rows", [70, 1000])
def test_an_interrupted_embedding_continues(run: Run, collection: Path, tmp_path: Path, shard_rows: int) -> None:
    encoder = Encoder.load(run)

    class Dying(Beir):
        def search_corpus(self) -> Iterator[pa.RecordBatch]:
            for batch in super().corpus():
                yield batch.slice(0, 150)
                raise Killed

    whole = embed_corpus(encoder, Beir(str(collection)), tmp_path / "whole", shard_rows)
    with pytest.raises(Killed):
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


@pytest.fixture(scope="module")
def with_fields(run: Run, collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index whose passages have fields."""
    return indexed(run.path, WithFields(str(collection)), tmp_path_factory.mktemp("fields") / "faq")


def test_fields_come_with_the_passage(run: Run, with_fields: Path) -> None:
    own, other = (Searcher.load(run.path, index).search([QUERY], 240)[0].hits for index in (None, with_fields))
    assert [(hit.id, hit.score) for hit in own] == [(hit.id, hit.score) for hit in other]
    assert not any(hit.fields or hit.url for hit in own)
    kinds = [{"URL": "https://example.org/ü", "views": 3, "share": None}, {"link": "javascript:bad()"}, {}, {}]
    for hit in other:
        row = int(hit.id[1:])
        assert hit.fields == ({} if row < 100 else kinds[row % 4])
        assert hit.url == hit.fields.get("URL")
    assert Hit(1, "", 0, "", "", fields={"source": "HTTP://a.b", "url": "ftp://a.b"}).url == "HTTP://a.b"
    assert Hit(1, "", 0, "", "", fields={"URL": "file:///a/b.pdf#page=3"}).url == "file:///a/b.pdf#page=3"


def test_several_indexes_answer_each_for_itself(
    run: Run, with_fields: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(run.path, [run.index, with_fields], QUERY, 40, "dense", as_json=False)
    shown = capsys.readouterr().out
    assert re.findall(r"^\S+: 240 passages$", shown, re.MULTILINE) == ["run: 240 passages", "faq: 240 passages"]
    assert 0 < shown.count("https://example.org/ü") < 40
    assert "javascript" not in shown
    ask(run.path, [run.index, with_fields], QUERY, 3, "dense", as_json=True)
    both = json.loads(capsys.readouterr().out)
    for index in (run.index, with_fields):
        ask(run.path, [index], QUERY, 3, "dense", as_json=True)
        alone = json.loads(capsys.readouterr().out)
        assert both["indexes"].pop(0) == {"index": "run" if index == run.index else "faq", **alone}
    assert (both["query"], both["indexes"]) == (QUERY, [])


def test_an_index_that_is_missing_is_named_with_the_command_that_makes_it(run: Run, tmp_path: Path) -> None:
    for index, making in ((tmp_path / "no such", f"'output={tmp_path / 'no such'}'  first, with data=…"), (None, "")):
        run_folder = run.path if index else shutil.copytree(run.path, tmp_path / "l'été", ignore=lambda *_: ["index"])
        with pytest.raises(UserError, match="holds no finished index") as raised:
            Searcher.load(run_folder, index)
        assert f"run  {shlex.join(['python', 'embed.py', f'run={run_folder}'])}" in str(raised.value)
        assert making in str(raised.value)
