"""A transformer encoder as a tower: any local folder in Hugging Face's layout."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from two_tower.errors import UserError, first_line
from two_tower.ragged import Ragged
from two_tower.tower._products import Projection
from two_tower.tower.base import Tower, first_state, last_state, mean_state, padded

log = logging.getLogger(__name__)

# Tokens that run together, padding included. On two cores, 6 layers of 384 dimensions: 2,048 give 90 texts/s, 8,192
# give 70 and 512 give 77. A GPU has more to feed.
CPU_BLOCK, BLOCK = 2048, 32_768

POOLINGS = {"mean": mean_state, "cls": first_state, "last": last_state}


def _load(path: Path) -> Any:  # noqa: ANN401
    """The model of a folder; only safetensors, no code from the folder, nothing from the network."""
    try:
        from transformers import AutoModel
        from transformers.utils import logging as messages
    except ImportError as error:
        raise UserError("tower=transformer needs transformers:  pip install 'two-tower[transformer]'") from error
    if not (path / "config.json").is_file():
        raise ValueError(f"path={path} is not the folder of a transformer: it has no config.json")
    messages.disable_progress_bar()
    messages.set_verbosity_error()  # missing weights are refused below, extra ones do not matter
    try:
        model, report = AutoModel.from_pretrained(
            path, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32,
            output_loading_info=True,
        )  # fmt: skip
    except Exception as error:  # of many kinds
        raise ValueError(f"path={path} cannot be loaded: {first_line(error)}") from error
    if missing := sorted(name for name in report["missing_keys"] if not name.startswith("pooler.")):
        raise ValueError(f"path={path} cannot be loaded: its file has no weights called {missing[0]}")
    return model


class TransformerTower(Tower):
    """A transformer over the text's tokens, special ones included, then a linear projection where the sizes differ."""

    special_tokens = True

    def __init__(self, path: Path, dim: int, pooling: Literal["mean", "cls", "last"] = "mean") -> None:
        super().__init__(dim)
        self.pooling = pooling
        self.transformer = _load(Path(path))
        if getattr(self.transformer, "pooler", None) is not None:
            self.transformer.pooler.requires_grad_(False)  # not used here
        config = self.transformer.config
        self._pad = config.pad_token_id or 0  # some models number the positions by it
        if config.hidden_size != dim:
            log.info("tower.dim=%d: a projection from the model's %d dimensions is learned.", dim, config.hidden_size)
        self.projection = nn.Identity() if config.hidden_size == dim else Projection(config.hidden_size, dim)

    def forward(self, tokens: Ragged) -> Tensor:
        out = next(self.transformer.parameters()).new_zeros(len(tokens), self.transformer.config.hidden_size)
        for rows in _blocks(tokens):
            block = tokens.select(rows)
            ids, mask = padded(block.ids.long(), block, self._pad)
            states = self.transformer(input_ids=ids, attention_mask=mask.long()).last_hidden_state
            vectors = POOLINGS[self.pooling](states[mask], block)
            out = out.index_copy(0, rows, vectors.to(out.dtype))
        return self.projection(out)


def _blocks(tokens: Ragged) -> Iterator[Tensor]:
    """Rows of texts of similar length, longest first; each block holds at most ``BLOCK`` tokens with its padding."""
    lengths, size = tokens.lengths, CPU_BLOCK if tokens.device.type == "cpu" else BLOCK
    order = torch.argsort(lengths, descending=True, stable=True)[: int((lengths > 0).sum())]
    while len(order):
        count = max(1, size // int(lengths[order[0]]))
        yield order[:count]
        order = order[count:]
