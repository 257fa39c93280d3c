"""Another collection's words get vectors by themselves: in its index, its searches and its figures."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import composed, word
from test_train import fit

from two_tower.data.beir import Beir
from two_tower.embed import embed
from two_tower.encode import WORDS, Encoder
from two_tower.errors import UserError
from two_tower.evaluation import evaluate_run
from two_tower.new_words import NewWords, is_learned
from two_tower.run import Run
from two_tower.search import Searcher, load_searchers


@pytest.fixture
def trained(collection: Path, tmp_path: Path) -> Run:
    fit(collection, tmp_path / "run", "tokenizer.min_frequency=1", "trainer.max_epochs=1", "tower.lexical_dims=64")
    return Run(tmp_path / "run")


@pytest.fixture
def other(collection: Path, tmp_path: Path) -> Path:
    """Another collection: a passage more, of new words, and a query for it."""
    folder = shutil.copytree(collection, tmp_path / "other")
    with (folder / "corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"_id": "new", "title": "", "text": f"quixotic {word(0)} zebrafish zebrafish"}) + "\n")
    with (folder / "queries.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"_id": "q-new", "text": "zebrafish"}) + "\n")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq-new\tnew\t1\n", encoding="utf-8")
    return folder


def index_of(run: Run, folder: Path, output: Path) -> None:
    embed(composed(f"run={run.path}", f"output={output}", "data=beir", f"data.path={folder}", program="embed"))


def test_another_collection_is_embedded_and_searched_with_its_words(trained: Run, other: Path, tmp_path: Path) -> None:
    for output in (tmp_path / "index", tmp_path / "index"):  # the second time it is complete
        index_of(trained, other, output)
    words = NewWords.read(tmp_path / "index" / WORDS)
    assert words is not None
    assert list(words.words) == ["zebrafish", "quixotic"]
    found = Searcher.load(trained.path, tmp_path / "index").search(["zebrafish", "quixotic zebrafish"], k=1)
    assert [[hit.id for hit in answer.hits] for answer in found] == [["new"], ["new"]]
    assert not any(answer.notes for answer in found)
    before, now = Encoder.load(trained), Encoder.load(trained, words)
    known = [word(0), f"{word(1)} {word(2)}", ""]
    np.testing.assert_array_equal(now.documents(known), before.documents(known))
    embed(composed(f"run={trained.path}", program="embed"))  # its own collection has none
    assert not (trained.index / WORDS).exists()
    assert len(load_searchers([trained.path], [tmp_path / "index", trained.index])) == 2


def test_evaluation_knows_the_words_of_what_it_searches(trained: Run, other: Path) -> None:
    results = evaluate_run(trained.path, {"_target_": "two_tower.data.beir.Beir", "path": str(other)}, "test")
    assert results["dense/mrr@10"] == 1


def test_words_of_passages_kept_out_of_training_are_new(collection: Path, tmp_path: Path) -> None:
    fit(collection, tmp_path / "run", "trainer.max_epochs=1", "data.unseen_share=0.2")
    assert not is_learned(Run(tmp_path / "run"), Beir(str(collection)))
    fit(collection, tmp_path / "whole", "trainer.max_epochs=1")
    assert is_learned(Run(tmp_path / "whole"), Beir(str(collection)))


def test_words_that_cannot_be_read_are_named(trained: Run, other: Path, tmp_path: Path) -> None:
    embed(
        composed(
            f"run={trained.path}", f"output={tmp_path / 'index'}", "data=beir", f"data.path={other}", program="embed"
        )
    )
    (tmp_path / "index" / WORDS).write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"words\.safetensors cannot be read .*embed again"):
        Searcher.load(trained.path, tmp_path / "index")
    (tmp_path / "index" / WORDS).unlink()
    with pytest.raises(UserError, match="another tokenizer"):
        Searcher.load(trained.path, tmp_path / "index")
