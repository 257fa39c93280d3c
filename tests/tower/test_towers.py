"""What every tower promises; the average tower and its word table, whose gradients hold only the batch's rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from tower.test_recurrent import ARRAY
from tower.test_recurrent import make as recurrent

from two_tower.ragged import Ragged
from two_tower.tower import _recurrence as recurrence
from two_tower.tower import transformer
from two_tower.tower._lookup import Lookup, pool
from two_tower.tower.average import AverageTower
from two_tower.tower.base import Tower, WordTable, padded
from two_tower.tower.transformer import TransformerTower

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


def average(**options: Any) -> AverageTower:  # noqa: ANN401
    torch.manual_seed(1)
    return AverageTower(word_table(), **{"dim": DIM, **options})


def of_docs() -> Tower:
    """The complete example of docs/towers.md."""
    docs = (Path(__file__).parents[2] / "docs" / "towers.md").read_text()
    scope: dict[str, Callable[..., Tower]] = {}
    exec(docs.split("```python\n# two_tower/tower/convolution.py\n")[1].split("```")[0], scope)
    return scope["ConvolutionTower"](word_table(), 8)


TEXTS = st.lists(st.lists(st.integers(0, WORDS - 1), max_size=9), min_size=1, max_size=9)
TOWERS: dict[str, Callable[[], Tower]] = {
    "average": average,
    "projected": lambda: average(dim=8),
    "tanh": lambda: average(dim=8, tanh=True),
    "of the docs": of_docs,
    **{" ".join(map(str, case)): lambda case=case: recurrent(*case) for case in ARRAY},
}


@pytest.fixture(autouse=True)
def _many_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Blocks so small that few texts make several, and the number of threads as it was."""
    monkeypatch.setattr(recurrence, "BLOCK", 4)
    monkeypatch.setattr(transformer, "CPU_BLOCK", 20)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=[*TOWERS, "transformer"])
def tower(request: pytest.FixtureRequest) -> Tower:
    if request.param == "transformer":
        return TransformerTower(request.getfixturevalue("transformer_folder"), 8).eval()
    return TOWERS[request.param]().eval()


@given(texts=TEXTS, threads=st.sampled_from((1, 2)), recorded=st.booleans(), data=st.data())
@settings(max_examples=10, deadline=None)
def test_a_vector_is_the_same_alone_in_a_batch_and_in_any_order(
    tower: Tower, texts: list[list[int]], threads: int, recorded: bool, data: st.DataObject
) -> None:
    torch.set_num_threads(threads)
    batch, order = Ragged.from_lists(texts), data.draw(st.permutations(range(len(texts))))
    with torch.set_grad_enabled(recorded):  # recurrent: each step in memory of its own, or in place of the last
        together = tower(batch)
    with torch.inference_mode():
        alone, shuffled = torch.cat([tower(Ragged.from_lists([t])) for t in texts]), tower(batch.select(order))
    tolerance = 0 if type(tower) is AverageTower and tower.dim == DIM else 1e-5
    torch.testing.assert_close(together, alone, atol=tolerance, rtol=0)
    torch.testing.assert_close(together[order], shuffled, atol=tolerance, rtol=0)


def test_a_text_without_tokens_is_zero_and_trains(tower: Tower) -> None:
    out = tower(Ragged.from_lists([[], [1, 2], []]))
    assert not out[[0, 2]].any()
    assert out[1].any()
    out.sum().backward()
    assert all(p.grad is not None for p in tower.parameters() if p.requires_grad)
    for recorded in (False, True):
        with torch.set_grad_enabled(recorded):
            only_empty = tower(Ragged.from_lists([[], []]))
            assert not only_empty.any()
            assert tower(Ragged.from_lists([])).shape == (0, tower.dim)
    only_empty.sum().backward()
    tower.zero_grad()


@pytest.mark.parametrize("dim", [DIM, 8])
def test_thread_count_changes_nothing(dim: int) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(0, 90, (600,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    ids = torch.randint(0, WORDS, (int(offsets[-1]),), generator=generator, dtype=torch.int32)
    tower, batch, results = average(dim=dim), Ragged(ids, offsets), []
    for count in (1, 2):
        torch.set_num_threads(count)
        tower.zero_grad()
        out = tower(batch)
        out.square().sum().backward()
        results.append((out.detach(), tower.words.vectors.grad.to_dense()))
    tolerance = 0 if dim == DIM else 1e-4
    torch.testing.assert_close(*results, atol=tolerance, rtol=tolerance)


def test_the_average_is_the_weighted_mean() -> None:
    tower = average()
    vectors, weights = tower.words.vectors.detach(), tower.words.log_weights.detach().exp()
    text = [3, 3, 7, 49]
    expected = sum(weights[i] * vectors[i] for i in text) / sum(weights[i] for i in text)
    torch.testing.assert_close(tower(Ragged.from_lists([[1], text]))[1], expected)
    tower = average(dim=8, tanh=True)
    torch.testing.assert_close(tower(Ragged.from_lists([text]))[0], (tower.projection.weight @ expected).tanh())


def test_uniform_weights_that_are_not_learned_give_the_plain_mean() -> None:
    table = word_table()
    table.initialize(table.vectors.detach().clone(), None)
    tower = AverageTower(table, DIM, learn_weights=False)
    out = tower(Ragged.from_lists([[3, 3, 7]]))
    torch.testing.assert_close(out[0], table.vectors[[3, 3, 7]].mean(0))
    out.sum().backward()
    assert table.log_weights.grad is None


def test_token_dropout_leaves_tokens_out_in_training_only() -> None:
    tower = average(token_dropout=0.5)
    batch = Ragged.from_lists([list(range(40))] * 2)
    torch.manual_seed(0)
    assert not torch.equal(*tower(batch))
    assert torch.equal(*tower.eval()(batch))
    with pytest.raises(ValueError, match=r"^token_dropout=1\.0 must be at least 0 and below 1"):
        average(token_dropout=1.0)


@given(TEXTS, st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
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


def test_gradients_are_sparse_and_equal_on_other_devices_and_dtypes() -> None:
    """The torch path, which runs on GPUs, here in double precision on the CPU."""
    batch, table = Ragged.from_lists([[1, 2, 2], [], [49]]), word_table()
    vectors, logs = doubled(table)
    fast, general = table.pool(batch), pool(batch, vectors, logs)
    torch.testing.assert_close(fast.double(), general, atol=1e-6, rtol=1e-6)
    fast.square().sum().backward()
    assert table.vectors.grad.is_sparse
    for parameter in table.parameters():
        assert parameter.grad.coalesce().indices().tolist() == [[1, 2, 49]]  # the rows of the batch only
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
    (Lookup.apply(ids, ours) * factor).sum().backward()
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
