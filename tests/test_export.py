"""Sentence Transformers gives the vectors that the run gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_train import fit

from two_tower.data.beir import Beir
from two_tower.encode import Encoder
from two_tower.errors import UserError
from two_tower.export import export_run
from two_tower.run import Run

TEXTS = ["", "xyz", "ba be bi", "Ba, BE — bé!", "bo " * 300]


def loaded(path: Path) -> Any:  # noqa: ANN401
    library = pytest.importorskip("sentence_transformers", reason='needs pip install -e ".[bench]"')
    return library.SentenceTransformer(str(path), device="cpu")


def exported(collection: Path, folder: Path, *overrides: str) -> tuple[Encoder, Any]:
    fit(collection, folder / "run", *overrides)
    export_run(folder / "run", folder / "model")
    return Encoder.load(Run(folder / "run")), loaded(folder / "model")


def assert_equal_vectors(encoder: Encoder, model: Any, collection: Path) -> None:  # noqa: ANN401
    queries = [*Beir(str(collection)).queries("dev")["text"].to_pylist(), *TEXTS[:-1]]
    documents = [t for b in Beir(str(collection)).corpus() for t in b.column("text").to_pylist()] + TEXTS
    np.testing.assert_allclose(model.encode_query(queries), encoder.queries(queries), atol=1e-6)
    np.testing.assert_allclose(model.encode_document(documents), encoder.documents(documents), atol=1e-6)
    assert model.similarity_fn_name == encoder.model.similarity.name


@pytest.mark.parametrize(
    "overrides",
    [
        ["shared_towers=true"],
        ["shared_towers=false"],
        ["shared_towers=true", "embedding.dim=24"],
        ["similarity=dot", "embedding.weights=uniform", "tower.learn_weights=false"],
        ["similarity=euclidean", "embedding.weights=uniform", "tower.learn_weights=false", "tower.tanh=true"],
    ],
    ids=" ".join,
)
def test_an_average_tower_has_equal_vectors_there(collection: Path, tmp_path: Path, overrides: list[str]) -> None:
    encoder, model = exported(collection, tmp_path, *overrides)
    assert_equal_vectors(encoder, model, collection)


@pytest.mark.parametrize("overrides", [["tower.dim=16"], ["tower.dim=8", "tower.pooling=cls", "similarity=dot"]])
def test_a_transformer_has_equal_vectors_there(
    collection: Path, transformer_folder: Path, tmp_path: Path, overrides: list[str]
) -> None:
    tower = ["tower=transformer", f"tower.path={transformer_folder}", *overrides]
    encoder, model = exported(collection, tmp_path, *tower)
    assert_equal_vectors(encoder, model, collection)


def test_the_folder_holds_safetensors_only(collection: Path, tmp_path: Path) -> None:
    fit(collection, tmp_path / "run")
    remarks = export_run(tmp_path / "run", tmp_path / "model")
    assert remarks == ["Queries are cut after 256 tokens there, not after 64."]
    names = {p.suffix for p in (tmp_path / "model").rglob("*") if p.is_file()}
    assert names == {".json", ".safetensors"}
    with pytest.raises(UserError, match="exists already"):
        export_run(tmp_path / "run", tmp_path / "model")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tower=gru"], "no module for a RecurrentTower"),
        (["similarity=dot"], "similarity=dot cannot be exported"),
        (["tower.tanh=true"], "tower.tanh=true cannot be exported"),
    ],
)
def test_what_sentence_transformers_cannot_hold_is_refused(
    collection: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    fit(collection, tmp_path / "run", *overrides)
    with pytest.raises(UserError, match=message):
        export_run(tmp_path / "run", tmp_path / "model")
    assert not (tmp_path / "model").exists()
