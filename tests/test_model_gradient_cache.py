"""Gradient caching: the gradients of the same chunks without it, in the memory of one chunk."""

import ctypes
import re
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked import FORKS, find_server
from test_train import fit
from torch import Tensor
from training import losses

from two_tower.gradient_cache import encode_in_chunks
from two_tower.model import TwoTower
from two_tower.ragged import Ragged
from two_tower.similarity import Similarity
from two_tower.tower.average import AverageTower
from two_tower.tower.base import Tower, WordTable
from two_tower.tower.recurrent import RecurrentTower

TEXTS, CHUNK, WORDS, DIM = 47, 10, 30, 6


def texts() -> Ragged:
    """Some without tokens, among them a whole chunk."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 20, TEXTS)
    lengths[CHUNK : 2 * CHUNK] = 0
    return Ragged.from_lists([rng.integers(5, WORDS, n).tolist() for n in lengths])


def words() -> WordTable:
    table = WordTable(WORDS, 8)
    table.initialize(torch.randn(WORDS, 8), torch.rand(WORDS) + 0.5)
    return table


def recurrent(cell: Any) -> Tower:  # noqa: ANN401
    both = {"bidirectional": True, "encode_dtype": "bfloat16", "pooling": "attention"}
    return RecurrentTower(words(), DIM, cell, layers=2, dropout=0.4, **both)  # type: ignore[arg-type]


TOWERS: dict[str, Callable[[], Tower]] = {
    "average": lambda: AverageTower(words(), DIM, token_dropout=0.3),
    "frozen": lambda: RecurrentTower(words().requires_grad_(False), DIM),
    **{cell: partial(recurrent, cell) for cell in ("gru", "lstm")},
}


cached = partial(encode_in_chunks, size=CHUNK)


def in_turn(tower: Tower, tokens: Ragged) -> Tensor:
    return torch.cat([tower(tokens.slice(a, min(a + CHUNK, TEXTS))) for a in range(0, TEXTS, CHUNK)])


def learnt(tower: Tower, encode: Callable[[Tower, Ragged], Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Vectors, gradients, and what is drawn after each pass."""
    weights = torch.randn(TEXTS, tower.dim, generator=torch.Generator().manual_seed(1))
    tower.zero_grad()
    torch.manual_seed(seed)
    vectors = encode(tower, texts())
    found = {"vectors": vectors.detach(), "drawn after encoding": torch.rand(3)}
    (vectors.tanh() * weights).sum().backward()
    found["drawn at last"] = torch.rand(3)
    return found | {name: p.grad for name, p in tower.named_parameters() if p.grad is not None}


def check_tower(tower: Tower, drops: bool) -> None:
    found, expected = learnt(tower, cached), learnt(tower, in_turn)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].is_sparse == value.is_sparse
        torch.testing.assert_close(found[name].to_dense(), value.to_dense(), rtol=1e-5, atol=2e-6)
    for name in ("vectors", "drawn after encoding", "drawn at last"):
        assert torch.equal(found[name], expected[name])
    other = learnt(tower, in_turn, seed=1)["vectors"]
    assert torch.equal(other, expected["vectors"]) != drops  # negative control: what is drawn matters


@pytest.mark.parametrize("name", TOWERS)
def test_gradients_are_those_of_the_chunks_dropout_included(name: str) -> None:
    torch.manual_seed(0)
    check_tower(TOWERS[name](), drops=name != "frozen")


def test_transformers_too(transformer_folder: Path) -> None:
    from two_tower.tower.transformer import TransformerTower

    tower = TransformerTower(transformer_folder, 16)
    tower.train()
    check_tower(tower, drops=True)


@pytest.mark.parametrize("name", ["average", "gru"])
def test_mixed_precision_is_that_of_the_first_pass(name: str) -> None:
    tower = TOWERS[name]()
    with torch.autocast("cpu", torch.bfloat16):
        vectors = cached(tower, texts())
    kinds = list[bool]()
    tower.get_submodule("projection").register_forward_hook(lambda *_: kinds.append(torch.is_autocast_enabled("cpu")))
    vectors.float().sum().backward()  # outside of it, as Lightning does
    assert kinds == [True] * 5
    assert not torch.is_autocast_enabled("cpu")


def test_without_gradients_nothing_is_cut() -> None:
    sizes = list[int]()
    tower = TOWERS["gru"]()
    tower.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    model = TwoTower(tower, tower, Similarity(), encode_chunk=CHUNK)
    expected = tower.eval()(texts())
    sizes.clear()
    found = model.encode("documents", texts())
    assert sizes == [TEXTS]
    torch.testing.assert_close(found, Similarity().prepare(expected).detach(), atol=1e-2, rtol=0)  # bfloat16
    model.documents(texts())
    assert sizes[1:] == [10, 10, 10, 10, 7]


OPTIONS = [
    "trainer.max_steps=3", "trainer.log_every_n_steps=1", "scheduler=none", "validation.bm25=false",
    "negatives=given", "trainer.gradient_clip_val=0.1", "optimizer.lr=0.02",
]  # fmt: skip


@pytest.mark.parametrize("more", [["tower=average"], ["tower=gru", "trainer.precision=bf16-mixed"]])
def test_a_run_has_the_same_losses(more: list[str], collection: Path, tmp_path: Path) -> None:
    """Automatic optimization, clipping, sparse gradients, mixed precision."""
    fit(collection, tmp_path / "whole", *OPTIONS, *more)
    fit(collection, tmp_path / "chunks", *OPTIONS, *more, "encode_chunk=9")
    whole, chunks = (losses(tmp_path / name) for name in ("whole", "chunks"))
    assert len(whole) == 3
    assert whole[-1] != pytest.approx(whole[0], rel=0.01)
    assert chunks == pytest.approx(whole, rel=0.01 if more[1:] else 1e-4)


def megabytes(name: str) -> float:
    found = re.search(name + r":\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def peak(tower: Tower, count: int, size: int | None) -> float:
    """How much more memory is used at most while so many texts are encoded and their vectors' gradients computed."""
    ids = np.random.default_rng(0).integers(0, 500, 50 * count).astype(np.int32)
    tokens = Ragged.from_numpy(ids, np.arange(0, len(ids) + 1, 50))
    tower.zero_grad()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = megabytes("VmRSS")
    vectors = encode_in_chunks(tower, tokens, size)
    vectors.backward(torch.ones_like(vectors))
    return megabytes("VmHWM") - before


def measure(answer: Connection) -> None:
    """In a process of its own, in which memory that is freed goes back at once."""
    libc = ctypes.CDLL("libc.so.6")
    for setting in (-3, -1):
        libc.mallopt(setting, 1 << 16)  # large pieces come from the system one by one
    tower = RecurrentTower(WordTable(500, 128), 128, "gru")
    peak(tower, 128, 32)
    answer.send([peak(tower, 64, None), peak(tower, 512, 64), peak(tower, 256, None)])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux' own figures")
def test_a_large_batch_needs_the_memory_of_a_chunk() -> None:
    """Of all that is allocated, vectors and gradients included, whoever allocates it."""
    find_server()
    figures, answer = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=measure, args=(answer,))
    process.start()
    answer.close()
    small, large, uncached = figures.recv()
    process.join()
    assert small > 8
    assert large <= 1.3 * small
    assert uncached > 3 * small  # negative control
