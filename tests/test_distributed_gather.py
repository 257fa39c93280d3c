"""Two processes with half of the batch each learn what one learns from the whole, as real processes over gloo."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import configure, run_command, write_collection
from test_train import fit
from torch import Tensor
from training import UniformityLoss, losses

from two_tower.assemble import make_data, make_model
from two_tower.distributed import gather, processes
from two_tower.errors import UserError
from two_tower.loss.in_batch import InBatchLoss
from two_tower.loss.matryoshka import MatryoshkaLoss
from two_tower.loss.sum import SumLoss
from two_tower.trainer import average_gradients

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="needs torch with gloo")

RANKS, BATCH, STEPS = 2, 64, 2

# Without dropout: the processes draw other numbers than one would.
CASES = {
    "in_batch": ["loss.learn_temperature=true"],
    "one direction": ["loss.symmetric=false", "similarity=dot"],
    "extras": ["negatives=given", "loss.learn_temperature=true"],
    "random extras": ["negatives=random", "negatives.count=2"],
    "own extras": ["negatives=given", "negatives.in_batch_negatives=false"],
    "known positives": ["negatives=given", "negatives.mask_known_positives=false"],
    "triplet": ["loss=triplet", "negatives=given", "similarity=euclidean"],
    "triplet in the batch": ["loss=triplet", "negatives=in_batch", "loss.select=semi_hard"],
    "matryoshka": ["loss=matryoshka", "negatives=given"],
    "two towers": ["shared_towers=false", "negatives=given"],
    "gradient cache": ["tower=gru", "encode_chunk=24", "negatives=given"],
    "memory": ["cross_batch_memory=150", "cross_batch_start=0", "negatives=given"],
    "large memory": ["cross_batch_memory=1000", "cross_batch_start=0", "loss=matryoshka"],
    "vectors alone": ["negatives=given"],
    "vectors alone, memory": ["negatives=random", "cross_batch_memory=150", "cross_batch_start=0"],
    "vectors in a sum": ["cross_batch_memory=150", "cross_batch_start=0"],
    "shortened vectors, memory": ["negatives=given", "cross_batch_memory=150", "cross_batch_start=0"],
}
# Losses of one's own, on vectors alone or with others.
OWN = {
    "vectors alone": UniformityLoss,
    "vectors alone, memory": UniformityLoss,
    "vectors in a sum": lambda: SumLoss({"uniform": 0.3}, uniform=UniformityLoss(), in_batch=InBatchLoss()),
    "shortened vectors, memory": lambda: MatryoshkaLoss(UniformityLoss(), 12, [5]),
}


class Learnt(NamedTuple):
    """What a process computes in the last of some steps."""

    losses: list[Tensor]
    grads: dict[str, Tensor]
    buffers: dict[str, Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every query has two relevant passages, which may lie in the batches of different processes."""
    folder = write_collection(tmp_path_factory.mktemp("gathered") / "beir")
    with (folder / "qrels" / "train.tsv").open("a") as file:
        file.writelines(f"q{d}\td{(d + 1) % 240}\t1\n" for d in range(240) if d % 6 > 1)
    triples = (f"q{d}\td{(d + 1) % 240}\td{(5 * d) % 240}\n" for d in range(240) if d % 6 > 1)
    with (folder / "triples.tsv").open("a") as file:
        file.writelines(triples)
    return folder


def learnt(folder: Path, tokenizer: Path, case: str, more: str | None = None, rank: int = 0, ranks: int = 1) -> Learnt:
    """The batches of a rank through the model, with the gradients of the last step averaged over the ranks."""
    size = BATCH * RANKS // ranks
    overrides = [*CASES.get(case, []), *([more] if more else [])]
    config = configure(folder, folder, *overrides, f"data.batch_size={size}", "tower.dim=12", "embedding.dim=8")
    data = make_data(config, tokenizer)
    data.trainer = SimpleNamespace(global_rank=rank, world_size=ranks)  # type: ignore[assignment]
    model = make_model(config, data)
    if case in OWN:
        model.loss = OWN[case]()
    found = []
    for step in range(STEPS):
        model.zero_grad()
        loss = model.training_step(data.batches[0, step], step)
        loss.backward()
        found.append(loss.detach())
    if ranks > 1:
        average_gradients(model.parameters())
    grads = {name: p.grad.to_dense() for name, p in model.named_parameters() if p.grad is not None}
    buffers = {name: b.clone() for name, b in model.named_buffers() if name.startswith("cross_batch.")}
    return Learnt(found, grads, buffers)


