"""Training an average tower: 1,024 triplets a step, in-batch softmax over their 2,048 passages, 256 dimensions.

Ours is a whole step: the batch and its mask, forward with diagnostics and learned word weights, backward, clipping,
lazy Adam. The peers: plain torch loops over the same token batches (`nn.EmbeddingBag`, dense with fused AdamW, and
sparse with SparseAdam), and what Sentence Transformers' trainer does in a step, without the trainer's own overhead:
tokenise the batch's texts (ours are tokenised once for all epochs), `MultipleNegativesRankingLoss` on a
`StaticEmbedding`, clipping, fused AdamW. First all must have the same loss and gradient on the same batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from itertools import count

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.inputs import passages, tokenizer
from benchmarks.measure import Row, alternate, compare, require_equal
from benchmarks.tokenise import library_tokenizer
from two_tower.data.stream.batch import Batch, Batches
from two_tower.data.stream.triplets import ExampleRows, TrainingSet
from two_tower.loss.in_batch import InBatchLoss
from two_tower.model import TwoTower
from two_tower.negatives.base import KnownPositives, NegativeMask
from two_tower.negatives.given import GivenNegatives
from two_tower.optimizer.adam import Adam
from two_tower.ragged import Ragged
from two_tower.similarity import Similarity
from two_tower.tower.average import AverageTower
from two_tower.tower.base import WordTable

NEEDS = ("sentence_transformers",)
DIM = 256
TEMPERATURE = 0.05
LARGE = 400_000  # words
RATE = 0.01
CLIP = 1.0

Loss = Callable[[int], Tensor]  # of batch k, with a graph


class Contestant:
    """One way to train on a number of batches; the gradient of ``table``, (V, DIM), is compared."""

    def __init__(
        self, loss: Loss, table: Tensor, optimizer: torch.optim.Optimizer, clip: Callable[[], object], batches: int
    ) -> None:
        self._loss, self._table, self._optimizer, self._clip, self._batches = loss, table, optimizer, clip, batches
        self._next = count()

    def step(self) -> None:
        """Train on the next batch."""
        loss = self._loss(next(self._next) % self._batches)
        self._optimizer.zero_grad()
        loss.backward()
        self._clip()
        self._optimizer.step()

    def start(self) -> tuple[float, np.ndarray]:
        """Loss and gradient of the first batch before any step."""
        loss = self._loss(0)
        loss.backward()
        grad = self._table.grad
        assert grad is not None
        result = loss.item(), grad.to_dense().numpy().copy()
        self._optimizer.zero_grad()
        return result


class Triplets:
    """Texts and tokens of the training data, in batches of ``size`` triplets."""

    def __init__(self, size: int, batches: int, quick: bool) -> None:
        n = size * batches
        texts = passages(2 * n, quick)
        queries = [" ".join(text.split()[10:17]) for text in texts[:n]]
        self.columns = queries, texts[:n], texts[n:]
        self.tokenizer = tokenizer(quick)
        encoded = (self.tokenizer.encode(pa.array(column)) for column in (queries, texts))
        self.batches = in_batches(*encoded, size)

    def __len__(self) -> int:
        return len(self.batches)

    def tokens(self, k: int) -> Batch:
        """Batch k."""
        return self.batches[(0, k)]

    def texts(self, k: int) -> list[list[str]]:
        """Queries, positives and negatives of batch k."""
        rows = self.tokens(k).query_rows.tolist()
        return [[column[row] for row in rows] for column in self.columns]


def in_batches(queries: Ragged, documents: Ragged, size: int) -> Batches:
    """Batches of triplets: query ``i`` of n, its positive ``i`` of 2 n documents, its negative ``i + n``."""
    n = len(queries)
    rows = np.arange(n)
    positives = KnownPositives(rows, rows, rows, np.arange(2 * n))
    examples = ExampleRows(rows, rows, rows[:, None] + n)
    training_set = TrainingSet(examples, queries, documents, positives, np.zeros(n, np.uint64))
    return Batches(training_set, GivenNegatives(), NegativeMask(positives, whole_batch=True), size, seed=0)


def _table(words: int, dim: int = DIM) -> Tensor:
    return torch.randn(words, dim, generator=torch.Generator().manual_seed(0)) * 0.05


def trainable(words: int, dim: int = DIM) -> TwoTower:
    """An average tower with in-batch softmax and lazy Adam."""
    table = WordTable(words, dim)
    table.initialize(_table(words, dim), None)
    tower = AverageTower(table, dim)
    adam = partial(
        Adam, lr=RATE, embedding_lr_scale=1.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0,
        embedding_weight_decay=0.0, row_wise=True,
    )  # fmt: skip
    return TwoTower(tower, tower, Similarity("cosine"), InBatchLoss(TEMPERATURE, symmetric=False), adam)


def _ours(data: Triplets, words: int) -> Contestant:
    model = trainable(words)
    optimizer = model.configure_optimizers()
    return Contestant(
        lambda k: model.training_step(data.tokens(k), k),
        model.document_tower.words.vectors,
        optimizer,
        lambda: model.configure_gradient_clipping(optimizer, CLIP),
        len(data),
    )


def _plain(data: Triplets, words: int, sparse: bool) -> Contestant:
    bag = nn.EmbeddingBag.from_pretrained(_table(words), freeze=False, mode="mean", sparse=sparse)

    def vectors(tokens: Ragged) -> Tensor:
        return F.normalize(bag(tokens.ids, tokens.offsets[:-1].int()), dim=1)

    def loss(k: int) -> Tensor:
        batch = data.tokens(k)
        scores = vectors(batch.queries) @ vectors(batch.documents).T
        return F.cross_entropy(scores / TEMPERATURE, torch.arange(len(batch)))

    optimizer: torch.optim.Optimizer
    if sparse:
        optimizer = torch.optim.SparseAdam(bag.parameters(), lr=RATE)
    else:
        optimizer = torch.optim.AdamW(bag.parameters(), lr=RATE, fused=True)
    return Contestant(loss, bag.weight, optimizer, lambda: None, len(data))


def _sentence_transformers(data: Triplets, words: int) -> Contestant:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    embedding = StaticEmbedding(library_tokenizer(data.tokenizer), embedding_weights=_table(words))
    model = SentenceTransformer(modules=[embedding], device="cpu")
    criterion = MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)
    return Contestant(
        lambda k: criterion([model.preprocess(column) for column in data.texts(k)], torch.zeros(0)),
        embedding.embedding.weight,
        optimizer,
        lambda: nn.utils.clip_grad_norm_(model.parameters(), CLIP),
        len(data),
    )


def _measure(contestants: dict[str, Contestant], size: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Check that all start alike, then time them."""
    loss, gradient = contestants["ours"].start()
    for name, contestant in contestants.items():
        other_loss, other_gradient = contestant.start()
        require_equal(f"loss of {name}", np.array(loss), np.array(other_loss), 1e-4)
        require_equal(f"gradient of {name}", gradient, other_gradient, 1e-4 * float(np.abs(gradient).max()))
    steps = {name: contestant.step for name, contestant in contestants.items()}
    return alternate(steps, size, rounds, seconds)


