"""Parts that are wrong on purpose, and a user's own parts that are right; given by ``_target_``."""

import numpy as np
import torch
from torch import Tensor, nn

from two_tower.loss.base import LossInput, LossOutput
from two_tower.loss.in_batch import InBatchLoss
from two_tower.negatives.base import DrawContext
from two_tower.negatives.in_batch import InBatchNegatives
from two_tower.ragged import Ragged
from two_tower.tower.base import Tower, WordTable


class _Vectors(Tower):
    """Uses the words' vectors, not their weights."""

    def __init__(self, words: WordTable, dim: int) -> None:
        super().__init__(dim)
        words.log_weights.requires_grad_(False)
        self.words = words

    def padded(self, tokens: Ragged) -> Tensor:
        """(B, longest, D) vectors of the words, padded right with that of word 0, as most code does it."""
        texts = [torch.tensor(ids, dtype=torch.int64) for ids in [*tokens.to_lists(), [0]]]
        return nn.functional.embedding(nn.utils.rnn.pad_sequence(texts, batch_first=True)[:-1], self.words.vectors)


class ReadsLastColumn(_Vectors):
    """A GRU over a padded batch, read at the last column: of all but the longest text that is the state of padding."""

    def __init__(self, words: WordTable, dim: int) -> None:
        super().__init__(words, dim)
        self.gru = nn.GRU(words.vectors.shape[1], dim, batch_first=True)

    def forward(self, tokens: Ragged) -> Tensor:
        return self.gru(self.padded(tokens))[0][:, -1]


class AveragesPadding(_Vectors):
    """The mean over the padded length."""

    def forward(self, tokens: Ragged) -> Tensor:
        return self.padded(tokens).mean(1)


class Detached(Tower):
    """An average whose word vectors went through NumPy; only the layer after it learns."""

    def __init__(self, words: WordTable, dim: int) -> None:
        super().__init__(dim)
        self.words = words
        self.layer = nn.Linear(words.vectors.shape[1], dim)

    def forward(self, tokens: Ragged) -> Tensor:
        return self.layer(torch.from_numpy(self.words.pool(tokens).detach().numpy()))


class DetachedGru(ReadsLastColumn):
    """A GRU whose states are kept for later as numbers, by mistake before they are used."""

    def __init__(self, words: WordTable, dim: int) -> None:
        super().__init__(words, dim)
        self.layer = nn.Linear(dim, dim)

    def forward(self, tokens: Ragged) -> Tensor:
        texts = [self.words.lookup(ids) for ids in tokens.ids.split(tokens.lengths.tolist())]
        return self.layer(self.gru(nn.utils.rnn.pack_sequence(texts, enforce_sorted=False))[1][0].detach())


class OwnTower(_Vectors):
    """A user's own tower, and nothing wrong with it: the sum of the word vectors, one layer."""

    def __init__(self, words: WordTable, dim: int) -> None:
        super().__init__(words, dim)
        self.layer = nn.Linear(words.vectors.shape[1], dim, bias=False)
        nn.init.orthogonal_(self.layer.weight)

    def forward(self, tokens: Ragged) -> Tensor:
        owner = torch.repeat_interleave(torch.arange(len(tokens)), tokens.lengths)
        sums = torch.zeros(len(tokens), self.layer.in_features)
        return self.layer(sums.index_add(0, owner, self.words.lookup(tokens.ids)))


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


class StandsStill(torch.optim.SGD):
    """An optimizer that takes no step."""

    def step(self, closure=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        return closure() if closure else None


class DividesByZero(InBatchLoss):
    """Its first value is NaN."""

    def forward(self, batch: LossInput) -> LossOutput:
        output = super().forward(batch)
        return LossOutput(output.loss * torch.tensor(0.0) / torch.tensor(0.0), output.diagnostics)