def _process(rank: int, folder: Path, path: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}/meet", rank=rank, world_size=RANKS)
    found: dict[str, object] = {}
    runs = {name: (name, "cross_device=true") for name in CASES}
    runs |= {"apart": ("default", None), "apart with memory": ("memory", None)}
    for name, (case, more) in runs.items():
        found[name] = tuple(learnt(folder, path / "tokenizer.json", case, more, rank, RANKS))
    try:
        gather([torch.zeros(4, 3), torch.zeros(4 + rank, 3)])
    except UserError as error:
        found["unequal"] = str(error)
    torch.save(found, path / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each rank found, by case."""
    path = tmp_path_factory.mktemp("ranks")
    learnt(folder, path / "tokenizer.json", "default")  # writes the tokenizer and the token store
    mp.spawn(_process, (folder, path), nprocs=RANKS)
    return [torch.load(path / f"{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize("case", CASES)
def test_two_halves_learn_what_one_process_learns(case: str, folder: Path, ranks: list[dict], tmp_path: Path) -> None:
    whole = learnt(folder, tmp_path / "tokenizer.json", case)
    for rank in ranks:
        found = Learnt(*rank[case])
        torch.testing.assert_close(found.losses, whole.losses, atol=1e-6, rtol=1e-6)
        assert found.grads.keys() == whole.grads.keys()
        for name, grad in whole.grads.items():
            assert grad.any(), name
            torch.testing.assert_close(found.grads[name], grad, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(found.buffers, whole.buffers)
    assert ("cross_batch_memory" in " ".join(CASES[case])) == bool(whole.buffers)


def test_without_gathering_each_half_is_a_smaller_task(folder: Path, ranks: list[dict], tmp_path: Path) -> None:
    """Negative control: what the cases above would find if nothing were gathered."""
    whole = learnt(folder, tmp_path / "tokenizer.json", "default")
    apart = [Learnt(*rank["apart"]) for rank in ranks]
    assert sum(half.losses[0] for half in apart) / RANKS < whole.losses[0] - 0.1  # half as many negatives
    name = "query_tower.words.vectors"
    assert not torch.allclose(apart[0].grads[name], whole.grads[name], atol=1e-4)


def test_processes_that_are_compared_apart_remember_the_same(ranks: list[dict]) -> None:
    """One of them writes the checkpoint, so its memory must be that of all."""
    one, two = (Learnt(*rank["apart with memory"]) for rank in ranks)
    assert one.buffers["cross_batch.memory.rows"].min() >= 0
    torch.testing.assert_close(one.buffers, two.buffers, atol=0, rtol=0)
    assert one.losses[1] != two.losses[1]


def test_unequal_batches_are_refused(ranks: list[dict]) -> None:
    for rank in ranks:
        assert re.search(r"\(4 and 5 vectors\): data.batch_size .* cross_device=false", rank["unequal"])


def test_one_process_has_nothing_to_gather(folder: Path, tmp_path: Path) -> None:
    assert processes() == 1
    alone, usual = (
        learnt(folder, tmp_path / "tokenizer.json", "default", more) for more in ("cross_device=true", None)
    )
    assert alone.losses == usual.losses
    assert all(torch.equal(alone.grads[name], grad) for name, grad in usual.grads.items())


def test_a_run_of_two_processes_has_the_losses_of_one(folder: Path, tmp_path: Path) -> None:
    """The whole program: trainer=ddp finds cross_device, memory and gradient cache in one configuration."""
    options = [
        "trainer.max_steps=4", "trainer.log_every_n_steps=1", "scheduler=none", "validation.bm25=false",
        "tower.dim=16", "cross_device=true", "cross_batch_memory=100", "cross_batch_start=1",
        "encode_chunk=10", "trainer.max_epochs=2",
    ]  # fmt: skip
    fit(folder, tmp_path / "one", *options, "data.batch_size=128")
    ended = run_command(
        "train.py", "data=beir", f"data.path={folder}", *options, "trainer=ddp", "trainer.accelerator=cpu",
        "trainer.devices=2", "data.batch_size=64", f"run_dir={tmp_path / 'two'}", cwd=tmp_path,
        timeout=300,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    one, two = (losses(tmp_path / name) for name in ("one", "two"))
    assert len(one) == 4
    assert two == pytest.approx(one, rel=1e-4)
