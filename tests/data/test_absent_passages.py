"""Judged passages that a collection lacks stay judgements, whatever the source: a search has missed them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import oracles
import pytest
import torch
from rows import bad_summary, values
from rows import write_rows as write
from test_evaluation import scores
from test_train import fit
from training import state

from two_tower.data.base import Source
from two_tower.data.beir import Beir
from two_tower.data.huggingface import HuggingFace
from two_tower.data.stream.corpus import Corpus, Split
from two_tower.metrics import from_ranks
from two_tower.tokenizer.word import WordTokenizer

pytestmark = pytest.mark.usefixtures("hub_cache")

PASSAGES = [{"_id": f"d{i}", "title": "", "text": f"text number {i}"} for i in range(5)]
QUERIES = [{"_id": f"q{i}", "text": f"number {i}"} for i in range(4)]
# q1: of two, one is absent; q2: all are; q3: one that is not relevant is.
JUDGED = [("q0", "d0", 1), ("q1", "d1", 2), ("q1", "gone", 1), ("q2", "lost/é", 1), ("q3", "d3", 1), ("q3", "gone", 0)]


def write_judged(path: Path, kind: str) -> None:
    rows = [{"query-id": q, "corpus-id": d, "score": grade} for q, d, grade in JUDGED]
    write(path / f"dev.{kind}", rows)


def of_the_hub(folder: Path, kind: str) -> Source:
    write(folder / f"set/corpus/corpus.{kind}", PASSAGES)
    write(folder / f"set/queries/queries.{kind}", QUERIES)
    write_judged(folder / "qrels", "tsv" if kind == "jsonl" else kind)
    return HuggingFace(str(folder / "set"), qrels=str(folder / "qrels"), dev_share=0)


def of_beir(folder: Path, kind: str) -> Source:
    write(folder / "corpus.jsonl", PASSAGES)
    write(folder / "queries.jsonl", QUERIES)
    write_judged(folder / "qrels", "tsv")
    return Beir(str(folder))


@pytest.mark.parametrize(("make", "kind"), [(of_the_hub, "jsonl"), (of_the_hub, "parquet"), (of_beir, "jsonl")])
def test_no_judgement_and_no_query_is_lost(tmp_path: Path, make: Callable[..., Source], kind: str) -> None:
    source = make(tmp_path, kind)
    assert sorted(values(source.qrels("dev"))) == sorted(JUDGED)
    assert sorted(dict(values(source.queries("dev")))) == ["q0", "q1", "q2", "q3"]
    assert not bad_summary(source)
    tokenizer = WordTokenizer(min_frequency=1).train([batch["text"] for batch in source.corpus()])
    split = Split.load(Corpus.load(source, tokenizer), "dev", tokenizer)
    assert len(split) == 4
    by_query = {
        name: split.qrels.document_rows[split.qrels.query_rows == i] for i, name in enumerate(split.ids.to_pylist())
    }
    assert {name: int((rows < 0).sum()) for name, rows in by_query.items()} == {"q0": 0, "q1": 1, "q2": 1, "q3": 1}
    best = np.array([1.0, 0.5, 0.0, 1.0])  # all that is there stands first
    ranks = np.where(split.qrels.document_rows >= 0, 1, 0)
    found = from_ranks(ranks, split.qrels, ["recall@10"], split.threshold)["recall@10"]
    np.testing.assert_allclose(found[np.argsort(split.ids.to_pylist())], best)


def test_nothing_is_trained_on_what_is_absent(collection: Path, tmp_path: Path) -> None:
    """Lines for absent passages change no weight, only the figures."""
    folder = shutil.copytree(collection, tmp_path / "beir")
    for split, first in (("train", "q2"), ("dev", "q0")):
        with (folder / "qrels" / f"{split}.tsv").open("a") as file:
            file.write(f"{first}\tgone\t1\n{first}\tlost\t1\n")
    keys = ["trainer.max_epochs=1", "tower.dim=4", "validation.metrics=[mrr@10,recall@10]"]
    whole, lacking = (fit(each, tmp_path / name, *keys) for each, name in ((collection, "a"), (folder, "b")))
    one, other = (state(tmp_path / name) for name in "ab")
    assert all(torch.equal(one[key], other[key]) for key in one)
    dense, _, grades = scores(tmp_path / "b", folder, "dev")
    assert grades["q0"].keys() == {"d0", "gone", "lost"}
    for name, metric in (("recall@10", oracles.recall), ("mrr@10", oracles.reciprocal_rank)):
        expected = np.mean([metric(oracles.ranked(dense[q]), judged, 10) for q, judged in grades.items()])
        assert lacking[f"val/{name}"] == pytest.approx(expected, abs=1e-9)
    assert lacking["bm25/recall@10"] < whole["bm25/recall@10"]
