"""A cross-batch memory in training: which documents are candidates, what learns from them, what a checkpoint holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_collection
from test_train import configure, fit
from torch import Tensor
from two_tower.candidates import Compared

from two_tower.assemble import load_model, make_data, make_model, try_parts
from two_tower.callbacks.checkpoint import LastCheckpoint
from two_tower.data.stream.module import TripletData
from two_tower.errors import UserError
from two_tower.loss.base import Loss, LossOutput
from two_tower.model import TwoTower
from two_tower.run import Run

BATCH, MEMORY = 32, 100


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every training query has three relevant passages, so a memory holds some of them."""
    folder = write_collection(tmp_path_factory.mktemp("remembered") / "beir")
    with (folder / "qrels" / "train.tsv").open("a") as file:
        file.writelines(f"q{d}\td{(d + n) % 240}\t1\n" for d in range(240) if d % 6 > 1 for n in (1, 2))
    return folder


def parts(folder: Path, path: Path, *overrides: str) -> tuple[TripletData, TwoTower]:
    config = configure(folder, path, f"cross_batch_memory={MEMORY}", "cross_batch_start=0", *overrides)
    data = make_data(config, path / "tokenizer.json")
    path.mkdir(exist_ok=True)
    return data, make_model(config, data)


class Seen(Loss):
    """A loss that keeps what it is given."""

    def __init__(self, loss: Loss | None) -> None:
        super().__init__()
        assert loss is not None
        self.loss, self.dims, self.given = loss, loss.dims, list[tuple[Any, Tensor]]()

    def forward(self, scores: Any, candidates: Tensor) -> LossOutput:  # noqa: ANN401
        self.given.append((scores, candidates))
        return self.loss(scores, candidates)


@pytest.mark.parametrize("mask_known_positives", ["true", "false"])
@pytest.mark.parametrize("negatives", ["in_batch", "random"])
def test_the_last_documents_are_candidates_unless_relevant(
    negatives: str, mask_known_positives: str, folder: Path, tmp_path: Path
) -> None:
    data, model = parts(
        folder, tmp_path, f"negatives={negatives}", f"negatives.mask_known_positives={mask_known_positives}"
    )
    model.loss = seen = Seen(model.loss)
    relevant = set(zip(data.train.qrels.query_rows.tolist(), data.train.qrels.document_rows.tolist(), strict=True))
    vectors, rows = torch.empty(0, 16), list[int]()
    masked = 0
    for step in range(6):
        batch = data.batches[0, step]
        model.training_step(batch, step)
        with torch.no_grad():  # nothing is learnt here, so they are the same in every step
            q_BD, d_ND = model.queries(batch.queries), model.documents(batch.documents)
        scores, candidates = seen.given[-1]
        torch.testing.assert_close(scores, q_BD @ torch.cat([d_ND, vectors]).T)
        own = batch.document_rows[:BATCH].tolist()
        expected = np.array(
            [
                [d != own[b] and (mask_known_positives == "false" or (q, d) not in relevant) for d in rows]
                for b, q in enumerate(batch.query_rows.tolist())
            ],
            bool,
        ).reshape(BATCH, len(rows))
        assert torch.equal(candidates[:, : len(d_ND)], batch.candidates)
        np.testing.assert_array_equal(candidates[:, len(d_ND) :].numpy(), expected)
        masked += int((~expected).sum())
        rows = [*rows, *batch.document_rows.tolist()][-MEMORY:]
        vectors = torch.cat([vectors, d_ND])[-MEMORY:]
    assert len(rows) == MEMORY
    assert masked > 0


@pytest.mark.parametrize("loss", ["in_batch", "matryoshka", "triplet"])
def test_queries_learn_from_the_memory_and_documents_do_not(loss: str, folder: Path, tmp_path: Path) -> None:
    options = [f"loss={loss}", "shared_towers=false"]
    data, model = parts(folder, tmp_path, *options)
    _, plain = parts(folder, tmp_path, *options, "cross_batch_memory=0")
    batch, found, without = data.batches[0, 1], dict[str, Tensor](), dict[str, Tensor]()
    for one, grads in ((model, found), (plain, without)):
        one.training_step(data.batches[0, 0], 0)
        one.training_step(batch, 1).backward()
        for side, tower in (("query", one.query_tower), ("document", one.document_tower)):
            grad = tower.get_parameter("words.vectors").grad
            assert grad is not None
            grads[side] = grad.to_dense()
    assert not torch.allclose(found["query"], without["query"])
    used = torch.zeros(len(found["document"]), dtype=torch.bool)
    used[batch.documents.ids.long()] = True
    assert not found["document"][~used].any()  # only words of this batch


def test_before_its_start_the_memory_only_listens(folder: Path, tmp_path: Path) -> None:
    data, model = parts(folder, tmp_path, "cross_batch_start=2")
    model.loss = seen = Seen(model.loss)
    for step in range(3):
        batch = data.batches[0, 0]
        compared = Compared(model.queries(batch.queries), model.documents(batch.documents), batch.candidates)
        assert model.more is not None
        found = model.more(compared, batch.query_rows, batch.document_rows, step)
        assert len(found.documents) == BATCH + (2 * BATCH if step == 2 else 0)
    model.training_step(batch, 3)  # outside of a trainer, its first step
    assert seen.given[-1][1].shape == (BATCH, BATCH)


class _Stop(BaseException):
    """Not an Exception: nothing may catch it on the way, as with a killed process."""


def test_a_continued_run_has_the_memory_of_an_uninterrupted_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [
        "cross_batch_memory=50",
        "cross_batch_start=6",
        "negatives=random",
        "callbacks.last.every_seconds=0",
        "validation.bm25=false",
    ]
    whole = fit(folder, tmp_path / "whole", *options)

    def stop(self: LastCheckpoint, trainer: Any, *args: Any) -> None:  # noqa: ANN401
        original(self, trainer, *args)
        if trainer.global_step == 4:
            raise _Stop

    original = LastCheckpoint.on_train_batch_end
    with monkeypatch.context() as patch:
        patch.setattr(LastCheckpoint, "on_train_batch_end", stop)
        with pytest.raises(_Stop):
            fit(folder, tmp_path / "cut", *options)
    continued = fit(folder, tmp_path / "cut", *options)
    assert continued["train/loss"] == whole["train/loss"]
    one, two = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "cut")
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert (one["more.memory.rows"] >= 0).all()
    model, _ = load_model(Run(tmp_path / "whole"))  # which needs no memory
    assert model.more is None
    without = fit(folder, tmp_path / "without", *options, "cross_batch_memory=0")
    assert without["train/loss"] != whole["train/loss"]  # negative control


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("cross_batch_memory=-3", r"^memory=-3 must be at least 1, or 0 for none\.$"),
        ("encode_chunk=0", r"^encode_chunk=0 must be at least 1, or null"),
    ],
)
def test_impossible_sizes_are_refused_before_anything_is_read(override: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        try_parts(configure(tmp_path, tmp_path / "run", override))
