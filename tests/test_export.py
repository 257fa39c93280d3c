"""Sentence Transformers gives the vectors that the run gives."""

from pathlib import Path

import numpy as np
import pytest
from test_train import fit

from two_tower.data.beir import Beir
from two_tower.encode import Encoder
from two_tower.errors import UserError
from two_tower.export import export_run
from two_tower.run import Run

TEXTS = ["", "xyz", "ba be bi", "Ba, BE — bé!", "bo " * 300]


UNIFORM = "embedding.weights=uniform tower.learn_weights=false"


@pytest.mark.parametrize(
    "overrides",
    [
        "shared_towers=false",
        "shared_towers=true embedding.dim=24",
        f"similarity=dot {UNIFORM}",
        f"similarity=euclidean {UNIFORM} tower.tanh=true",
        "tower=transformer tower.dim=8 tower.pooling=cls similarity=dot",
        "tower.lexical_dims=128 embedding.pull=1 embedding.dim=24",
        "tower.lexical_dims=64 shared_towers=false similarity=dot",
    ],
)
def test_vectors_are_equal(collection: Path, request: pytest.FixtureRequest, tmp_path: Path, overrides: str) -> None:
    library = pytest.importorskip("sentence_transformers", reason='needs pip install -e ".[bench]"')
    path = [f"tower.path={request.getfixturevalue('transformer_folder')}"] if "transformer" in overrides else []
    fit(collection, tmp_path / "run", "trainer.max_epochs=1", *overrides.split(), *path)
    remarks = export_run(tmp_path / "run", tmp_path / "model")
    separate = "shared_towers=false" in overrides
    code = (
        ["It holds code, for the lexical half: load it with trust_remote_code=True."] if "lexical" in overrides else []
    )
    assert remarks == ([] if separate else ["Queries are cut after 256 tokens there, not after 64."]) + code
    suffixes = {".json", ".safetensors", ".md", *([".py"] if code else [])}
    assert {p.suffix for p in (tmp_path / "model").rglob("*") if p.is_file()} == suffixes
    with pytest.raises(UserError, match="exists already"):
        export_run(tmp_path / "run", tmp_path / "model")
    model = library.SentenceTransformer(str(tmp_path / "model"), device="cpu", trust_remote_code=bool(code))
    encoder = Encoder.load(Run(tmp_path / "run"))
    queries = [*Beir(str(collection)).queries("dev")["text"].to_pylist(), *TEXTS[:-1]]
    documents = [t for b in Beir(str(collection)).corpus() for t in b.column("text").to_pylist()] + TEXTS
    np.testing.assert_allclose(model.encode_query(queries), encoder.queries(queries), atol=1e-6)
    np.testing.assert_allclose(model.encode_document(documents), encoder.documents(documents), atol=1e-6)
    assert model.similarity_fn_name == encoder.model.similarity.name


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tower=gru", "no module for a RecurrentTower"),
        ("tower.tanh=true", "tower.tanh=true cannot be exported"),
        ("tower.tanh=true tower.lexical_dims=64", "tower.tanh=true and a lexical half"),
    ],
)
def test_what_cannot_be_held_is_refused(collection: Path, tmp_path: Path, override: str, message: str) -> None:
    fit(collection, tmp_path / "run", "trainer.max_steps=1", *override.split())
    with pytest.raises(UserError, match=message):
        export_run(tmp_path / "run", tmp_path / "model")
    assert not (tmp_path / "model").exists()
