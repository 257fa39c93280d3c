"""Passages that are kept out of training: nothing of them reaches what is learned, and all of them are searched."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_collection
from rows import values, write_rows
from training import TextTriplets, loader, triplet_data

from two_tower.data.base import QRELS, QUERIES, TRIPLETS
from two_tower.data.beir import Beir
from two_tower.data.stream.module import TripletData
from two_tower.errors import UserError
from two_tower.negatives.bm25 import BM25Negatives
from two_tower.negatives.given import GivenNegatives
from two_tower.teacher._vectors import TeacherStore
from two_tower.teacher.base import Teacher

PASSAGES = 120


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A collection whose passages have a word of their own each; d1 has a copy, and q2 a second right passage."""
    folder = write_collection(tmp_path / "beir", PASSAGES)
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    for row in rows:
        row["text"] += f" own{row['_id']} own{row['_id']}"
    write_rows(folder / "corpus.jsonl", [*rows, {**rows[1], "_id": "copy"}])
    with (folder / "qrels" / "train.tsv").open("a") as file:
        file.write("q2\td50\t1\n")
    return folder


def texts_of(source: Any) -> set[str]:  # noqa: ANN401
    return {text for _, _, text in values(source.corpus())}


class Listening(Teacher):
    """Remembers what it was asked for."""

    name, dim = "listening", 2

    def __init__(self) -> None:
        self.texts: list[str] = []

    def fingerprint(self) -> str:
        return str(id(self))

    def encode(self, texts: Any) -> np.ndarray:  # noqa: ANN401
        self.texts += texts
        return np.ones((len(texts), 2), np.float32)


def without(folder: Path, tmp_path: Path, ids: list[str], **settings: Any) -> TripletData:  # noqa: ANN401
    file = tmp_path / "unseen.txt"
    file.write_text("\n".join(ids) + "\n")
    return triplet_data(Beir(str(folder)), tmp_path / "run", unseen_ids=file, **settings)


def test_nothing_that_is_learned_has_met_them(folder: Path, tmp_path: Path) -> None:
    ids = ["d1", *(f"d{i}" for i in range(2, PASSAGES, 5))]
    data, teacher = without(folder, tmp_path, ids, train_split="train"), Listening()
    out = {*ids, "copy"}
    asked = {f"q{i}" for i in range(PASSAGES) if i % 6 > 1}
    lost = {f"q{i[1:]}" for i in ids} & asked - {"q2"}  # whose only answer is gone
    assert len(data.searched) == PASSAGES + 1
    assert {*data.corpus.ids.to_pylist()} == {*data.searched.ids.to_pylist()} - out
    assert {*data.train.ids.to_pylist()} == asked - lost
    assert len(data.validation) == PASSAGES // 6

    words = data.tokenizer.vocabulary
    assert not [word for word in words if word.startswith("own") and word.removeprefix("own") in out]
    documents = data.training_set.examples.take(np.arange(len(data.training_set.examples))).positive_rows
    assert not {data.corpus.ids[int(row)].as_py() for row in documents} & out

    TeacherStore.prepare(teacher, data)
    assert teacher.texts
    assert not [text for text in teacher.texts if any(f"own{i} " in f"{text} " for i in out)]
    questions = {id_: text for id_, text in values(Beir(str(folder)).queries("train"))}
    assert not {questions[i] for i in lost} & {*teacher.texts}

    mined = data.collection.texts().to_pylist()
    assert len(mined) == PASSAGES + 1 - len(out)
    assert not [text for text in mined if any(f"own{i} " in f"{text} " for i in out)]


def test_triplets_with_them_are_left_out(folder: Path, tmp_path: Path) -> None:
    data = without(folder, tmp_path, ["d9", "d16"])
    triplets = values(data.learned.triplets(), TRIPLETS)
    assert triplets == [row for row in values(Beir(str(folder)).triplets(), TRIPLETS) if not {*row} & {"d9", "d16"}]
    rows = [("question", "a b", "c d"), ("question", "e f", "a b"), ("question", "e f", "c d")]
    source = TextTriplets(str(folder), rows)
    write_rows(
        folder / "corpus.jsonl", [{"_id": f"d{i}", "text": text} for i, text in enumerate(["a b", "c d", "e f"])]
    )
    (tmp_path / "text.txt").write_text("d0")
    data = triplet_data(source, tmp_path / "texts", GivenNegatives(), unseen_ids=tmp_path / "text.txt")
    assert values(data.learned.text_triplets()) == rows[2:]
    assert len(data.judged.examples) == 1


