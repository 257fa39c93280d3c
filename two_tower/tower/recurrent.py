"""Recurrent towers. Texts of like length run together; every text's own states are read, never a pad's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from two_tower.errors import UserError, one_of
from two_tower.ragged import Ragged
from two_tower.tower.base import Tower
from two_tower.tower.words import WordTable

__all__ = ["RecurrentTower"]

CELLS: dict[str, Callable[[int, int], nn.RNNBase]] = {"gru": nn.GRU}
POOLINGS = ("last", "mean", "max")

# Texts that run together. torch's packed sequences would need no padding at all, but on a CPU their backward
# pass writes the gradient of the whole batch once per time step: 4.7 s where these blocks take 0.2 s.
BLOCK = 256


class Block:
    """Some texts of like length, time-major, padded behind their ends.

    Args:
        tokens: the batch.
        rows: (b,) int64, rows of the texts in the batch, none of them empty.

    Attributes:
        rows: as given.
        lengths: (b,) int64.
        ids: (L, b) int32, L the longest text. A pad repeats the text's first token, so that no other row
            of the word table is touched; what comes of it is never read.
    """

    def __init__(self, tokens: Ragged, rows: Tensor) -> None:
        self.rows = rows
        starts = tokens.offsets[rows]
        self.lengths = tokens.offsets[rows + 1] - starts
        self._steps = torch.arange(int(self.lengths.max()), device=rows.device).unsqueeze(1)
        self.ids = tokens.ids[starts + torch.where(self._steps < self.lengths, self._steps, 0)]

    def reverse(self, values: Tensor) -> Tensor:
        """Each text's values (L, b, …) back to front by its own length; what is behind its end stays there."""
        steps = torch.where(self._steps < self.lengths, self.lengths - 1 - self._steps, self._steps)
        place = steps * len(self.rows) + torch.arange(len(self.rows), device=steps.device)
        return values.flatten(0, 1).index_select(0, place.flatten()).view_as(values)

    def pool(self, states_LbH: Tensor, pooling: str) -> Tensor:
        """One vector per text from its own states, (b, H)."""
        if pooling == "last":
            return states_LbH[self.lengths - 1, torch.arange(len(self.rows), device=self.lengths.device)]
        behind = (self._steps >= self.lengths).unsqueeze(2)
        if pooling == "max":
            return states_LbH.masked_fill(behind, -torch.inf).amax(0)
        return states_LbH.masked_fill(behind, 0).sum(0) / self.lengths.unsqueeze(1)


def blocks(tokens: Ragged) -> Iterator[Block]:
    """The texts that have tokens, longest first, in blocks."""
    lengths = tokens.lengths
    order = torch.argsort(lengths, descending=True, stable=True)[: int((lengths > 0).sum())]
    for start in range(0, len(order), BLOCK):
        yield Block(tokens, order[start : start + BLOCK])


class RecurrentTower(Tower):
    """A recurrent network over the text's word vectors.

    Args:
        words: the word table, (V, E).
        dim: dimensions of the output (of both directions together).
        cell: ``gru``.
        layers: stacked layers.
        bidirectional: read the text in both directions, each with ``dim / 2`` states.
        pooling: ``last`` (each text's own last state; of the backward direction the one at its first
            word), ``mean`` or ``max`` over the text's states.
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
        hidden = dim // 2 if bidirectional else dim
        widths = [words.vectors.shape[1], *[dim] * (layers - 1)]
        self.forwards = nn.ModuleList(CELLS[cell](width, hidden) for width in widths)
        self.backwards = nn.ModuleList(CELLS[cell](width, hidden) for width in widths if bidirectional)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Ragged) -> Tensor:
        """Vectors (B, D) float32 of B texts; zeros for a text without tokens."""
        out = self.words.vectors.new_zeros(len(tokens), self.dim)
        done = [(block.rows, self._encode(block)) for block in blocks(tokens)]
        if not done:
            return out + 0 * self.words.vectors[:1].sum()  # keeps the graph, so that backward() works
        vectors = torch.cat([v for _, v in done])
        return out.to(vectors.dtype).index_copy(0, torch.cat([rows for rows, _ in done]), vectors)

    def _encode(self, block: Block) -> Tensor:
        """Vectors (b, D) of a block's texts."""
        inputs = self.words.lookup(block.ids.flatten()).unflatten(0, block.ids.shape)
        for layer, forwards in enumerate(self.forwards):
            if layer:
                inputs = self.dropout(inputs)
            directions = [forwards(inputs)[0]]
            if self.backwards:
                directions.append(self.backwards[layer](block.reverse(inputs))[0])
            if layer < len(self.forwards) - 1:
                inputs = torch.cat([directions[0], *map(block.reverse, directions[1:])], dim=2)
        return torch.cat([block.pool(states, self.pooling) for states in directions], dim=1)
