"""Every tower: a text's vector depends on that text alone, and training moves only what it may."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from two_tower.errors import UserError
from two_tower.ragged import Ragged
from two_tower.tower.average import AverageTower
from two_tower.tower.recurrent import RecurrentTower
from two_tower.tower.words import WordTable, lookup, pool

WORDS, DIM = 50, 16


def word_table(seed: int = 0, dim: int = DIM) -> WordTable:
    generator = torch.Generator().manual_seed(seed)
    table = WordTable(WORDS, dim)
    table.initialise(torch.randn(WORDS, dim, generator=generator), torch.rand(WORDS, generator=generator) + 0.1)
    return table


def make(name: str) -> nn.Module:
    torch.manual_seed(1)
    if name == "average":
        return AverageTower(word_table(), DIM)
    if name == "average-projected":
        return AverageTower(word_table(), 8)
    pooling, _, directions = name.partition("-")
    return RecurrentTower(word_table(), 8, pooling=pooling, bidirectional=directions == "both")


RECURRENT = [f"{pooling}-{d}" for pooling in ("last", "mean", "max") for d in ("one", "both")]
TOWERS = ["average", "average-projected", *RECURRENT]
TEXTS = st.lists(st.lists(st.integers(0, WORDS - 1), max_size=9), min_size=1, max_size=7)


@pytest.mark.parametrize("name", TOWERS)
@given(texts=TEXTS, data=st.data())
@settings(max_examples=20, deadline=None)
def test_a_vector_is_the_same_alone_in_a_batch_and_in_any_order(
    name: str, texts: list[list[int]], data: st.DataObject
) -> None:
    tower = make(name).eval()
    batch = Ragged.from_lists(texts)
    together = tower(batch)
    alone = torch.cat([tower(Ragged.from_lists([t])) for t in texts])
    order = data.draw(st.permutations(range(len(texts))))
    shuffled = tower(batch.select(order))
    if name == "average":
        assert torch.equal(together, alone)
        assert torch.equal(together[order], shuffled)
    else:
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
        torch.testing.assert_close(together[order], shuffled, atol=1e-5, rtol=0)


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
    for one, two in zip(*results, strict=True):
        if name == "average":
            assert torch.equal(one, two)
        else:
            torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)


def test_stacked_layers_in_both_directions_equal_the_librarys() -> None:
    """One text at a time needs no padding, so torch's own stacked network is the reference."""
    torch.manual_seed(0)
    tower = RecurrentTower(word_table(), 8, layers=3, bidirectional=True, pooling="last")
    library = nn.GRU(DIM, 4, num_layers=3, bidirectional=True)
    for layer in range(3):
        for cells, suffix in ((tower.forwards, ""), (tower.backwards, "_reverse")):
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                value = getattr(cells[layer], f"{part}_l0")
                getattr(library, f"{part}_l{layer}{suffix}").data.copy_(value)
    texts = [[4, 8, 15], [16], [23, 42, 4, 8, 15, 16], [1, 2]]
    out = tower(Ragged.from_lists(texts))
    for row, text in zip(out, texts, strict=True):
        last = library(tower.words.vectors[text].unsqueeze(1))[1]
        torch.testing.assert_close(row, torch.cat([last[-2, 0], last[-1, 0]]), atol=1e-6, rtol=1e-5)


def test_padding_touches_no_other_word() -> None:
    tower = make("mean-both")
    tower(Ragged.from_lists([[3, 3, 3, 3, 3, 3], [7]])).sum().backward()
    assert tower.words.vectors.grad.coalesce().indices().tolist() == [[3, 7]]


def test_the_average_is_the_weighted_mean() -> None:
    tower = make("average")
    vectors, weights = tower.words.vectors.detach(), tower.words.log_weights.detach().exp()
    text = [3, 3, 7, 49]
    expected = sum(weights[i] * vectors[i] for i in text) / sum(weights[i] for i in text)
    torch.testing.assert_close(tower(Ragged.from_lists([[1], text]))[1], expected)


@pytest.mark.parametrize("name", TOWERS)
def test_a_text_without_tokens_is_zero_and_trains(name: str) -> None:
    tower = make(name)
    out = tower(Ragged.from_lists([[], [1, 2], []]))
    assert not out[[0, 2]].any()
    assert out[1].any()
    only_empty = tower(Ragged.from_lists([[], []]))
    assert not only_empty.any()
    only_empty.sum().backward()


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_states_equal_a_loop_over_each_text(pooling: str, bidirectional: bool) -> None:
    """The backward direction starts at each text's own last word, not at a column of the batch."""
    tower = make(f"{pooling}-{'both' if bidirectional else 'one'}")
    texts = [[4, 8, 15], [16], [23, 42, 4, 8, 15, 16]]
    out = tower(Ragged.from_lists(texts))
    cells = []
    for source in [tower.forwards[0], *tower.backwards]:
        cell = nn.GRUCell(DIM, source.hidden_size)
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(cell, part).data.copy_(getattr(source, f"{part}_l0"))
        cells.append(cell)
    for row, text in zip(out, texts, strict=True):
        parts = []
        for cell, backward in zip(cells, [False, True], strict=False):
            state, states = torch.zeros(1, cell.hidden_size), []
            for token in reversed(text) if backward else text:
                state = cell(tower.words.vectors[token].unsqueeze(0), state)
                states.append(state[0])
            reduce: dict[str, Callable] = {
                "last": lambda s: s[-1],
                "mean": lambda s: torch.stack(s).mean(0),
                "max": lambda s: torch.stack(s).amax(0),
            }
            parts.append(reduce[pooling](states))
        torch.testing.assert_close(row, torch.cat(parts), atol=1e-5, rtol=1e-5)


@given(TEXTS, st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_sparse_gradients_equal_dense_double_precision(texts: list[list[int]], seed: int) -> None:
    batch, table = Ragged.from_lists(texts), word_table(seed)
    out = table.pool(batch)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed))
    out.backward(upstream)
    vectors = table.vectors.detach().double().requires_grad_()
    logs = table.log_weights.detach().double().requires_grad_()
    weights = logs.exp()
    zero = torch.zeros(DIM, dtype=torch.float64)
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
    vectors, logs = (p.detach().double().requires_grad_() for p in (table.vectors, table.log_weights))
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
    tower = make("average")
    tower.words.freeze()
    tower(Ragged.from_lists([[1, 2]])).sum().backward()
    assert tower.words.vectors.grad is None
    assert tower.words.log_weights.grad is not None


def test_impossible_settings_are_refused_in_a_sentence() -> None:
    with pytest.raises(UserError, match="did you mean 'mean'"):
        RecurrentTower(word_table(), 8, pooling="men")
    with pytest.raises(UserError, match=r"tower\.dim=7 must be even"):
        RecurrentTower(word_table(), 7, bidirectional=True)
