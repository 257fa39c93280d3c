"""Optimizer, clipping and schedule in Lightning: a run cut in two equals the whole one, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from two_tower.optimizer.adagrad import Adagrad
from two_tower.optimizer.adam import Adam
from two_tower.optimizer.base import clip_gradients, parameter_groups
from two_tower.scheduler import Cosine

STEPS, CUT = 8, 3
OPTIONS = {"lr": 0.02, "embedding_lr_scale": 5, "weight_decay": 0, "embedding_weight_decay": 0}
OF_CLASS: dict[type, dict[str, Any]] = {
    Adam: {"betas": (0.9, 0.999), "eps": 1e-8},
    Adagrad: {"initial_accumulator": 0, "eps": 1e-10},
}


class Model(LightningModule):
    """A word table with sparse gradients and a dense layer; saves a checkpoint after step ``CUT``."""

    def __init__(self, optimizer_class: type, row_wise: bool, checkpoint: Path) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.bag, self.head = nn.EmbeddingBag(30, 4, sparse=True), nn.Linear(4, 3)
        self.bag.weight.is_word_table = True  # type: ignore[attr-defined]
        self.ids = torch.randint(0, 30, (STEPS, 8, 5))
        self.optimizer_class, self.row_wise, self.checkpoint = optimizer_class, row_wise, checkpoint
        self.rates: list[tuple[float, ...]] = []
        self.norms: list[float] = []

    def training_step(self, batch: Tensor, batch_index: int) -> Tensor:
        self.rates.append(tuple(g["lr"] for g in self.trainer.optimizers[0].param_groups))
        ids = self.ids[self.global_step]  # not from the loader: its position is not the matter here
        return nn.functional.cross_entropy(self.head(self.bag(ids)), ids[:, 0] % 3)

    def configure_gradient_clipping(self, optimizer: Any, gradient_clip_val: float, **_: Any) -> None:  # noqa: ANN401
        self.norms.append(clip_gradients(self.parameters(), gradient_clip_val).item())

    def on_train_batch_end(self, outputs: Any, batch: Tensor, batch_idx: int) -> None:  # noqa: ANN401
        if self.global_step == CUT:
            self.trainer.save_checkpoint(self.checkpoint)

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        groups = parameter_groups({"bag": self.bag, "head": self.head})
        optimizer = self.optimizer_class(groups, row_wise=self.row_wise, **OPTIONS, **OF_CLASS[self.optimizer_class])
        total = self.trainer.estimated_stepping_batches
        return {"optimizer": optimizer, "lr_scheduler": Cosine(warmup=0.25).build(optimizer, total)}


def fit(model: Model, checkpoint: Path | None) -> Model:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    folder = model.checkpoint.parent
    trainer = Trainer(accelerator="cpu", max_steps=STEPS, gradient_clip_val=0.2, default_root_dir=folder, **quiet)
    trainer.fit(model, DataLoader(TensorDataset(torch.zeros(STEPS))), ckpt_path=checkpoint, weights_only=True)
    return model


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("optimizer_class", "row_wise"), [(Adam, False), (Adam, True), (Adagrad, True)])
def test_a_resumed_run_equals_the_whole(optimizer_class: type, row_wise: bool, tmp_path: Path) -> None:
    checkpoint = tmp_path / "cut.ckpt"
    whole = fit(Model(optimizer_class, row_wise, checkpoint), None)
    resumed = fit(Model(optimizer_class, row_wise, tmp_path / "unused.ckpt"), checkpoint)
    assert len(whole.rates) == STEPS
    assert resumed.rates == whole.rates[CUT:]
    assert all(words == pytest.approx(5 * dense) for words, dense in whole.rates)
    assert max(whole.norms) > 0.2
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, dict(resumed.named_parameters())[name]), name
