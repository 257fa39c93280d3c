"""Documents of earlier batches as negatives, of this process: what is kept, what a loss sees of it, what learns."""

from pathlib import Path

import numpy as np
import oracles
import pytest
import torch
from conftest import write_collection
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import assert_same_weights, killed_after
from test_train import configure, fit
from torch import Tensor
from training import state, with_margins

from two_tower.assemble import make_data, make_model, try_parts
from two_tower.cross_batch import CrossBatchMemory
from two_tower.data.stream.module import TripletData
from two_tower.errors import UserError
from two_tower.loading import load_model
from two_tower.loss.base import Loss, LossInput
from two_tower.loss.distillation import DistillationLoss
from two_tower.model import TwoTower
from two_tower.run import Run
from two_tower.teacher._vectors import TeacherStore, TeacherVectors

BATCH, SIZE = 32, 100


@given(st.integers(1, 12), st.lists(st.integers(0, 15), max_size=8))
@settings(max_examples=60, deadline=None)
def test_a_memory_holds_the_last_documents_oldest_first(size: int, batches: list[int]) -> None:
    memory, rows, vectors = CrossBatchMemory(size, 3), list[int](), list[Tensor]()
    for count in batches:
        new = torch.arange(len(rows), len(rows) + count), torch.randn(count, 3)
        memory.push(new[1], new[0])
        rows += new[0].tolist()
        vectors += new[1]
        filled, filled_rows = memory.filled()
        assert filled_rows.tolist() == rows[-size:]
        assert torch.equal(filled, torch.stack(vectors)[-size:] if vectors else torch.empty(0, 3))
    saved = memory.state_dict()
    assert {name: tuple(value.shape) for name, value in saved.items()} == {"vectors": (size, 3), "rows": (size,)}
    other = CrossBatchMemory(size, 3)
    other.load_state_dict(saved)
    assert torch.equal(other.filled()[0], memory.filled()[0])


