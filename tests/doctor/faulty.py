"""Parts that are wrong on purpose, and a user's own parts that are right; given by ``_target_``."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from two_tower.loss.base import Loss, LossInput, LossOutput
from two_tower.negatives.base import DrawContext
from two_tower.negatives.in_batch import InBatchNegatives
from two_tower.ragged import Ragged
from two_tower.tower.base import Tower, WordTable


def padded(tokens: Ragged) -> Tensor:
    """(B, longest) ids, padded right with zeros, as most code does it."""
    texts = [torch.tensor(ids, dtype=torch.int64) for ids in tokens.to_lists()]
    return nn.utils.rnn.pad_sequence([*texts, torch.zeros(1, dtype=torch.int64)], batch_first=True)[:-1]


class _Vectors(Tower):
    """Uses the words' vectors, not their weights."""

    def __init__(self, words: WordTable, dim: int) -> None:
        super().__init__(dim)
        words.log_weights.requires_grad_(False)
        self.words = words


class ReadsLastColumn(_Vectors):
    """A GRU over a padded batch, read at the last column: of all but the longest text that is the state of padding."""

    def __init__(self, words: WordTable, dim: int) -> None:
        super().__init__(words, dim)
        self.gru = nn.GRU(words.vectors.shape[1], dim, batch_first=True)

    def forward(self, tokens: Ragged) -> Tensor:
        return self.gru(nn.functional.embedding(padded(tokens), self.words.vectors))[0][:, -1]


class AveragesPadding(_Vectors):
    """The mean over the padded length."""

    def forward(self, tokens: Ragged) -> Tensor:
        return nn.functional.embedding(padded(tokens), self.words.vectors).mean(1)


class Detached(Tower):
    """An average whose word vectors went through NumPy; only the layer after it learns."""

    def __init__(self, words: WordTable, dim: int) -> None:
        super().__init__(dim)
        self.words = words
        self.layer = nn.Linear(words.vectors.shape[1], dim)

    def forward(self, tokens: Ragged) -> Tensor:
        return self.layer(torch.from_numpy(self.words.pool(tokens).detach().numpy()))


class DetachedGru(_Vectors):
    """A GRU whose states are kept for later as numbers, by mistake before they are used."""

    def __init__(self, words: WordTable, dim: int) -> None:
        super().__init__(words, dim)
        self.gru = nn.GRU(words.vectors.shape[1], dim, batch_first=True)
        self.layer = nn.Linear(dim, dim)

    def forward(self, tokens: Ragged) -> Tensor:
        states = nn.utils.rnn.pack_sequence(
            [self.words.lookup(ids) for ids in tokens.ids.split(tokens.lengths.tolist())], enforce_sorted=False
        )
        return self.layer(self.gru(states)[1][0].detach())


class OwnTower(_Vectors):
    """A user's own tower, and nothing wrong with it: the sum of the word vectors, one layer."""

    def __init__(self, words: WordTable, dim: int) -> None:
        super().__init__(words, dim)
        self.layer = nn.Linear(words.vectors.shape[1], dim, bias=False)
        nn.init.orthogonal_(self.layer.weight)

    def forward(self, tokens: Ragged) -> Tensor:
        vectors = self.words.lookup(tokens.ids)
        owner = torch.repeat_interleave(torch.arange(len(tokens)), tokens.lengths)
        sums = vectors.new_zeros(len(tokens), vectors.shape[1]).index_add(0, owner, vectors)
        return self.layer(sums)


class OwnLoss(Loss):
    """A user's own loss: the logistic loss of positives and negatives."""

    def __init__(self, scale: float = 10.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, batch: LossInput) -> LossOutput:
        positive = nn.functional.softplus(-self.scale * batch.scores.diagonal()).mean()
        negative = nn.functional.softplus(self.scale * batch.scores[batch.negatives] - self.scale / 2).mean()
        return LossOutput(positive + negative, {})


class VirtualClock:
    """Instead of ``time``: a moment passes between two looks at it, and only `SlowNegatives` takes longer."""

    now = 1.0

    def perf_counter(self) -> float:
        self.now += 0.004
        return self.now


CLOCK = VirtualClock()


class SlowNegatives(InBatchNegatives):
    """Takes a while for a batch, in the process that makes it."""

    def extra_negatives(self, context: DrawContext) -> np.ndarray:
        CLOCK.now += 0.006
        return super().extra_negatives(context)
