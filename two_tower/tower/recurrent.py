"""Recurrent towers. Texts run packed, each as long as it is: no state ever sees padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from two_tower.errors import UserError, one_of
from two_tower.ragged import Ragged
from two_tower.tower.base import Tower
from two_tower.tower.words import WordTable

__all__ = ["RecurrentTower"]

CELLS = {"gru": nn.GRU}
POOLINGS = ("last", "mean", "max")


def pack_order(lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where each token of a ragged batch stands in a packed (time-major, longest text first) batch.

    Args:
        lengths: (B,) int64, all at least 1.

    Returns:
        order (B,): texts, longest first; batch_sizes (longest,): texts still running at each step, on the
        CPU as `PackedSequence` wants them; slot (T,): packed position of every ragged token.
    """
    device = lengths.device
    order = torch.argsort(lengths, descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=device)
    ended = torch.bincount(lengths)  # ended[n]: texts of n tokens
    batch_sizes = len(lengths) - ended.cumsum(0)[:-1]
    step_start = batch_sizes.cumsum(0) - batch_sizes
    starts = lengths.cumsum(0) - lengths
    text = torch.repeat_interleave(torch.arange(len(lengths), device=device), lengths)
    step = torch.arange(len(text), device=device) - starts[text]
    return order, batch_sizes.cpu(), step_start[step] + rank[text]


class RecurrentTower(Tower):
    """A recurrent network over the text's word vectors.

    Args:
        words: the word table, (V, E).
        dim: dimensions of the output (of both directions together).
        cell: ``gru``.
        layers: stacked layers.
        bidirectional: read the text in both directions, each with ``dim / 2`` states.
        pooling: ``last`` (each text's own last state, the backward direction's at its first word),
            ``mean`` or ``max`` over the text's states.
        dropout: between layers, in training.

    Raises:
        UserError: an unknown cell or pooling, or an odd ``dim`` for two directions.
    """

    def __init__(
        self,
        words: WordTable,
        dim: int,
        cell: str = "gru",
        layers: int = 1,
        bidirectional: bool = False,
        pooling: str = "mean",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(words, dim)
        if cell not in CELLS:
            raise UserError(f"tower.cell={cell} does not exist; {one_of(cell, CELLS)}.")
        if pooling not in POOLINGS:
            raise UserError(f"tower.pooling={pooling} does not exist; {one_of(pooling, POOLINGS)}.")
        if bidirectional and dim % 2:
            raise UserError(f"tower.dim={dim} must be even for tower.bidirectional=true.")
        words.log_weights.requires_grad_(False)  # every word counts alike: the network does the weighing
        self.pooling = pooling
        self.rnn = CELLS[cell](
            words.vectors.shape[1],
            dim // 2 if bidirectional else dim,
            num_layers=layers,
            bidirectional=bidirectional,
            dropout=dropout if layers > 1 else 0.0,
        )

    def forward(self, tokens: Ragged) -> Tensor:
        """Vectors (B, D) float32 of B texts; zeros for a text without tokens."""
        filled = tokens.lengths > 0
        out = torch.zeros(len(tokens), self.dim, device=tokens.device, dtype=self.words.vectors.dtype)
        if not bool(filled.any()):
            return out + 0 * self.words.vectors[:1].sum()  # keeps the graph, so that backward() works
        # Texts without tokens own none, so the ids of the others are all the ids.
        vectors = self._encode(tokens.ids, tokens.lengths[filled])
        return vectors if bool(filled.all()) else out.to(vectors.dtype).index_put((filled,), vectors)

    def _encode(self, ids: Tensor, lengths: Tensor) -> Tensor:
        order, batch_sizes, slot = pack_order(lengths)
        packed_ids = torch.empty_like(ids)
        packed_ids[slot] = ids
        states, last = self.rnn(PackedSequence(self.words.lookup(packed_ids), batch_sizes))
        if self.pooling == "last":
            last = last[0] if isinstance(last, tuple) else last
            directions = 2 if self.rnn.bidirectional else 1
            final = torch.cat(list(last[-directions:]), dim=1)
            return torch.empty_like(final).index_copy(0, order, final)
        states_TD = states.data[slot]
        return torch.segment_reduce(states_TD, self.pooling, lengths=lengths, axis=0)
