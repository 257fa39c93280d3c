"""Word vectors that share a map: what they compute, what training costs and keeps, what a finished run holds."""

import logging
from pathlib import Path

import pytest
import torch
from killing import assert_same_weights, killed_after, untimed
from test_train import fit
from tower.test_recurrent import DIM, WORDS, random_batch
from training import history, state

from two_tower.errors import UserError
from two_tower.loading import load_model
from two_tower.optimizer.base import coalesced
from two_tower.run import Run
from two_tower.tower._mapped import MappedWords, fold
from two_tower.tower.average import AverageTower
from two_tower.tower.base import WordTable

PULL = "embedding.pull=0.5"


def mapped(pull: float = 1.0) -> MappedWords:
    torch.manual_seed(0)
    table = MappedWords(WORDS, DIM, pull)
    table.initialize(torch.randn(WORDS, DIM), torch.rand(WORDS) + 0.1)
    with torch.no_grad():
        table.map.add_(torch.randn(DIM, DIM) * 0.1)
        table.vectors.add_(torch.randn(WORDS, DIM) * 0.1)
    return table


def whole(table: MappedWords) -> WordTable:
    """The ordinary table with the same vectors."""
    module = torch.nn.ModuleDict({"words": table})
    fold(module, named := module.state_dict())
    plain = WordTable(WORDS, DIM)
    plain.load_state_dict({name.removeprefix("words."): value for name, value in named.items()})
    return plain


def test_it_starts_as_an_ordinary_table() -> None:
    torch.manual_seed(0)
    vectors, weights, batch = torch.randn(WORDS, DIM), torch.rand(WORDS) + 0.1, random_batch(20, 9)
    table, plain = MappedWords(WORDS, DIM, 1.0), WordTable(WORDS, DIM)
    for each in (table, plain):
        each.initialize(vectors, weights)
    torch.testing.assert_close(table.pool(batch), plain.pool(batch))
    torch.testing.assert_close(table.lookup(batch.ids), plain.lookup(batch.ids))


