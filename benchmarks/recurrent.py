"""What `encode_gru` and `encode_lstm` share: a recurrent tower's `Encoder`, and plain torch with the same weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from benchmarks.inputs import passages, tokenizer
from two_tower.encode import Encoder
from two_tower.model import TwoTower
from two_tower.similarity import Similarity
from two_tower.tokenizer.base import Tokenizer
from two_tower.tower.base import WordTable
from two_tower.tower.recurrent import RecurrentTower

DIM = 128
# Of unit vectors.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
TEXTS = 4096

Encode = Callable[[list[str]], np.ndarray]


def words_only(quick: bool) -> list[str]:
    """Passages that are nothing but words between blanks, so that every way to split them gives the same."""
    ours = tokenizer(quick)
    return [" ".join(ours.words(text)) for text in passages(100 if quick else TEXTS, quick)]


def encoder(cell: str, pooling: str, tokenizer: Tokenizer, dtype: str = "float32") -> Encoder:
    """One layer, one direction; equal weights for every ``dtype`` and ``pooling``."""
    generator = torch.Generator().manual_seed(0)
    words = WordTable(len(tokenizer), DIM)
    words.initialize(torch.randn(len(tokenizer), DIM, generator=generator), None)
    torch.manual_seed(0)
    tower = RecurrentTower(words, DIM, cell=cell, pooling=pooling, encode_dtype=dtype)  # type: ignore[arg-type]
    return Encoder(TwoTower(tower, tower, Similarity("cosine")), tokenizer)


def padded(ours: Encoder, batch_size: int, dtype: torch.dtype = torch.float32) -> Encode:
    """Plain torch with an encoder's weights: texts of like length in padded batches, the state at each one's end."""
    tower = ours.model.document_tower
    assert isinstance(tower, RecurrentTower)
    vectors = tower.words.vectors.detach().to(dtype)
    network = tower.cell.library(DIM, DIM).to(dtype).requires_grad_(False)
    network.load_state_dict(tower.forwards[0].state_dict())

    @torch.inference_mode()
    def encode(texts: list[str]) -> np.ndarray:
        tokens = ours.tokenizer.encode_documents(texts)
        order = tokens.lengths.argsort(descending=True)
        out = torch.empty(len(tokens), DIM)
        for rows in order.split(batch_size):
            batch = tokens.select(rows)
            ids = pad_sequence(list(batch.ids.split(batch.lengths.tolist())))
            states = network(F.embedding(ids, vectors))[0]
            out[rows] = states[batch.lengths - 1, torch.arange(len(rows))].float()
        return F.normalize(out, dim=1).numpy()

    return encode