def run(quick: bool = False) -> list[Row]:
    """The rows ``train_average``, ``train_average_torch`` and ``train_average_400k``."""
    # A model that no trainer drives says at every step that it cannot log.
    warnings.filterwarnings("ignore", message=".*self.trainer.*")
    size, batches, rounds, seconds = (32, 2, 1, 0.0) if quick else (1024, 8, 5, 1.0)
    data = Triplets(size, batches, quick)
    words, large = len(data.tokenizer), len(data.tokenizer) + 100 if quick else LARGE
    plain = {"nn.EmbeddingBag, AdamW": False, "nn.EmbeddingBag, SparseAdam": True}
    peer = "MultipleNegativesRankingLoss"
    small = {"ours": _ours(data, words), peer: _sentence_transformers(data, words)}
    small |= {name: _plain(data, words, sparse) for name, sparse in plain.items()}
    rates = _measure(small, size, rounds, seconds)
    rows = [
        compare("train_average", "triplets/s", rates, "ours", [peer]),
        compare("train_average_torch", "triplets/s", rates, "ours", plain),
    ]
    del small
    many = {"ours": _ours(data, large), **{name: _plain(data, large, sparse) for name, sparse in plain.items()}}
    rates = _measure(many, size, rounds, seconds)
    return [*rows, compare("train_average_400k", "triplets/s", rates, "ours", plain)]
