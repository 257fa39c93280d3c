"""Runs that start from a file of word vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_train import fit

from two_tower.assemble import load_model
from two_tower.errors import UserError
from two_tower.run import Run

WIDTH = 12


@pytest.fixture(scope="module")
def file(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors for half of the collection's words."""
    passages = [json.loads(line) for line in (collection / "corpus.jsonl").read_text().splitlines()]
    words = sorted({word for passage in passages for word in passage["text"].split()})[::2]
    vectors = np.random.default_rng(0).normal(size=(len(words), WIDTH)) * 0.3
    rows = [" ".join([word, *(f"{x:.4f}" for x in vector)]) for word, vector in zip(words, vectors, strict=True)]
    path = tmp_path_factory.mktemp("vectors") / "vectors.txt"
    path.write_text("\n".join(rows))
    return path


def options(file: Path, *more: str) -> list[str]:
    return ["embedding=pretrained", f"embedding.path={file}", "trainer.max_epochs=1", *more]


def test_runs_start_from_a_files_vectors_and_from_those_of_a_run(file: Path, collection: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.txt"
    copy.write_bytes(file.read_bytes())
    frozen = ["embedding.freeze=true", "tower.dim=16"]
    fit(collection, tmp_path / "first", *options(copy, *frozen, "tower=gru"))
    copy.unlink()  # the run no longer needs it
    first, tokenizer = load_model(Run(tmp_path / "first"))
    table = first.query_tower.words.vectors
    assert table.shape == (len(tokenizer), WIDTH)
    rows = {word: row for row, word in enumerate(tokenizer.vocabulary)}
    for line in file.read_text().splitlines():
        word, *numbers = line.split()
        assert table[rows[word]].tolist() == np.array(numbers, np.float32).tolist()
    # With fixed weights the projection is all that is trained.
    frozen += ["tower.learn_weights=false", "shared_towers=false"]
    words = f"embedding.vocabulary={tmp_path}/first/tokenizer.json"
    fit(collection, tmp_path / "second", *options(tmp_path / "first" / "checkpoints" / "best.ckpt", words, *frozen))
    second, _ = load_model(Run(tmp_path / "second"))
    for tower in (second.query_tower, second.document_tower):
        assert torch.equal(tower.words.vectors, table)
    assert second.queries(tokenizer.encode(["baba"])).shape == (1, 16)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["embedding.path=none.txt"], r"embedding\.path=none\.txt does not exist"),
        (["embedding.missing=meen"], r"embedding\.missing=meen does not exist; did you mean 'mean'"),
        (["embedding.freeze=2", "tower.learn_weights=false", "tower.dim=12"],
         "embedding.freeze=2 leaves nothing to train"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_any_data_is_read(more: list[str], message: str, file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        fit(tmp_path / "no data", tmp_path / "run", *options(file), *more)
    assert not (tmp_path / "run").exists()


def test_a_file_of_other_words_leaves_no_run_behind(collection: Path, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("zebra 1 2\n")
    with pytest.raises(UserError, match=r"other\.txt has no vector for any of the \d+ words .* it has 1 words"):
        fit(collection, tmp_path / "run", *options(tmp_path / "other.txt"))
    assert not (tmp_path / "run").exists()