def test_what_a_memory_gave_stays_as_it_was() -> None:
    """The backward pass of a step runs after its documents have been pushed."""
    memory, query = CrossBatchMemory(4, 2), torch.ones(1, 2, requires_grad=True)
    memory.push(torch.arange(8, dtype=torch.bfloat16).view(4, 2).requires_grad_(), torch.arange(4))
    scores = query @ memory.filled()[0].T
    memory.push(torch.zeros(4, 2), torch.arange(4))
    scores.sum().backward()
    assert query.grad.tolist() == [[12, 16]]
    assert (memory.vectors.requires_grad, memory.vectors.dtype) == (False, torch.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every training query has three relevant passages, so a memory holds some of them."""
    folder = write_collection(tmp_path_factory.mktemp("remembered") / "beir")
    with (folder / "qrels" / "train.tsv").open("a") as file:
        file.writelines(f"q{d}\td{(d + n) % 240}\t1\n" for d in range(240) if d % 6 > 1 for n in (1, 2))
    return folder


def parts(folder: Path, path: Path, *overrides: str) -> tuple[TripletData, TwoTower]:
    config = configure(folder, path, f"cross_batch_memory={SIZE}", "cross_batch_start=0", *overrides)
    data = make_data(config, path / "tokenizer.json")
    path.mkdir(exist_ok=True)
    return data, make_model(config, data)


def seen_by(loss: Loss | None) -> list[LossInput]:
    given = list[LossInput]()
    loss.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    return given


@pytest.mark.parametrize(("negatives", "mask_known_positives"), [("in_batch", "true"), ("random", "false")])
def test_last_documents_are_negatives(negatives: str, mask_known_positives: str, folder: Path, tmp_path: Path) -> None:
    data, model = parts(
        folder, tmp_path, f"negatives={negatives}", f"negatives.mask_known_positives={mask_known_positives}"
    )
    seen = seen_by(model.loss)
    relevant = set(zip(data.train.qrels.query_rows.tolist(), data.train.qrels.document_rows.tolist(), strict=True))
    vectors, rows = torch.empty(0, 16), list[int]()
    masked = 0
    for step in range(6):
        batch = data.batches[0, step]
        model.training_step(batch, step)
        with torch.no_grad():  # nothing is learnt here, so they are the same in every step
            q_BD, d_ND = model.queries(batch.queries), model.documents(batch.documents)
        torch.testing.assert_close(seen[-1].scores, q_BD @ torch.cat([d_ND, vectors]).T)
        own = batch.document_rows[:BATCH].tolist()
        expected = np.array(
            [
                [d != own[b] and (mask_known_positives == "false" or (q, d) not in relevant) for d in rows]
                for b, q in enumerate(batch.query_rows.tolist())
            ],
            bool,
        ).reshape(BATCH, len(rows))
        found = seen[-1].negatives
        assert torch.equal(found[:, : len(d_ND)], batch.negatives)
        np.testing.assert_array_equal(found[:, len(d_ND) :].numpy(), expected)
        masked += int((~expected).sum())
        rows = [*rows, *batch.document_rows.tolist()][-SIZE:]
        vectors = torch.cat([vectors, d_ND])[-SIZE:]
    assert len(rows) == SIZE
    assert masked > 0


@pytest.mark.parametrize("loss", ["matryoshka", "triplet"])
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
            grads[side] = grad.to_dense()
    assert not torch.allclose(found["query"], without["query"])
    used = torch.zeros(len(found["document"]), dtype=torch.bool)
    used[batch.documents.ids.long()] = True
    assert not found["document"][~used].any()  # only words of this batch


def test_a_teacher_knows_the_documents_of_the_memory(folder: Path, tmp_path: Path) -> None:
    """Distillation compares with the remembered passages too, by their rows; its value equals plain loops."""
    data, model = parts(folder, tmp_path, "data.batch_size=8")
    rng = np.random.default_rng(0)
    made = [rng.normal(size=(count, 16)) for count in (len(data.train), len(data.corpus))]
    q, d = ((v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float16) for v in made)
    model.teacher = TeacherStore(TeacherVectors([q], 16), TeacherVectors([d[:50], d[50:]], 16))
    queries, documents = (torch.from_numpy(v).double() for v in (q, d))
    weights = {"cosine": 1.0, "kl": 0.3, "contrastive": 0.5, "margin": 2.0}
    model.loss = DistillationLoss(TeacherVectors([], 16), 16, weights)
    seen = seen_by(model.loss)
    rows = torch.empty(0, dtype=torch.int64)
    for step in range(3):
        batch = data.batches[0, step]
        value = model.training_step(batch, step)
        given, all_rows = seen[-1], torch.cat([batch.document_rows, rows])
        student = (given.queries.double(), given.documents.double())
        assert student[1].shape == (8 * (step + 1), 16)
        teacher = (queries[batch.query_rows], documents[all_rows])
        inputs = (student[0] @ student[1].T, given.negatives, student, teacher, 0.05)
        expected = sum(weight * oracles.DISTILLATION[name](*inputs).item() for name, weight in weights.items())
        assert value.item() == pytest.approx(expected, rel=1e-4)
        rows = torch.cat([rows, batch.document_rows])


def test_a_memory_changes_nothing_for_scores_of_triples(folder: Path, tmp_path: Path) -> None:
    """Margin-MSE looks at a query's own negatives only, wherever remembered documents stand."""
    scored = with_margins(folder, tmp_path / "scored")
    data, model = parts(scored, tmp_path / "run", "loss=margin_mse", "negatives=given")
    seen = seen_by(model.loss)
    for step in range(3):
        batch = data.batches[0, step]
        value = model.training_step(batch, step)
        scores = model.queries(batch.queries) @ model.documents(batch.documents).T
        assert seen[-1].scores.shape[1] == min(2 * BATCH * (step + 1), 2 * BATCH + SIZE)
        assert value.item() == pytest.approx(oracles.margin_mse(scores, batch.margins, 0.05).item(), rel=1e-5)


def test_before_its_start_the_memory_only_listens(folder: Path, tmp_path: Path) -> None:
    data, model = parts(folder, tmp_path, "cross_batch_start=2")
    seen = seen_by(model.loss)
    batch = data.batches[0, 0]
    for step in range(3):
        model.cross_batch.start_step = 2 if step < 2 else 0  # outside of a trainer every step is the first
        model.training_step(batch, step)
        assert seen[-1].negatives.shape == (BATCH, BATCH + (2 * BATCH if step == 2 else 0))


def test_a_continued_run_has_the_memory_of_an_uninterrupted_one(folder: Path, tmp_path: Path) -> None:
    options = [
        "cross_batch_memory=50", "cross_batch_start=6", "negatives=random", "callbacks.last.every_seconds=0",
        "validation.bm25=false", "trainer.max_steps=10",
    ]  # fmt: skip
    whole = fit(folder, tmp_path / "whole", *options)
    with killed_after("on_train_batch_end", lambda trainer: trainer.global_step == 4):
        fit(folder, tmp_path / "cut", *options)
    assert fit(folder, tmp_path / "cut", *options)["train/loss"] == whole["train/loss"]
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")
    assert (state(tmp_path / "whole")["cross_batch.memory.rows"] >= 0).all()
    model, _ = load_model(Run(tmp_path / "whole"))
    assert not any("cross_batch" in key for key in model.state_dict())  # a model in use needs no memory
    without = fit(folder, tmp_path / "without", *options, "cross_batch_memory=0")
    assert without["train/loss"] != whole["train/loss"]  # negative control


def test_impossible_sizes_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    for override, limit in (("cross_batch_memory=-3", "1, or 0"), ("encode_chunk=0", "1, or null")):
        with pytest.raises(UserError, match=f"^{override} must be at least {limit}"):
            try_parts(configure(tmp_path, tmp_path / "run", override))
