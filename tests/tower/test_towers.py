"""The average tower and its word table: weighted means, and gradients that hold only the rows of the batch."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from two_tower.ragged import Ragged
from two_tower.tower._lookup import lookup, pool
from two_tower.tower.average import AverageTower
from two_tower.tower.base import Tower, WordTable, padded

WORDS, DIM = 50, 16


def word_table(seed: int = 0, dim: int = DIM) -> WordTable:
    generator = torch.Generator().manual_seed(seed)
    table = WordTable(WORDS, dim)
    table.initialize(torch.randn(WORDS, dim, generator=generator), torch.rand(WORDS, generator=generator) + 0.1)
    return table


def doubled(table: WordTable) -> tuple[Tensor, Tensor]:
    """Its vectors and weights in double precision."""
    vectors, logs = (p.detach().double().requires_grad_() for p in (table.vectors, table.log_weights))
    return vectors, logs


def make(name: str) -> AverageTower:
    torch.manual_seed(1)
    return AverageTower(word_table(), **TOWERS[name])


TOWERS = {"average": {"dim": DIM}, "projected": {"dim": 8}, "tanh": {"dim": 8, "tanh": True}}
TEXTS = st.lists(st.lists(st.integers(0, WORDS - 1), max_size=9), min_size=1, max_size=7)


@pytest.mark.parametrize("name", TOWERS)
@given(texts=TEXTS, data=st.data())
@settings(max_examples=20, deadline=None)
def test_a_vector_is_the_same_alone_in_a_batch_and_in_any_order(
    name: str, texts: list[list[int]], data: st.DataObject
) -> None:
    tower, batch = make(name).eval(), Ragged.from_lists(texts)
    together = tower(batch)
    alone = torch.cat([tower(Ragged.from_lists([t])) for t in texts])
    order = data.draw(st.permutations(range(len(texts))))
    tolerance = 0 if name == "average" else 1e-5
    torch.testing.assert_close(together, alone, atol=tolerance, rtol=0)
    torch.testing.assert_close(together[order], tower(batch.select(order)), atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", TOWERS)
def test_thread_count_changes_nothing(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(0, 90, (600,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    ids = torch.randint(0, WORDS, (int(offsets[-1]),), generator=generator, dtype=torch.int32)
    tower, batch, threads = make(name), Ragged(ids, offsets), torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            tower.zero_grad()
            out = tower(batch)
            out.square().sum().backward()
            results.append((out.detach(), tower.words.vectors.grad.to_dense()))
    finally:
        torch.set_num_threads(threads)
    tolerance = 0 if name == "average" else 1e-4
    torch.testing.assert_close(*results, atol=tolerance, rtol=tolerance)


def test_the_average_is_the_weighted_mean() -> None:
    tower = make("average")
    vectors, weights = tower.words.vectors.detach(), tower.words.log_weights.detach().exp()
    text = [3, 3, 7, 49]
    expected = sum(weights[i] * vectors[i] for i in text) / sum(weights[i] for i in text)
    torch.testing.assert_close(tower(Ragged.from_lists([[1], text]))[1], expected)
    tower = make("tanh")
    torch.testing.assert_close(tower(Ragged.from_lists([text]))[0], (tower.projection.weight @ expected).tanh())


def test_uniform_weights_that_are_not_learned_give_the_plain_mean() -> None:
    table = word_table()
    table.initialize(table.vectors.detach().clone(), None)
    tower = AverageTower(table, DIM, learn_weights=False)
    out = tower(Ragged.from_lists([[3, 3, 7]]))
    torch.testing.assert_close(out[0], table.vectors[[3, 3, 7]].mean(0))
    out.sum().backward()
    assert table.log_weights.grad is None


@pytest.mark.parametrize("name", TOWERS)
def test_a_text_without_tokens_is_zero_and_trains(name: str) -> None:
    tower = make(name)
    out = tower(Ragged.from_lists([[], [1, 2], []]))
    assert not out[[0, 2]].any()
    assert out[1].any()
    only_empty = tower(Ragged.from_lists([[], []]))
    assert not only_empty.any()
    only_empty.sum().backward()


def test_token_dropout_leaves_tokens_out_in_training_only() -> None:
    tower = AverageTower(word_table(), DIM, token_dropout=0.5)
    batch = Ragged.from_lists([list(range(40))] * 2)
    torch.manual_seed(0)
    assert not torch.equal(*tower(batch))
    assert torch.equal(*tower.eval()(batch))
    with pytest.raises(ValueError, match=r"^token_dropout=1\.0 must be at least 0 and below 1"):
        AverageTower(word_table(), DIM, token_dropout=1.0)


@given(TEXTS, st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_sparse_gradients_equal_dense_double_precision(texts: list[list[int]], seed: int) -> None:
    batch, table = Ragged.from_lists(texts), word_table(seed)
    out = table.pool(batch)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed))
    out.backward(upstream)
    vectors, logs = doubled(table)
    weights, zero = logs.exp(), torch.zeros(DIM, dtype=torch.float64)
    rows = [(weights[t].unsqueeze(1) * vectors[t]).sum(0) / weights[t].sum() if t else zero for t in texts]
    expected = torch.stack(rows)
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)
    if any(texts):
        expected.backward(upstream.double())
        torch.testing.assert_close(table.vectors.grad.to_dense().double(), vectors.grad, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(table.log_weights.grad.to_dense().double(), logs.grad, atol=1e-5, rtol=1e-4)


def test_gradients_hold_only_the_rows_of_the_batch() -> None:
    table = word_table()
    table.pool(Ragged.from_lists([[5, 9], [9, 9, 2]])).sum().backward()
    assert table.vectors.grad.is_sparse
    assert table.vectors.grad.coalesce().indices().tolist() == [[2, 5, 9]]
    assert table.log_weights.grad.coalesce().indices().tolist() == [[2, 5, 9]]


def test_other_devices_and_dtypes_take_the_same_values_and_gradients() -> None:
    """The torch path, which runs on GPUs, here in double precision on the CPU."""
    batch, table = Ragged.from_lists([[1, 2, 2], [], [49]]), word_table()
    vectors, logs = doubled(table)
    fast, general = table.pool(batch), pool(batch, vectors, logs)
    torch.testing.assert_close(fast.double(), general, atol=1e-6, rtol=1e-6)
    fast.square().sum().backward()
    general.square().sum().backward()
    torch.testing.assert_close(table.vectors.grad.to_dense().double(), vectors.grad.to_dense())
    torch.testing.assert_close(table.log_weights.grad.to_dense().double(), logs.grad.to_dense(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lookup_gradients_equal_the_librarys(dtype: torch.dtype) -> None:
    ids = torch.tensor([3, 0, 3, 7], dtype=torch.int32)
    ours, theirs = (torch.randn(WORDS, 4, dtype=dtype, generator=torch.Generator().manual_seed(0)) for _ in "ab")
    ours.requires_grad_()
    theirs.requires_grad_()
    factor = torch.randn(4, 4, dtype=dtype)
    (lookup(ids, ours) * factor).sum().backward()
    (nn.functional.embedding(ids, theirs) * factor).sum().backward()
    torch.testing.assert_close(ours.grad.to_dense(), theirs.grad)


def test_frozen_vectors_get_no_gradient() -> None:
    table = word_table()
    table.freeze()
    table.pool(Ragged.from_lists([[1, 2]])).sum().backward()
    assert table.vectors.grad is None
    assert table.log_weights.grad is not None


@given(TEXTS)
@settings(max_examples=20, deadline=None)
def test_distinct_words_stand_once_and_every_token_finds_its_own(texts: list[list[int]]) -> None:
    ids, table = Ragged.from_lists(texts).ids, word_table()
    vectors, rows = table.distinct(ids)
    assert len(vectors) == len(set(ids.tolist()))
    assert torch.equal(vectors[rows], table.vectors[ids])
    general_vectors, general_rows = table.double().distinct(ids)  # the path of other devices and dtypes
    assert torch.equal(general_vectors[general_rows], table.vectors[ids])


@given(TEXTS)
@settings(max_examples=20, deadline=None)
def test_padded_rows_hold_each_texts_tokens_and_give_them_back(texts: list[list[int]]) -> None:
    tokens = Ragged.from_lists(texts)
    rows, mask = padded(tokens.ids, tokens, fill=-1)
    longest = max(1, *map(len, texts), 0)
    assert rows.tolist() == [text + [-1] * (longest - len(text)) for text in texts]
    assert torch.equal(rows[mask], tokens.ids)


def test_the_tower_of_the_docs_reads_each_text_alone_and_trains() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "towers.md").read_text()
    scope: dict[str, type[Tower]] = {}
    exec(docs.split("```python\n# two_tower/tower/convolution.py\n")[1].split("```")[0], scope)
    tower = scope["ConvolutionTower"](word_table(), 8)
    texts = [[1, 2, 3], [], [4] * 9]
    together = tower(Ragged.from_lists(texts))
    alone = torch.cat([tower(Ragged.from_lists([text])) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert not together[1].any()
    together.sum().backward()
    assert all(p.grad is not None for p in tower.parameters() if p.requires_grad)
