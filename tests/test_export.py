"""Sentence Transformers gives the vectors that the run gives."""

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


UNIFORM = "embedding.weights=uniform tower.learn_weights=false"


@pytest.mark.parametrize(
    "overrides",
    [
        "shared_towers=true",
        "shared_towers=false",
        "shared_towers=true embedding.dim=24",
        f"similarity=dot {UNIFORM}",
        f"similarity=euclidean {UNIFORM} tower.tanh=true",
        "tower=transformer tower.dim=16",
        "tower=transformer tower.dim=8 tower.pooling=cls similarity=dot",
    ],
)
def test_vectors_are_equal(collection: Path, request: pytest.FixtureRequest, tmp_path: Path, overrides: str) -> None:
    path = [f"tower.path={request.getfixturevalue('transformer_folder')}"] if "transformer" in overrides else []
    fit(collection, tmp_path / "run", *overrides.split(), *path)
    export_run(tmp_path / "run", tmp_path / "model")
    encoder, model = Encoder.load(Run(tmp_path / "run")), loaded(tmp_path / "model")
    queries = [*Beir(str(collection)).queries("dev")["text"].to_pylist(), *TEXTS[:-1]]
    documents = [t for b in Beir(str(collection)).corpus() for t in b.column("text").to_pylist()] + TEXTS
    np.testing.assert_allclose(model.encode_query(queries), encoder.queries(queries), atol=1e-6)
    np.testing.assert_allclose(model.encode_document(documents), encoder.documents(documents), atol=1e-6)
    assert model.similarity_fn_name == encoder.model.similarity.name


def test_the_folder_holds_safetensors_only(collection: Path, tmp_path: Path) -> None:
    fit(collection, tmp_path / "run")
    remarks = export_run(tmp_path / "run", tmp_path / "model")
    assert remarks == ["Queries are cut after 256 tokens there, not after 64."]
    names = {p.suffix for p in (tmp_path / "model").rglob("*") if p.is_file()}
    assert names == {".json", ".safetensors"}
    with pytest.raises(UserError, match="exists already"):
        export_run(tmp_path / "run", tmp_path / "model")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tower=gru", "no module for a RecurrentTower"),
        ("similarity=dot", "similarity=dot cannot be exported"),
        ("tower.tanh=true", "tower.tanh=true cannot be exported"),
    ],
)
def test_what_cannot_be_held_is_refused(collection: Path, tmp_path: Path, override: str, message: str) -> None:
    fit(collection, tmp_path / "run", override)
    with pytest.raises(UserError, match=message):
        export_run(tmp_path / "run", tmp_path / "model")
    assert not (tmp_path / "model").exists()
