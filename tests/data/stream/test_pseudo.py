"""Pieces of passages as queries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_collection
from hypothesis import given
from hypothesis import strategies as st

from two_tower.data.beir import Beir
from two_tower.data.stream.module import TripletData
from two_tower.data.stream.pseudo import KINDS, pieces
from two_tower.errors import UserError
from two_tower.loss.in_batch import InBatchLoss
from two_tower.negatives.given import GivenNegatives
from two_tower.negatives.in_batch import InBatchNegatives
from two_tower.tokenizer.word import WordTokenizer

WORDS = st.lists(st.sampled_from(["lion", "river", "1.5", "x", "Paris"]), max_size=12).map(" ".join)
TEXT = st.lists(WORDS, max_size=6).map(". ".join)
SOME_KINDS = st.lists(st.sampled_from(KINDS), min_size=1, max_size=3)


@given(WORDS, TEXT, st.integers(0, 5), SOME_KINDS, st.integers(0, 9))
def test_pieces_are_of_the_passage(title: str, text: str, count: int, kinds: list[str], seed: int) -> None:
    found = pieces(title, text, count, kinds, np.random.default_rng(seed))
    assert found == pieces(title, text, count, kinds, np.random.default_rng(seed))
    assert len(found) <= count
    assert len(set(found)) == len(found)
    for piece in found:
        assert piece
        words = piece.split()
        if piece == title:
            continue
        assert piece != text
        assert f" {' '.join(words)} " in f" {' '.join(text.split())} "
        assert (4 <= len(words) <= 30) if kinds == ["sentence"] else len(words) >= 3


def test_kinds_take_turns() -> None:
    text = "The lion lives in Africa today. It sleeps for many hours there. Cubs are born in spring mostly."
    kinds = ["title", "sentence", "cloze"]
    title, sentence, cloze = pieces("Lion", text, 3, kinds, np.random.default_rng(0))
    assert title == "Lion"
    assert sentence in text.split(". ")[0] + "." or sentence in text
    assert sentence.endswith(".")
    assert 3 <= len(cloze.split()) <= 10


def data_of(folder: Path, tmp_path: Path, **settings: object) -> TripletData:
    return TripletData(
        Beir(str(folder)), WordTokenizer(), tmp_path / "tokenizer.json", InBatchNegatives(), batch_size=16,
        **settings,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A collection of which one passage holds a validation query as a sentence."""
    folder = write_collection(tmp_path / "beir", documents=60)
    lines = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    for line in lines:
        words = line["text"].split()
        line["text"] = f"{' '.join(words[:6])}. {' '.join(words[6:12])}. {' '.join(words[12:])}"
    lines[9]["text"] = "Who lives in the desert? bababa bebeba bibiba bobobo. dadaba dedeba didiba doboba."
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    queries = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    queries[6]["text"] = "who lives in the DESERT"  # of dev
    (folder / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in queries))
    return folder


def test_they_join_the_training_queries(folder: Path, tmp_path: Path) -> None:
    plain, data = (data_of(folder, tmp_path, pseudo_queries=count) for count in (0, 2))
    assert plain.pseudo is None
    assert data.pseudo is not None
    judged, made = len(plain.training_set.examples), len(data.pseudo.rows)
    assert len(data.judged.examples) == judged
    assert len(data.training_set.examples) == judged + made
    assert made > 100
    rows = data.training_set.examples.take(np.arange(judged, judged + made))
    np.testing.assert_array_equal(rows[0], len(data.train) + np.arange(made))
    np.testing.assert_array_equal(rows[1], data.pseudo.rows)
    texts, passages = data.pseudo.texts.to_pylist(), data.corpus.texts().to_pylist()
    assert all(text in passages[row] for text, row in zip(texts, data.pseudo.rows, strict=True))
    encoded = data.tokenizer.encode_queries(texts).to_lists()
    assert data.training_set.queries.select(rows[0]).to_lists() == encoded
    # Each knows its passage as relevant, and no query of another split is among them.
    marked = data.training_set.positives.mark(rows[0], rows[1])
    assert marked.diagonal().all()
    asked = {text.rstrip("?.").lower() for text in texts}
    assert "who lives in the desert" not in asked
    again = data_of(folder, tmp_path, pseudo_queries=2)
    assert again.pseudo is not None
    assert again.pseudo.texts.to_pylist() == texts


def test_other_negatives_than_drawn_ones_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="without mined or given negatives"):
        TripletData(Beir(str(folder)), WordTokenizer(), tmp_path / "t.json", GivenNegatives(), pseudo_queries=2)


@pytest.mark.parametrize("pseudo", [0, 2])
def test_passages_come_with_queries_that_say_nothing_of_them(pseudo: int, folder: Path, tmp_path: Path) -> None:
    plain = data_of(folder, tmp_path, pseudo_queries=pseudo)
    data = data_of(folder, tmp_path, pseudo_queries=pseudo, examples="both")
    paired, documents = len(plain.training_set.examples), len(data.corpus)
    assert len(data.training_set.examples) == paired + documents
    queries, passages, _ = data.training_set.examples.take(np.arange(paired + documents))
    for found, wanted in zip((queries, passages), plain.training_set.examples.take(np.arange(paired)), strict=False):
        np.testing.assert_array_equal(found[:paired], wanted)
    np.testing.assert_array_equal(passages[paired:], np.arange(documents))
    counts = np.bincount(queries[paired:], minlength=len(data.train))
    assert len(counts) == len(data.train)  # no pseudo-queries
    assert counts.max() - counts.min() <= 1
    order = np.random.default_rng(0).permutation(paired + documents)[:32]
    batch = data.batches.assemble(order, np.random.default_rng(0), slice(0, 32))
    judged = plain.training_set.positives.contains(queries[order], passages[order])
    assert 0 < judged.sum() < 32
    np.testing.assert_array_equal(batch.candidates.numpy().any(1), judged)
    np.testing.assert_array_equal(batch.candidates.numpy().any(0), judged)
    torch.manual_seed(0)
    scores = torch.randn(32, 32, requires_grad=True)
    InBatchLoss()(scores, batch.candidates).loss.backward()  # in both directions
    assert scores.grad is not None
    np.testing.assert_array_equal(scores.grad.abs().sum(1).numpy() > 0, judged)
    np.testing.assert_array_equal(scores.grad.abs().sum(0).numpy() > 0, judged)


def test_passages_alone_come_once_each_without_judged_pairs(folder: Path, tmp_path: Path) -> None:
    data = data_of(folder, tmp_path, examples="passages")
    assert len(data.judged.examples) > 0
    queries, passages, negatives = data.training_set.examples.take(np.arange(len(data.training_set.examples)))
    np.testing.assert_array_equal(passages, np.arange(len(data.corpus)))
    assert set(queries.tolist()) <= set(range(len(data.train)))
    assert negatives is None
    batch = data.batches.assemble(np.arange(32), np.random.default_rng(0), slice(0, 32))
    judged = data.judged.positives.contains(queries[:32], passages[:32])
    assert not batch.candidates.numpy()[~judged].any()


def test_other_kinds_of_examples_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.examples=passage does not exist; did you mean 'passages'"):
        data_of(folder, tmp_path, examples="passage")
