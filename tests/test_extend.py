"""A run that learns the words of further passages without training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import word
from test_train import fit

from two_tower.data.beir import Beir
from two_tower.encode import Encoder
from two_tower.errors import UserError
from two_tower.extend import extend_run
from two_tower.run import Run

A, B, C = word(0), word(1), word(2)
KNOWN = [f"{A} {B} {C}", f"{B}", ""]


@pytest.fixture
def further(collection: Path, tmp_path: Path) -> Path:
    """The collection with two more passages, of known and of new words."""
    folder = tmp_path / "further"
    shutil.copytree(collection, folder)
    with (folder / "corpus.jsonl").open("a", encoding="utf-8") as file:
        for number, text in enumerate([f"{A} quixotically {B} quixotically", f"{C} zebrafish quixotic"]):
            file.write(json.dumps({"_id": f"new{number}", "title": "", "text": text}) + "\n")
    return folder


@pytest.mark.parametrize("overrides", [["tower=average"], ["tower=gru"], ["shared_towers=false"]], ids=" ".join)
def test_new_words_are_told_apart_and_old_texts_stay(
    overrides: list[str], collection: Path, further: Path, tmp_path: Path
) -> None:
    fit(collection, tmp_path / "run", "tokenizer.min_frequency=1", *overrides)
    found = extend_run(tmp_path / "run", Beir(str(further)), tmp_path / "more")
    assert (found.unknown, found.words) == (4, 3)
    assert "3 different ones" in str(found)
    old, new = (Encoder.load(Run(tmp_path / name)) for name in ("run", "more"))
    assert new.tokenizer.vocabulary == [*old.tokenizer.vocabulary, "quixotically", "quixotic", "zebrafish"]
    assert new.fingerprint != old.fingerprint
    for side in ("queries", "documents"):
        np.testing.assert_array_equal(getattr(new, side)(KNOWN), getattr(old, side)(KNOWN))
    np.testing.assert_array_equal(old.documents([f"{A} quixotic"]), old.documents([f"{A} zebrafish"]))
    for tower in (new.model.query_tower, new.model.document_tower):
        table = tower.words
        assert torch.equal(table.log_weights[-1], table.log_weights[-3])
        assert bool(table.vectors.isfinite().all())
    assert not list((tmp_path / "more").glob("results.json"))


def test_what_cannot_be_extended_is_told(collection: Path, further: Path, tmp_path: Path) -> None:
    fit(collection, tmp_path / "run", "tokenizer.min_frequency=1")
    with pytest.raises(UserError, match="knows every word of"):
        extend_run(tmp_path / "run", Beir(str(collection)), tmp_path / "more")
    assert not (tmp_path / "more").exists()
    with pytest.raises(UserError, match="exists already"):
        extend_run(tmp_path / "run", Beir(str(further)), tmp_path / "run")


def test_a_run_of_subwords_needs_none(
    collection: Path, further: Path, transformer_folder: Path, tmp_path: Path
) -> None:
    fit(collection, tmp_path / "run", "tokenizer=subword", f"tokenizer.path={transformer_folder}")
    with pytest.raises(UserError, match="splits words into pieces"):
        extend_run(tmp_path / "run", Beir(str(further)), tmp_path / "more")
