"""Averaged gradients equal the mean of dense ones. That two processes learn together is held by test_kill.py."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from two_tower import distributed, trainer
from two_tower.errors import UserError

ROWS, DIM = 9, 3


class Threads:
    """Stands in for `torch.distributed`: every rank is a thread."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self._barrier = threading.Barrier(ranks, timeout=30)
        self._sent: list[Any] = [None] * ranks
        self._own = threading.local()

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        """What ``work(rank)`` gives in every rank."""

        def begin(rank: int) -> Any:  # noqa: ANN401
            self._own.rank = rank
            return work(rank)

        with ThreadPoolExecutor(self.ranks) as pool:
            return list(pool.map(begin, range(self.ranks)))

    def _exchange(self, tensor: Tensor) -> list[Tensor]:
        self._sent[self._own.rank] = tensor.clone()
        self._barrier.wait()
        everyone = list(self._sent)
        self._barrier.wait()
        assert len({t.shape for t in everyone}) == 1  # gloo and NCCL ask for it
        return everyone

    def get_world_size(self) -> int:
        return self.ranks

    def is_available(self) -> bool:
        return True

    is_initialized = is_available

    def all_gather(self, parts: list[Tensor], tensor: Tensor) -> None:
        for part, sent in zip(parts, self._exchange(tensor), strict=True):
            part.copy_(sent)

    def all_reduce(self, tensor: Tensor) -> None:
        tensor.copy_(torch.stack(self._exchange(tensor)).sum(0))


def parameters(rows: list[int]) -> list[nn.Parameter]:
    """A word table with gradients for ``rows`` (repeated ones too), its weights, two dense ones, a frozen one."""
    made = [nn.Parameter(torch.zeros(shape)) for shape in ((ROWS, DIM), (ROWS,), (4, 2), (5,), (2,))]
    places = torch.tensor([rows], dtype=torch.long)
    for table in made[:2]:
        values = torch.randn(len(rows), *table.shape[1:])
        table.grad = torch.sparse_coo_tensor(places, values, table.shape, check_invariants=True)
    for dense in made[2:4]:
        dense.grad = torch.randn_like(dense)
    return made


def gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


@given(st.lists(st.lists(st.integers(0, ROWS - 1), max_size=12), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_the_mean_is_that_of_dense_gradients(touched: list[list[int]]) -> None:
    torch.manual_seed(0)
    ranks = [parameters(rows) for rows in touched]
    means = [torch.stack([gradient(own[k]).to_dense() for own in ranks]).mean(0) for k in range(4)]
    with pytest.MonkeyPatch.context() as patch:
        threads = Threads(len(ranks))
        patch.setattr(trainer, "dist", threads)
        patch.setattr(distributed, "dist", threads)
        threads.run(lambda rank: trainer.average_gradients(ranks[rank]))
    for k, mean in enumerate(means):
        for found in (gradient(own[k]) for own in ranks):
            torch.testing.assert_close(found.to_dense(), mean)
            assert torch.equal(found.to_dense(), gradient(ranks[0][k]).to_dense())
            # A row that no rank touched must not be stepped: lazy optimizers step every row that is there.
            if found.is_sparse:
                assert found.indices()[0].tolist() == sorted({row for rows in touched for row in rows})
    assert all(own[4].grad is None for own in ranks)


@pytest.mark.parametrize(
    ("batches", "taught", "epochs"),
    [(17, 0, 8), (4, 0, 25), (1, 0, 100), (15, 2048, 8), (4, 675, 75), (4, 2048, 30), (1000, 2048, 8)],
)
def test_small_collections_are_read_more_often(batches: int, taught: int, epochs: int) -> None:
    assert trainer.usual_epochs(batches, taught=taught) == epochs


SLURM = {"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "x"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2"}


@pytest.mark.parametrize("variables", [SLURM, TORCHRUN], ids=["srun", "torchrun"])
def test_processes_are_as_many_as_were_started(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On two machines with four each; that torchrun's train together is held by test_kill.py."""
    assert trainer.launched({"devices": "auto", "num_nodes": None}) == {"num_nodes": 1}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for keys in ({"devices": "auto", "num_nodes": None}, {"devices": 4, "num_nodes": 2}):
        assert trainer.launched(keys) == {"devices": 4, "num_nodes": 2}
    assert trainer.launched({"devices": [0, 1, 2, 3]}) == {"num_nodes": 2}  # these very ones
    with pytest.raises(UserError, match=r"trainer\.num_nodes=3 is not what .*run has started, 2"):
        trainer.launched({"devices": 4, "num_nodes": 3})
