"""The transformer tower: the library's own states, each text's alone; clear sentences for a wrong folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from two_tower.errors import UserError
from two_tower.ragged import Ragged
from two_tower.tower.transformer import TransformerTower

POOLINGS = ("mean", "cls", "last")


@pytest.fixture(scope="module")
def towers(transformer_folder: Path) -> dict[str, TransformerTower]:
    return {pooling: TransformerTower(transformer_folder, 16, pooling).eval() for pooling in POOLINGS}


def test_the_states_are_the_librarys_with_the_folders_weights(
    towers: dict[str, TransformerTower], transformer_folder: Path
) -> None:
    import transformers

    library = transformers.BertModel.from_pretrained(transformer_folder).eval()
    texts = [[2, 10, 11, 3], [2, 12, 3], [2, 13, 14, 15, 16, 3]]
    for pooling, tower in towers.items():
        out = tower(Ragged.from_lists(texts))
        for row, text in zip(out, texts, strict=True):
            states = library(torch.tensor([text])).last_hidden_state[0]
            expected = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]
            torch.testing.assert_close(row, expected, atol=1e-5, rtol=1e-5)


def test_every_parameter_that_is_used_trains(transformer_folder: Path) -> None:
    tower = TransformerTower(transformer_folder, 8)
    assert tower.projection.weight.shape == (8, 16)
    tower(Ragged.from_lists([[2, 5, 3], [], [2, 3]])).square().sum().backward()
    missing = [name for name, p in tower.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing


def broken(folder: Path, change: str) -> Path:
    if change == "weights":
        (folder / "model.safetensors").write_bytes(b"no")
    elif change == "pickled weights":
        torch.save({}, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    elif change == "code":
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModel": "own.M"}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "own.py").write_text("raise RuntimeError('code of the folder was run')")
    elif change == "missing weights":
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        weights.pop("encoder.layer.1.output.dense.weight")
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    elif change == "config":
        (folder / "config.json").unlink()
    return folder


@pytest.mark.parametrize("change", ["weights", "pickled weights", "missing weights", "code", "config"])
def test_a_folder_that_cannot_be_loaded_is_named(change: str, transformer_folder: Path, tmp_path: Path) -> None:
    folder = broken(Path(shutil.copytree(transformer_folder, tmp_path / "copy")), change)
    with pytest.raises(ValueError, match=r"^path=\S*copy (cannot be loaded|is not the folder)") as error:
        TransformerTower(folder, 16)
    assert "\n" not in str(error.value)


def test_without_the_library_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'two-tower\[transformer\]'"):
        TransformerTower(tmp_path, 16)
