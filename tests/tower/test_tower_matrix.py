"""Towers with every pooling, direction and sharing: built from configuration, trained, saved, loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import configure, write_collection
from training import losses

from two_tower.assemble import load_model, try_parts
from two_tower.encode import Encoder
from two_tower.errors import UserError
from two_tower.run import Run
from two_tower.train import train

# The combinations of cell, pooling and direction are tested without training, see test_recurrent.
MATRIX = [
    ["tower=rnn", "tower.pooling=last", "tower.bidirectional=false", "shared_towers=false"],
    ["tower=gru", "tower.pooling=mean", "tower.bidirectional=true", "shared_towers=true"],
    ["tower=lstm", "tower.pooling=max", "tower.bidirectional=false", "shared_towers=true"],
    ["tower=gru", "tower.pooling=attention", "tower.bidirectional=true", "shared_towers=false"],
    ["tower=lstm", "tower.layers=2", "tower.hidden=6", "tower.dropout=0.1", "tower.encode_dtype=bfloat16"],
    ["tower=gru", "tower.refine=true", "shared_towers=false"],
    ["tower=average", "tower.learn_weights=false", "embedding.weights=uniform", "shared_towers=false"],
    ["tower=average", "tower.tanh=true", "tower.token_dropout=0.1", "embedding.dim=12"],
    ["tower=transformer", "tower.pooling=cls", "shared_towers=false"],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_collection(tmp_path_factory.mktemp("small") / "beir", documents=60)


def small(folder: Path, run: Path, *overrides: str) -> dict[str, Any]:
    base = ["trainer.max_epochs=1", "trainer.log_every_n_steps=1", "scheduler=none", "optimizer.lr=0.003"]
    return configure(folder, run, "data.batch_size=16", "tower.dim=8", *base, *overrides)


@pytest.mark.parametrize("overrides", MATRIX, ids=" ".join)
def test_towers_train_save_and_load(
    overrides: list[str], folder: Path, tmp_path: Path, transformer_folder: Path
) -> None:
    """The loaded model has learnt and gives the same vectors in any company."""
    path = [f"tower.path={transformer_folder}"] if "tower=transformer" in overrides else []
    run = tmp_path / "run"
    assert train(small(folder, run, *overrides, *path))["epochs"] == 1
    assert [0 < loss < 10 for loss in losses(run)] == [True, True]
    model, tokenizer = load_model(Run(run))
    encoder, texts = Encoder(model, tokenizer), ["babebi bobu", "", "dada babebi " * 20, "bobu"]
    together = torch.from_numpy(encoder.documents(texts))
    alone = torch.cat([torch.from_numpy(encoder.documents([text])) for text in texts])
    tolerance = 1e-3 if "tower.encode_dtype=bfloat16" in overrides else 1e-5
    torch.testing.assert_close(together, alone, atol=tolerance, rtol=0)
    separate = "shared_towers=false" in overrides
    assert model.shared != separate
    queries, documents = (dict(tower.named_parameters()) for tower in (model.query_tower, model.document_tower))
    assert any(not torch.equal(queries[name], documents[name]) for name in queries) == separate


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("tower=gru tower.pooling=men", r"tower\.pooling=men does not exist; did you mean 'mean'"),
        ("tower=gru tower.cell=gur", r"tower\.cell=gur does not exist; did you mean 'gru'"),
        ("tower=gru tower.encode_dtype=float16", r"tower\.encode_dtype=float16 does not exist"),
        ("tower=gru tower.hidden=0", r"tower\.hidden=0 must be at least 1"),
        ("tower=gru tower.dropout=0.1", r"tower\.dropout=0\.1 works between layers, and layers is 1"),
        ("tower=transformer tower.path=x tokenizer=word", r"tower\.path=x needs that folder's tokenizer"),
        ("tower=transformer", r"tower\.path is not set and has no default: add tower\.path=VALUE"),
    ],
)
def test_mistakes_are_found_before_anything_loads(overrides: str, message: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        try_parts(small(folder, tmp_path / "run", *overrides.split()))
