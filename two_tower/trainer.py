"""Lightning's Trainer: which of its keys work, and data parallel training with gradients of word tables by row."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.distributed.constants import default_pg_timeout
from torch.optim import Optimizer

from two_tower.distributed import all_gather, gather_rows, new_store
from two_tower.errors import UserError, at_least, one_of
from two_tower.optimizer.base import coalesced

_REFUSED = {  # keys of the Trainer that would do nothing here, or break what is promised; with the remedy
    "barebones": "use logger=csv ~callbacks.samples ~callbacks.doctor",
    "callbacks": "they are the group callbacks",
    "check_val_every_n_epoch": "use validation.every_n_steps",
    "default_root_dir": "use run_dir",
    "enable_checkpointing": "checkpoints make a run usable",
    "limit_predict_batches": "nothing is predicted in training",
    "limit_test_batches": "use two-tower evaluate RUN --split test",
    "limit_val_batches": "use validation=subset",
    "logger": "use the group logger",
    "model_registry": "a run is its folder; logger.artifacts=true sends it to W&B",
    "num_sanity_val_steps": "the untrained towers are always validated",
    "overfit_batches": "use experiment=debug_one_batch or data.max_examples",
    "plugins": "they are set for the device",
    "reload_dataloaders_every_n_epochs": "each epoch has its own order anyway",
    "use_distributed_sampler": "each process has its own part of a batch anyway",
    "val_check_interval": "use validation.every_n_steps",
}
USUAL_EPOCHS, FEWEST_STEPS = 8, 100
# Passages for a teacher are not learned by heart as soon as judged pairs are: so many steps, or passages in all.
TAUGHT_STEPS, TAUGHT_PASSAGES = 300, 240_000
_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "32", "bf16", "16")


def check_keys(trainer: Mapping[str, Any]) -> None:
    """Raise a ValueError for a key or a value of the Trainer with which training would fail, or do something else."""
    for key, remedy in _REFUSED.items():
        if key in trainer:
            raise ValueError(f"{key}={trainer[key]} has no place here: {remedy}")
    precision, strategy = str(trainer.get("precision") or "32"), trainer.get("strategy")
    if precision not in _PRECISIONS:
        raise ValueError(f"precision={precision} does not work with token batches; {one_of(precision, _PRECISIONS)}")
    if isinstance(strategy, str) and strategy != "auto":
        raise ValueError(f"strategy={strategy} fails on the sparse gradients of word tables: use trainer=ddp")
    if trainer.get("limit_train_batches") == 0:
        raise ValueError("limit_train_batches=0 trains nothing: leave it out, or set 1")
    at_least(1, accumulate_grad_batches=trainer.get("accumulate_grad_batches"))
    if (nodes := trainer.get("num_nodes")) not in (None, 1) and not {"MASTER_ADDR", "SLURM_JOB_ID"} & {*os.environ}:
        raise ValueError(f"num_nodes={nodes} waits for other machines: start it on each by torchrun or srun")


def launched(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """What the Trainer must know of the processes that torchrun or srun has started, on this machine and others.

    Raises a UserError where the keys of ``trainer`` say something else.
    """
    if TorchElasticEnvironment.detect():
        by, variables = "torchrun", {"devices": "LOCAL_WORLD_SIZE", "num_nodes": "GROUP_WORLD_SIZE"}
    elif SLURMEnvironment.detect():
        by, variables = "srun", {"devices": "SLURM_NTASKS_PER_NODE", "num_nodes": "SLURM_NNODES"}
    else:
        return {} if trainer.get("num_nodes") else {"num_nodes": 1}
    started = {key: int(os.environ[name]) for key, name in variables.items() if name in os.environ}
    for key, number in started.items():
        given = trainer.get(key)
        if given not in (None, "auto", number, str(number)) and not isinstance(given, list):
            raise UserError(f"trainer.{key}={given} is not what {by} has started, {number}: leave it out.")
    return {key: number for key, number in started.items() if not isinstance(trainer.get(key), list)}


def has_usual_length(trainer: Mapping[str, Any]) -> bool:
    """Whether no key of the Trainer says how long to train."""
    return trainer.get("max_epochs") is None and trainer.get("max_steps", -1) == -1 and not trainer.get("max_time")


def usual_epochs(batches: int, accumulated: int = 1, taught: int = 0) -> int:
    """How many epochs of ``batches`` to train where nothing says so: few examples need more of them.

    ``taught`` are the passages in a batch for a teacher, if the examples are such.
    """
    more = min(TAUGHT_STEPS, TAUGHT_PASSAGES // taught) if taught else 0
    return max(USUAL_EPOCHS, math.ceil(max(FEWEST_STEPS, more) * accumulated / batches))


class RowDDP(DDPStrategy):
    """Distributed data parallel for models with sparse gradients.

    torch's wrapper copies gradients into dense buckets and fails on the sparse ones of a word table. So the model
    stays unwrapped, and its gradients are averaged after a step's last backward pass, before they are clipped.
    Unlike the wrapper, this does not overlap communication with the backward pass; there are few dense parameters.
    """

    def setup_distributed(self) -> None:
        if TorchElasticEnvironment.detect() and not dist.is_initialized():
            self.set_world_ranks()
            backend = self._get_process_group_backend()
            store = new_store(self.global_rank, self._timeout or default_pg_timeout)
            dist.init_process_group(backend, store=store, rank=self.global_rank, world_size=self.world_size)
        super().setup_distributed()

    def configure_ddp(self) -> None:
        model = self.lightning_module  # every process starts with the weights of the first
        for tensor in (*model.parameters(), *model.buffers()) if model else ():
            dist.broadcast(tensor.detach(), src=0)

    def on_train_start(self) -> None:
        super().on_train_start()
        trainer = cast(L.LightningModule, self.lightning_module).trainer
        steps = all_gather(torch.tensor([trainer.global_step], device=self.root_device)).flatten().tolist()
        if len({*steps}) > 1:
            where = f"The processes continue from different steps ({', '.join(map(str, steps))})"
            raise UserError(f"{where}: run_dir={trainer.default_root_dir} must be one folder that all machines share.")

    def optimizer_step(self, optimizer: Optimizer, closure: Callable[[], Any], *args: Any, **more: Any) -> Any:  # noqa: ANN401
        def averaged() -> Any:  # noqa: ANN401
            result = closure()
            average_gradients(p for group in optimizer.param_groups for p in group["params"])
            return result

        return super().optimizer_step(optimizer, averaged, *args, **more)


@torch.no_grad()
def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace every gradient by its mean over the processes; a row that a process lacks counts as zeros.

    All processes get the same bits, so their weights stay equal. The parameters must come in the same order in every
    process, and each with a gradient in all of them or in none.
    """
    dense = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            parameter.grad = _mean_of_rows(coalesced(parameter.grad))
        else:
            dense.append(parameter.grad)
    if not dense:
        return
    flat = torch.cat([grad.flatten() for grad in dense])  # one message for all
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for grad, mean in zip(dense, flat.split([grad.numel() for grad in dense]), strict=True):
        grad.copy_(mean.view_as(grad))


def _mean_of_rows(grad: Tensor) -> Tensor:
    rows, values = grad.indices()[0], grad.values()
    counts = [int(count) for count in all_gather(torch.tensor([len(rows)], device=rows.device))]
    all_rows, all_values = (torch.cat(gather_rows(own, counts)) for own in (rows, values))
    mean = torch.sparse_coo_tensor(all_rows.unsqueeze(0), all_values, grad.shape, check_invariants=False).coalesce()
    mean.values().div_(len(counts))
    return mean
