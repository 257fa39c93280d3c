"""What every tower promises; the average tower and its word table, whose gradients hold only the batch's rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from tower.test_recurrent import ARRAY, DIM, WORDS, random_batch
from tower.test_recurrent import make as recurrent

from two_tower.ragged import Ragged
from two_tower.tower._lookup import Lookup, pool
from two_tower.tower._products import FEW
from two_tower.tower.average import AverageTower
from two_tower.tower.base import Tower, WordTable, padded
from two_tower.tower.transformer import TransformerTower


def word_table(seed: int = 0) -> WordTable:
    generator = torch.Generator().manual_seed(seed)
    table = WordTable(WORDS, DIM)
    table.spelling = ["", *map(str, range(1, WORDS))]
    table.initialize(torch.randn(WORDS, DIM, generator=generator), torch.rand(WORDS, generator=generator) + 0.1)
    return table


def average(**options: Any) -> AverageTower:  # noqa: ANN401
    torch.manual_seed(1)
    return AverageTower(word_table(), **{"dim": DIM, **options})


def of_docs() -> Tower:
    """The complete example of docs/towers.md."""
    docs = (Path(__file__).parents[2] / "docs" / "towers.md").read_text()
    scope: dict[str, Callable[..., Tower]] = {}
    exec(docs.split("```python\n# two_tower/tower/convolution.py\n")[1].split("```")[0], scope)
    return scope["ConvolutionTower"](word_table(), 8)


Texts = list[list[int]]
TEXTS = st.lists(st.lists(st.integers(0, WORDS - 1), max_size=9), min_size=1, max_size=9)
TOWERS: dict[str, Callable[[], Tower]] = {
    "average": average,
    "projected": lambda: average(dim=8),
    "tanh": lambda: average(dim=8, tanh=True),
    "lexical": lambda: average(lexical_dims=128),
    "of the docs": of_docs,
    **{" ".join(map(str, case)): lambda case=case: recurrent(*case) for case in ARRAY},
}


@pytest.fixture(scope="module", params=[*TOWERS, "transformer"])
def tower(request: pytest.FixtureRequest) -> Tower:
    if request.param == "transformer":
        return TransformerTower(request.getfixturevalue("transformer_folder"), 8).eval()
    return TOWERS[request.param]().eval()


@given(texts=TEXTS, threads=st.sampled_from((1, 2)), recorded=st.booleans(), data=st.data())
@settings(max_examples=10, deadline=None)
def test_a_text_has_one_vector(tower: Tower, texts: Texts, threads: int, recorded: bool, data: st.DataObject) -> None:
    """Alone, in a batch, and in any order."""
    torch.set_num_threads(threads)
    batch, order = Ragged.from_lists(texts), data.draw(st.permutations(range(len(texts))))
    with torch.set_grad_enabled(recorded):  # recurrent: each step in memory of its own, or in place of the last
        together = tower(batch)
    with torch.inference_mode():
        alone, shuffled = torch.cat([tower(Ragged.from_lists([t])) for t in texts]), tower(batch.select(order))
    tolerance = 0 if type(tower) is AverageTower and isinstance(tower.projection, nn.Identity) else 1e-5
    torch.testing.assert_close(together, alone, atol=tolerance, rtol=0)
    torch.testing.assert_close(together[order], shuffled, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", [name for name in TOWERS if name != "of the docs"])
def test_a_vector_has_the_same_bits_whatever_it_is_encoded_with(name: str) -> None:
    numbers = torch.randn(600, DIM)
    if not torch.equal(numbers[:FEW] @ numbers[:8].T, (numbers @ numbers[:8].T)[:FEW]):
        pytest.skip("the matrix products of this machine depend on their number of rows")
    tower, batch = TOWERS[name]().eval(), random_batch(300, 30)
    with torch.inference_mode():
        together = tower(batch)
        for count in (1, 2, 3, 5, 7, 11, 13, FEW, 101):
            rows = torch.randperm(len(batch))[:count]
            assert torch.equal(tower(batch.select(rows)), together[rows]), count


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
    tower, batch, results = average(dim=dim), random_batch(600, 90), []
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
    uniform = WordTable(WORDS, DIM)
    uniform.initialize(vectors, None)
    torch.testing.assert_close(AverageTower(uniform, DIM)(Ragged.from_lists([text]))[0], vectors[text].mean(0))


def test_what_is_frozen_gets_no_gradient() -> None:
    for frozen in ("vectors", "log_weights"):
        table = word_table()
        table.freeze(frozen == "vectors")
        tower = AverageTower(table, DIM, learn_weights=frozen != "log_weights")
        tower(Ragged.from_lists([[1, 2]])).sum().backward()
        assert [name for name, p in table.named_parameters() if p.grad is None] == [frozen]


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
def test_sparse_gradients_equal_dense_double_precision_on_every_device(texts: list[list[int]], seed: int) -> None:
    """The path of GPUs, here in double precision on the CPU, is compared with the same plain sums."""
    batch, table = Ragged.from_lists(texts), word_table(seed)
    out = table.pool(batch)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed))
    out.backward(upstream)
    (vectors, logs), general = ([p.detach().double().requires_grad_() for p in table.parameters()] for _ in "ab")
    weights, zero = logs.exp(), torch.zeros(DIM, dtype=torch.float64)
    rows = [(weights[t].unsqueeze(1) * vectors[t]).sum(0) / weights[t].sum() if t else zero for t in texts]
    expected, elsewhere = torch.stack(rows), pool(batch, *general)
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(elsewhere, expected)
    if any(texts):
        expected.backward(upstream.double())
        elsewhere.backward(upstream.double())
        for ours, other, wanted in zip(table.parameters(), general, (vectors, logs), strict=True):
            torch.testing.assert_close(ours.grad.to_dense().double(), wanted.grad, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(other.grad.to_dense(), wanted.grad)
            assert ours.grad.is_sparse
            assert ours.grad.coalesce().indices().tolist() == [sorted({*batch.ids.tolist()})]  # the batch's rows only


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
