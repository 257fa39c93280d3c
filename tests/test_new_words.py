"""Another collection's words get vectors by themselves: in its index, its searches and its figures."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import composed, word
from test_train import fit

from two_tower.data.beir import Beir
from two_tower.data.passages import Passages
from two_tower.embed import embed
from two_tower.encode import WORDS, Encoder
from two_tower.errors import UserError
from two_tower.evaluation import evaluate_run
from two_tower.new_words import NewWords
from two_tower.run import Run
from two_tower.search import Searcher, load_searchers


@pytest.fixture(scope="module")
def once(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    fit(collection, path, "tokenizer.min_frequency=1", "trainer.max_epochs=1", "tower.lexical_dims=64")
    return path


@pytest.fixture
def trained(once: Path, tmp_path: Path) -> Run:
    return Run(shutil.copytree(once, tmp_path / "run"))


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
    np.testing.assert_array_equal(now.documents(known), before.documents(known))  # most passages are known
    embed(composed(f"run={trained.path}", program="embed"))  # its own collection has none
    assert not (trained.index / WORDS).exists()
    assert len(load_searchers([trained.path], [tmp_path / "index", trained.index])) == 2


def test_evaluation_knows_the_words_of_what_it_searches(trained: Run, other: Path) -> None:
    results = evaluate_run(trained.path, {"_target_": "two_tower.data.beir.Beir", "path": str(other)}, "test")
    assert results["dense/mrr@10"] == 1


def test_words_of_passages_kept_out_of_training_are_new(collection: Path, tmp_path: Path) -> None:
    fit(collection, tmp_path / "run", "trainer.max_epochs=1", "data.unseen_share=0.2")
    assert not Run(tmp_path / "run").has_learned(Beir(str(collection)).fingerprint())
    fit(collection, tmp_path / "whole", "trainer.max_epochs=1")
    assert Run(tmp_path / "whole").has_learned(Beir(str(collection)).fingerprint())


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


def test_weights_are_between_what_was_learned_and_the_collections_idf(trained: Run, tmp_path: Path) -> None:
    """A word that every second passage has counts less there, one that none has counts more; by powers of 4."""
    texts = [f"{word(0)} {'common' if i % 4 else 'rare'} {word(i)}" for i in range(1, 21)]
    (tmp_path / "mine.jsonl").write_text(
        "".join(json.dumps({"_id": str(i), "text": t}) + "\n" for i, t in enumerate(texts))
    )
    encoder = Encoder.load(trained)
    words = NewWords.find(trained, encoder.model, encoder.tokenizer, Passages(str(tmp_path / "mine.jsonl")))
    assert words is not None
    assert list(words.words) == ["common", "rare"]
    learned = encoder.model.query_tower.words.log_weights
    (_, weights), *_ = words.rows.values()
    idf = torch.load(trained.best, weights_only=True)["two_tower"]["idf"]
    frequencies = dict.fromkeys(encoder.tokenizer.vocabulary, 0) | {word(i): 1 for i in range(1, 21)} | {word(0): 16}
    for place, each in enumerate(encoder.tokenizer.vocabulary):
        there = math.log1p(16 / (1 + frequencies[each]))
        assert float(weights[place] - learned[place]) == pytest.approx(0.5 * math.log(there / idf[place]), abs=1e-5), (
            each
        )
    beyond = float((learned - idf.log()).mean())
    for place, count in ((-2, 16), (-1, 4)):
        assert float(weights[place]) == pytest.approx(math.log(math.log1p(16 / (1 + count))) + beyond, abs=1e-5)


@pytest.mark.parametrize("familiar", [True, False])
def test_a_passage_more_leaves_the_vectors_of_others(familiar: bool, trained: Run, other: Path, tmp_path: Path) -> None:
    """In the run's own collection and elsewhere."""
    folder = other if familiar else shutil.copytree(other, tmp_path / "elsewhere")
    if not familiar:
        rows = [{"_id": str(i), "text": f"{word(i)} quixotic{i % 7} {word(i + 1)} elsewhere"} for i in range(40)]
        (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [row["text"] for row in map(json.loads, (folder / "corpus.jsonl").read_text().splitlines())]
    before = Encoder.of_collection(trained, Beir(str(folder)))
    with (folder / "corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"_id": "another", "text": f"{word(0)} umbrella"}) + "\n")
    after = Encoder.of_collection(trained, Beir(str(folder)))
    assert before.words is not None
    assert after.words is not None
    assert {*after.words.words} - {*before.words.words} == {"umbrella"}
    np.testing.assert_array_equal(before.documents(texts), after.documents(texts))


def test_uniform_weights_stay(collection: Path, other: Path, tmp_path: Path) -> None:
    fit(collection, tmp_path / "flat", "embedding.weights=uniform", "tower.learn_weights=false", "trainer.max_epochs=1")
    words = Encoder.of_collection(Run(tmp_path / "flat"), Beir(str(other))).words
    assert words is not None
    assert not any(float(weights.abs().max()) for _, weights in words.rows.values())


def test_a_collection_without_new_words_has_weights_of_its_own(trained: Run, tmp_path: Path) -> None:
    (tmp_path / "few.jsonl").write_text(json.dumps({"_id": "1", "text": f"{word(0)} {word(1)}"}) + "\n")
    encoder = Encoder.of_collection(trained, Passages(str(tmp_path / "few.jsonl")))
    assert encoder.words is not None
    assert not encoder.words.words
    assert str(encoder.words) == "0 of 2 words of the passages (0.00%) were unknown."
    text = [f"{word(0)} {word(5)}"]
    assert not np.array_equal(encoder.documents(text), Encoder.load(trained).documents(text))
    encoder.words.write(tmp_path / "words.safetensors")
    again = NewWords.read(tmp_path / "words.safetensors")
    assert again is not None
    assert again.fingerprint == encoder.words.fingerprint
