"""Recurrent towers: networks that read a text word by word, in one direction or both."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from two_tower.errors import at_least
from two_tower.ragged import Ragged
from two_tower.threads import each
from two_tower.tower import _recurrence as recurrence
from two_tower.tower import base
from two_tower.tower._cells import CELLS
from two_tower.tower._lexical import LexicalHalf
from two_tower.tower._products import Projection, linear
from two_tower.tower.base import Tower, WordTable


class RecurrentTower(Tower):
    """A recurrent network over the text's word vectors, then a linear projection where the sizes differ.

    Compiled loops (`_recurrence`) run on a CPU in float32, torch's packed sequences elsewhere. Neither pads, and both
    give the same. Of the backward direction ``pooling=last`` takes the state at the text's first word. The vector
    whose products with the states ``attention`` weights them by starts as zero, so as the plain mean.
    """

    parallel_by_text = True

    def __init__(
        self, words: WordTable, dim: int, cell: Literal["rnn", "gru", "lstm"] = "gru", hidden: int | None = None,
        layers: int = 1, bidirectional: bool = False, pooling: Literal["last", "mean", "max", "attention"] = "mean",
        dropout: float = 0.0, encode_dtype: Literal["float32", "bfloat16"] = "float32", refine: bool = False,
        lexical_dims: int = 0, lexical_scale: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__(dim + lexical_dims)
        at_least(1, hidden=hidden, layers=layers)
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout={dropout} must be from 0 to 1")
        if dropout and layers == 1:
            raise ValueError(f"dropout={dropout} works between layers, and layers is 1: set dropout=0")
        directions = 2 if bidirectional else 1
        if hidden is None and dim % directions:
            raise ValueError(f"dim={dim} must be even with bidirectional=true, unless hidden is set")
        if refine and words.vectors.shape[1] != dim:
            raise ValueError(f"refine=true adds word vectors to the output: set embedding.dim={dim} too")
        words.log_weights.requires_grad_(refine)  # without the mean, weighing words is the network's job
        self.words, self.cell, self.pooling, self.refine = words, CELLS[cell], pooling, refine
        self.encode_dtype = getattr(torch, encode_dtype)
        hidden = hidden or dim // directions
        total = hidden * directions
        widths = [words.vectors.shape[1], *[total] * (layers - 1)]
        # One network of the library for each layer and direction: it holds the parameters, and runs on a GPU.
        self.forwards = nn.ModuleList(self.cell.library(width, hidden) for width in widths)
        self.backwards = nn.ModuleList(self.cell.library(width, hidden) for width in widths if bidirectional)
        self.dropout = nn.Dropout(dropout)
        if pooling == "attention":
            self.attention = nn.Parameter(torch.zeros(total))
        projection = Projection(total, dim)
        if refine:
            nn.init.zeros_(projection.weight)
        self.projection = projection if refine or total != dim else nn.Identity()
        self.lexical = LexicalHalf(words, lexical_dims, lexical_scale) if lexical_dims else None

    def forward(self, tokens: Ragged) -> Tensor:
        vectors = self._read(tokens)
        vectors = self.words.pool(tokens) + vectors if self.refine else vectors
        return self.lexical(vectors, tokens, self.words.log_weights) if self.lexical else vectors

    def _read(self, tokens: Ragged) -> Tensor:
        """The network's part, (B, D)."""
        # The product of a cell with a word is the same wherever the word stands: ids become rows of ``inputs``.
        inputs, rows = self.words.distinct(tokens.ids)
        products, tokens = self._products(0, inputs), Ragged(rows, tokens.offsets)
        if torch.is_grad_enabled() or not self._compiled:
            return self.projection(self._vectors(products, tokens))

        def vectors(texts: Tensor) -> Tensor:
            with torch.no_grad():  # every thread has a mode of its own
                return self._vectors(products, tokens.select(texts))

        # Some texts through all layers, then the next: their states are pooled while they are in a core's cache.
        blocks = tokens.lengths.argsort(descending=True, stable=True).split(recurrence.BLOCK)
        parts = torch.cat(each(vectors, blocks))
        return self.projection(torch.empty_like(parts).index_copy(0, torch.cat(blocks), parts))

    @property
    def _compiled(self) -> bool:
        return self.words.vectors.device.type == "cpu" and self.words.vectors.dtype == torch.float32

    def _networks(self, layer: int) -> list[nn.RNNBase]:
        return [cast(nn.RNNBase, networks[layer]) for networks in (self.forwards, self.backwards) if networks]

    def _products(self, layer: int, inputs: Tensor) -> list[Tensor]:
        """For each direction the products of its cell with ``inputs`` (R, E); the library makes its own."""
        if not self._compiled:
            return [inputs for _ in self._networks(layer)]
        weights = [tuple(network.parameters()) for network in self._networks(layer)]
        return [linear(inputs, weight, bias).float() for weight, _, bias, _ in weights]

    def _vectors(self, products: list[Tensor], tokens: Ragged) -> Tensor:
        """The pooled states (B, M) of the last layer; ids are rows of the first layer's ``products``."""
        states = self._states(0, products, tokens)
        for layer in range(1, len(self.forwards)):
            inputs = self.dropout(_side_by_side(states))
            tokens = Ragged(torch.arange(len(inputs), dtype=torch.int32, device=inputs.device), tokens.offsets)
            states = self._states(layer, self._products(layer, inputs), tokens)
        return self._pool(states, tokens)

    def _states(self, layer: int, products: list[Tensor], tokens: Ragged) -> list[Tensor]:
        """For each direction of a layer the state after each token, (T, M)."""
        run = self._recur if self._compiled else self._by_library
        directions = zip(self._networks(layer), products, (False, True), strict=False)
        return [run(network, inputs, tokens, reverse) for network, inputs, reverse in directions]

    def _recur(self, network: nn.RNNBase, products: Tensor, tokens: Ragged, reverse: bool) -> Tensor:
        _, weight, _, bias = network.parameters()
        return recurrence.recur(products, weight, bias, tokens, self.cell, reverse, self.encode_dtype)

    def _by_library(self, network: nn.RNNBase, inputs: Tensor, tokens: Ragged, reverse: bool) -> Tensor:
        if not len(tokens.ids):  # which torch refuses to pack
            return inputs.new_zeros(0, network.hidden_size) + inputs.sum()
        order, running = _steps(tokens, reverse)
        states = network(PackedSequence(inputs[tokens.ids[order].long()], running.cpu()))[0].data
        return torch.empty_like(states).index_copy(0, order, states)

    def _pool(self, states: list[Tensor], tokens: Ragged) -> Tensor:
        """One vector per text, (B, M), from the states of each direction."""
        if self.pooling == "last":
            ends = zip((base.last_state, base.first_state), states, strict=False)
            return _side_by_side([end(values, tokens) for end, values in ends])
        both = _side_by_side(states)
        if self.pooling == "attention":
            return base.attention_mean(both, tokens, (both * self.attention).sum(1))
        return base.mean_state(both, tokens) if self.pooling == "mean" else base.largest_state(both, tokens)


def _side_by_side(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)  # torch.cat would copy a single one


def _steps(tokens: Ragged, reverse: bool) -> tuple[Tensor, Tensor]:
    """The order of the tokens in a packed sequence, (T,) int64, and the number of tokens of each step, (steps,) int64.

    First come the first tokens of all texts, the longest text's first, then the second ones …; each text runs from its
    own last token to its first if ``reverse``.
    """
    lengths = tokens.lengths
    order = torch.argsort(lengths, descending=True, stable=True)
    steps = torch.arange(int(lengths.max()) if len(lengths) else 0, device=tokens.device).unsqueeze(1)
    running = steps < lengths[order]
    places = tokens.offsets[1:][order] - 1 - steps if reverse else tokens.offsets[:-1][order] + steps
    return places[running], running.sum(1)