def test_it_computes_what_the_folded_table_does() -> None:
    table, batch = mapped(), random_batch(20, 9)
    plain = whole(table)
    torch.testing.assert_close(plain.vectors, table.start @ table.map.T + table.vectors)
    torch.testing.assert_close(table.pool(batch), plain.pool(batch), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(table.lookup(batch.ids), plain.lookup(batch.ids), atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(table.distinct(batch.ids), plain.distinct(batch.ids), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("reads", ["pool", "distinct"])
def test_gradients_are_those_of_the_plain_definition_and_hold_the_rows_of_the_batch(reads: str) -> None:
    table, batch = mapped(), random_batch(20, 9)
    start, matrix, own, logs = (
        t.detach().double().requires_grad_() for t in (table.start, table.map, table.vectors, table.log_weights)
    )
    vectors = start @ matrix.T + own
    if reads == "pool":
        out, weights, zero = table.pool(batch), logs.exp(), torch.zeros(DIM, dtype=torch.float64)
        means = [weights[t] @ vectors[t] / weights[t].sum() if t else zero for t in batch.to_lists()]
        expected = torch.stack(means)
    else:
        found, rows = table.distinct(batch.ids)
        out, expected = found[rows.long()], vectors[batch.ids.long()]
    upstream = torch.randn(out.shape)
    out.backward(upstream)
    expected.backward(upstream.double())
    torch.testing.assert_close(table.map.grad.double(), matrix.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(table.vectors.grad.to_dense().double(), own.grad, atol=1e-5, rtol=1e-4)
    assert table.start.grad is None
    assert table.vectors.grad.coalesce().indices().tolist() == [sorted({*batch.ids.tolist()})]
    if reads == "pool":
        torch.testing.assert_close(table.log_weights.grad.to_dense().double(), logs.grad, atol=1e-5, rtol=1e-4)


def test_the_pull_is_a_mean_over_the_distinct_words_and_moves_no_other() -> None:
    table, ids = mapped(0.5), torch.tensor([7, 3, 7, 7], dtype=torch.int32)
    own = table.vectors.detach()
    table.lookup(ids).sum().backward()
    grad = coalesced(table.vectors.grad)
    torch.testing.assert_close(table.add_pull(grad), 0.5 * (own[3].square().sum() + own[7].square().sum()) / 2)
    assert grad.indices().tolist() == [[3, 7]]
    torch.testing.assert_close(grad.values(), torch.tensor([[1.0], [3.0]]) + 0.5 * own[[3, 7]])
    table.freeze()
    assert not any(p.requires_grad for p in (table.map, table.vectors))


def test_folding_keeps_one_tensor_for_shared_towers() -> None:
    tower = AverageTower(mapped(), DIM)
    model = torch.nn.ModuleDict({"query_tower": tower, "document_tower": tower})
    maps = fold(model, named := model.state_dict())
    assert {*maps} == {"query_tower.words", "document_tower.words"}
    assert named["query_tower.words.vectors"] is named["document_tower.words.vectors"]


@pytest.mark.parametrize("overrides", [[], ["shared_towers=false"], ["tower=gru", "tower.refine=true"]])
def test_a_run_trains_the_map_and_ends_with_ordinary_tables(
    overrides: list[str], collection: Path, tmp_path: Path
) -> None:
    results = fit(collection, tmp_path / "run", PULL, "trainer.log_every_n_steps=1", *overrides)
    best, last = (state(tmp_path / "run", name) for name in ("best", "last"))
    table = "query_tower.words."
    assert {name for name in best if name.startswith(table)} == {f"{table}vectors", f"{table}log_weights"}
    moved = last[f"{table}map"] - torch.eye(16)
    assert float(moved.abs().max()) > 0
    assert float(last[f"{table}vectors"].abs().max()) > 0
    assert all(row["pull"] >= 0 for row in history(tmp_path / "run"))
    model, _ = load_model(Run(tmp_path / "run"))
    assert type(model.query_tower.words) is WordTable
    assert results["val/mrr@10"] > 0


def test_the_stronger_the_pull_the_less_words_have_of_their_own(collection: Path, tmp_path: Path) -> None:
    sizes = []
    for pull in (0, 1, 1000):
        fit(collection, tmp_path / f"{pull}", f"embedding.pull={pull}")
        sizes.append(float(state(tmp_path / f"{pull}")["query_tower.words.vectors"].norm()))
    assert sizes[0] > sizes[1] > sizes[2]


def test_a_killed_run_continues_bit_for_bit(collection: Path, tmp_path: Path) -> None:
    whole_run = fit(collection, tmp_path / "whole", PULL)
    with killed_after("on_train_epoch_end", lambda trainer: trainer.current_epoch == 0):
        fit(collection, tmp_path / "cut", PULL)
    assert untimed(fit(collection, tmp_path / "cut", PULL)) == untimed(whole_run)
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")


def test_the_words_of_a_finished_run_are_where_another_starts(collection: Path, tmp_path: Path) -> None:
    fit(collection, tmp_path / "first", PULL, "trainer.max_steps=3")
    begun = tmp_path / "second"
    fit(collection, begun, PULL, f"init_from={tmp_path / 'first'}", "trainer.max_steps=1", "optimizer.lr=0")
    first, second = state(tmp_path / "first", "best"), state(begun)
    assert torch.equal(second["query_tower.words.start"], first["query_tower.words.vectors"])
    assert torch.equal(second["query_tower.words.map"], torch.eye(16))
    assert not second["query_tower.words.vectors"].any()
    assert torch.equal(state(begun, "best")["query_tower.words.vectors"], first["query_tower.words.vectors"])


def test_frozen_words_keep_their_map_until_their_epoch(
    collection: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "two_tower"):
        fit(collection, tmp_path / "run", PULL, "embedding.freeze=3")
    (said,) = (message for message in caplog.messages if "Parameter group shared/dense" in message)
    assert "256 of them frozen until epoch 3." in said
    last = state(tmp_path / "run")
    assert torch.equal(last["query_tower.words.map"], torch.eye(16))
    with pytest.raises(UserError, match=r"embedding\.pull=-1\.0 must be at least 0"):
        fit(collection, tmp_path / "refused", "embedding.pull=-1.0")


def test_large_batches_in_little_memory_give_the_same_gradients(collection: Path, tmp_path: Path) -> None:
    for name, chunk in (("whole", "null"), ("chunks", "8")):
        fit(collection, tmp_path / name, PULL, f"encode_chunk={chunk}", "trainer.max_steps=2")
    ours, theirs = (state(tmp_path / name) for name in ("whole", "chunks"))
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], atol=1e-4, rtol=1e-3)