def test_a_share_is_drawn_by_the_text(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "beir", 600)
    data = triplet_data(Beir(str(folder)), tmp_path / "run", unseen_share=0.25)
    out = {*data.searched.ids.to_pylist()} - {*data.corpus.ids.to_pylist()}
    assert 110 < len(out) < 190
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    other = write_collection(tmp_path / "more", 600)
    write_rows(other / "corpus.jsonl", [{"_id": "new", "text": "something else"}, *rows[::-1]])
    data = triplet_data(Beir(str(other)), tmp_path / "again", unseen_share=0.25)
    assert {*data.searched.ids.to_pylist()} - {*data.corpus.ids.to_pylist()} - {"new"} == out


def test_without_the_keys_all_is_learned(folder: Path, tmp_path: Path) -> None:
    data = triplet_data(Beir(str(folder)), tmp_path / "run")
    assert data.learned is data.source
    assert data.searched is data.corpus


def test_judgements_and_queries_that_stay_are_unchanged(folder: Path, tmp_path: Path) -> None:
    with (folder / "qrels" / "train.tsv").open("a") as file:
        file.write("q3\td4\t0\nq4\td9\t0\n")
    whole, part = Beir(str(folder)), without(folder, tmp_path, ["d4"]).learned
    qrels = [row for row in values(whole.qrels("train"), QRELS) if row[0] != "q4" and row[1] != "d4"]
    assert values(part.qrels("train"), QRELS) == qrels
    queries = [row for row in values(whole.queries("train"), QUERIES) if row[0] != "q4"]
    assert values(part.queries("train"), QUERIES) == queries


def test_mined_negatives_are_of_what_is_learned(folder: Path, tmp_path: Path) -> None:
    data = without(folder, tmp_path, [f"d{i}" for i in range(0, PASSAGES, 3)])
    mining = triplet_data(data.source, tmp_path / "mining", BM25Negatives(), unseen_ids=tmp_path / "unseen.txt")
    batch = mining.batches[0, 0]
    assert int(batch.document_rows.max()) < len(mining.corpus) == PASSAGES + 1 - 40


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unseen_ids": ["d1000"]}, "has no id of a passage of beir: write one on each line"),
        ({"unseen_ids": None}, "unseen_ids=.* is no file: it must hold the id of a passage on each line"),
        ({"unseen_share": 1e-9}, "unseen_share=1e-09 keeps no passages out of training"),
        ({"unseen_ids": [f"d{i}" for i in range(PASSAGES)]}, "keeps all passages out"),
    ],
)
def test_what_cannot_be_kept_out(folder: Path, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    if "unseen_ids" in settings:
        file = tmp_path / "ids.txt"
        if settings["unseen_ids"] is not None:
            file.write_text("\n".join(settings["unseen_ids"]))
        settings = {"unseen_ids": file}
    with pytest.raises(UserError, match=message):
        _ = triplet_data(Beir(str(folder)), tmp_path / "run", **settings).learned


def test_a_share_is_less_than_one() -> None:
    with pytest.raises(ValueError, match="unseen_share=1 must be a share of the passages"):
        loader(unseen_share=1)
    with pytest.raises(ValueError, match="new_share=1 must be a share of the examples"):
        loader(new_share=1, examples="passages")
    with pytest.raises(ValueError, match="new_share is for passages"):
        loader(new_share=0.5)


def test_a_share_of_new_passages_needs_to_know_the_old_ones(folder: Path, tmp_path: Path) -> None:
    data = triplet_data(Beir(str(folder)), tmp_path / "run", examples="passages", new_share=0.5)
    with pytest.raises(UserError, match=r"data\.new_share needs a run .*: set init_from\."):
        _ = data.training_set
