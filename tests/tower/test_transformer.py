"""The transformer tower: the library's own states, each text's alone; clear sentences for a wrong folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import configure

from two_tower.assemble import try_parts
from two_tower.errors import UserError
from two_tower.ragged import Ragged
from two_tower.tower.transformer import TransformerTower


def test_the_states_are_those_of_the_library(transformer_folder: Path) -> None:
    import transformers

    library = transformers.BertModel.from_pretrained(transformer_folder).eval()
    texts = [[2, 10, 11, 3], [2, 12, 3], [2, 13, 14, 15, 16, 3]]
    for pooling in ("mean", "cls", "last"):
        out = TransformerTower(transformer_folder, 16, pooling).eval()(Ragged.from_lists(texts))
        for row, text in zip(out, texts, strict=True):
            states = library(torch.tensor([text])).last_hidden_state[0]
            expected = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]
            torch.testing.assert_close(row, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("change", ["pickled weights", "missing weights", "code", "config"])
def test_a_folder_that_cannot_be_loaded_is_named(change: str, transformer_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(transformer_folder, tmp_path / "copy"))
    if change == "pickled weights":
        torch.save({}, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    elif change == "missing weights":
        weights = load_file(folder / "model.safetensors")
        weights.pop("encoder.layer.1.output.dense.weight")
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    elif change == "code":
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModel": "own.M"}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "own.py").write_text("raise RuntimeError('code of the folder was run')")
    else:
        (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"^path=\S*copy (cannot be loaded|is not the folder)") as error:
        TransformerTower(folder, 16)
    assert "\n" not in str(error.value)


def test_mistakes_are_found_before_anything_loads(tmp_path: Path) -> None:
    for overrides, message in (
        ("tower=gru tower.dropout=0.1", r"tower\.dropout=0\.1 works between layers, and layers is 1"),
        ("tower=transformer tower.path=x tokenizer=word", r"tower\.path=x needs that folder's tokenizer"),
    ):
        with pytest.raises(UserError, match=message):
            try_parts(configure(tmp_path / "no data", tmp_path / "run", *overrides.split()))


def test_without_the_library_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'two-tower\[transformer\]'"):
        TransformerTower(tmp_path, 16)
