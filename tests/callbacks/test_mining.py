"""The model's own negatives: found exactly, in the epochs asked for, by the weights recorded, again after a stop."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killing import Killed
from recorder import digest
from test_train import STEPS_PER_EPOCH, fit

from two_tower.assemble import load_model, make_data
from two_tower.callbacks import mining
from two_tower.callbacks.checkpoint import LastCheckpoint
from two_tower.callbacks.mining import Mining, checksum, search
from two_tower.config import read
from two_tower.config.check import CONF
from two_tower.data.stream.batch import Batches
from two_tower.data.stream.module import TripletData
from two_tower.errors import UserError
from two_tower.run import Run
from two_tower.validation import _evaluate as evaluate

SHORT = ["scheduler=none", "validation.bm25=false", "trainer.max_epochs=3"]
BASE = [*SHORT, "negatives=ann", "negatives.last_rank=20"]


def weights(run: Path) -> str:
    return digest(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])


def tables(run: Path) -> dict[str, list[list[int]]]:
    return {path.name: np.load(path).tolist() for path in sorted((run / "negatives").glob("*.npy"))}


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((run / "negatives").glob("*.json"))]


@pytest.fixture(scope="module")
def whole(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupts."""
    run = tmp_path_factory.mktemp("whole") / "run"
    fit(collection, run, *BASE)
    return run


def interrupted(run: Path, collection: Path, where: object, name: str, call: int, *overrides: str) -> None:
    """Fit until ``where.name`` was called for the n-th time."""
    original, calls = getattr(where, name), []

    def stop(*args: Any, **keys: Any) -> Any:  # noqa: ANN401
        result = original(*args, **keys)
        calls.append(0)
        if len(calls) == call:
            raise Killed
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, name, stop)
        with pytest.raises(Killed):
            fit(collection, run, *BASE, *overrides)


def mined_by(run: Path, checkpoint: str) -> tuple[Any, TripletData]:
    """A model as a checkpoint has it, and its data."""
    config = read(run / "config.yaml")
    model, _ = load_model(Run(run))
    state = torch.load(run / "checkpoints" / checkpoint, weights_only=True)["state_dict"]
    model.load_state_dict({k: v for k, v in state.items() if not k.startswith("loss.")})
    return model, make_data(config, run / "tokenizer.json")


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_the_search_finds_what_brute_force_does(
    similarity: str, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    fit(collection, run, "negatives=random", f"similarity={similarity}", "trainer.max_epochs=1")
    model, data = mined_by(run, "last.ckpt")
    monkeypatch.setattr(evaluate, "DOCUMENT_BLOCK", 100)  # three blocks
    found = search(model, data, 12)
    queries, documents = model.encode("queries", data.train.tokens), model.encode("documents", data.corpus.tokens)
    scores = model.similarity.scores(queries.double(), documents.double()).numpy()
    for q in range(len(scores)):
        order = np.lexsort((-data.corpus.order, -scores[q].round(6)))
        np.testing.assert_allclose(found.scores[q], scores[q][order[:12]], atol=1e-5)
        assert len(set(found.rows[q]) & set(order[:12])) >= 11  # two scores may differ in the seventh digit
    pairs = data.collection.pairs
    np.testing.assert_allclose(found.min_positive[pairs[0]], scores[pairs], atol=1e-5)


def test_there_is_a_table_of_each_epoch_that_is_asked_for(whole: Path) -> None:
    assert [record["step"] for record in records(whole)] == [STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH]
    assert list(tables(whole)) == ["epoch-0002.npy", "epoch-0003.npy"]
    second, third = tables(whole).values()
    assert second != third
    assert all(-1 <= row < 240 for line in second for row in line)


def test_a_table_is_what_its_weights_find(collection: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    interrupted(run, collection, mining, "_mine", 1)
    model, data = mined_by(run, "last.ckpt")  # of the end of epoch 1
    data.open()
    table, _ = data.negatives.choose(search(model, data, 20), data.collection)
    assert tables(run) == {"epoch-0002.npy": table.tolist()}
    assert records(run)[0]["weights"] == checksum(model)
    relevant = data.collection.positives.contains(np.arange(len(table))[:, None], np.maximum(table, 0))
    assert not (relevant & (table >= 0)).any()
    assert (table >= 0).mean() > 0.3


def test_batches_of_an_epoch_take_that_epochs_table(
    collection: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the first batch of an epoch; before the first table the documents are random."""
    seen: list[tuple[int, np.ndarray, np.ndarray]] = []
    original = Batches.assemble

    def note(self: Batches, *args: Any) -> Any:  # noqa: ANN401
        batch = original(self, *args)
        seen.append((self._order[0], batch.query_rows.numpy(), batch.document_rows.numpy()[len(batch) :]))
        return batch

    monkeypatch.setattr(Batches, "assemble", note)
    fit(collection, tmp_path / "run", *BASE)
    assert len(seen) == 3 * STEPS_PER_EPOCH
    second, third = (np.array(table) for table in tables(whole).values())

    def share(epoch: int, table: np.ndarray) -> float:
        """How many of an epoch's documents are in the table."""
        return float(np.mean([(table[rows] == extras[:, None]).any(1) for e, rows, extras in seen if e == epoch]))

    inside = {(e, name): share(e, t) for e in range(3) for name, t in (("second", second), ("third", third))}
    without = {"second": (second[:, 0] < 0).mean(), "third": (third[:, 0] < 0).mean()}
    assert inside[1, "second"] >= 1 - without["second"] - 0.05 > 0.5
    assert inside[2, "third"] >= 1 - without["third"] - 0.05 > 0.5
    assert inside[0, "second"] < 0.3
    assert inside[2, "second"] < inside[2, "third"]


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        (["negatives.first_epoch=1"], [0, 5, 10]),
        (["negatives.first_epoch=1", "negatives.every_n_epochs=2"], [0, 10]),
        (["negatives.every_n_epochs=2"], [5]),
        (["negatives.first_epoch=4"], []),
        (["negatives.first_epoch=1", "+trainer.limit_train_batches=3"], [0, 5]),  # the loader's epochs, 9 steps in all
    ],
)
def test_mining_happens_in_the_epochs_asked_for(
    overrides: list[str], steps: list[int], collection: Path, tmp_path: Path
) -> None:
    fit(collection, tmp_path / "run", *BASE, *overrides)
    assert [record["step"] for record in records(tmp_path / "run")] == steps


def test_other_strategies_mine_nothing(collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "search", lambda *_: pytest.fail("searched"))
    monkeypatch.setattr(mining, "checksum", lambda *_: pytest.fail("read all weights"))
    fit(collection, tmp_path / "run", "negatives=random", "trainer.max_epochs=1")
    assert not (tmp_path / "run" / "negatives").exists()


def test_a_mixture_mines_when_its_schedule_uses_the_model(
    collection: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "two_tower")
    fit(
        collection, tmp_path / "run", *SHORT, "negatives=mixed", "~negatives@negatives.bm25", "~negatives.weights.bm25",
        "+negatives@negatives.hard=ann", "+negatives.weights.hard=[0,0,1]",
    )  # fmt: skip
    folder = tmp_path / "run" / "negatives" / "hard"
    assert sorted(path.name for path in folder.iterdir()) == ["epoch-0003.json", "epoch-0003.npy"]
    assert "Negatives from the model after 10 steps: " in caplog.text


STOPS = [
    (mining, "search", 1),  # while mining
    (mining, "_record_path", 2),  # the table is written, its record is not
    (Mining, "on_train_epoch_start", 2),  # mined, not a step done
    (Mining, "on_train_epoch_start", 3),
    (LastCheckpoint, "on_train_batch_end", 7),  # in the second epoch, with a checkpoint after every step
    (LastCheckpoint, "on_train_batch_end", 13),
    (LastCheckpoint, "on_train_epoch_end", 2),
]


@pytest.mark.parametrize(("where", "name", "call"), STOPS)
@pytest.mark.parametrize("seconds", [0, 1000])
def test_a_stopped_run_continues_exactly(
    where: object, name: str, call: int, seconds: int, whole: Path, collection: Path, tmp_path: Path
) -> None:
    run, often = tmp_path / "run", f"callbacks.last.every_seconds={seconds}"
    interrupted(run, collection, where, name, call, often)
    fit(collection, run, *BASE, often)
    assert weights(run) == weights(whole)
    assert tables(run) == tables(whole)
    assert records(run) == records(whole)


def test_tables_are_shared_over_two_epochs_across_a_stop(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["negatives.first_epoch=1", "negatives.every_n_epochs=2"]
    fit(collection, tmp_path / "whole", *BASE, *settings)
    interrupted(tmp_path / "run", collection, LastCheckpoint, "on_train_epoch_end", 1, *settings)
    searched: list[int] = []
    original = mining.search
    monkeypatch.setattr(mining, "search", lambda *args: (searched.append(1), original(*args))[1])
    fit(collection, tmp_path / "run", *BASE, *settings)
    assert len(searched) == 1  # for the third epoch only
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["other", "half", "gone", "record"])
def test_another_table_than_the_checkpoints_is_noticed(damage: str, collection: Path, tmp_path: Path) -> None:
    run, often = tmp_path / "run", "callbacks.last.every_seconds=0"
    interrupted(run, collection, LastCheckpoint, "on_train_batch_end", 7, often)
    path = run / "negatives" / "epoch-0002.npy"
    if damage == "other":
        np.save(path, np.load(path)[:, ::-1])
    elif damage == "half":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "gone":
        path.unlink()
    else:
        path.with_suffix(".json").unlink()
    with pytest.raises(UserError, match=r"epoch-0002\.npy is not the table .* \(mined at step 5\): put that file and"):
        fit(collection, run, *BASE, often)


@pytest.mark.parametrize("content", [b"not a table", None])
def test_a_table_of_other_weights_is_replaced(
    content: bytes | None, whole: Path, collection: Path, tmp_path: Path
) -> None:
    """As a run leaves it that was killed before its first checkpoint, if the code has changed since."""
    run = tmp_path / "run"
    folder = run / "negatives"
    folder.mkdir(parents=True)
    for name in ("epoch-0002.npy", "epoch-0002.json"):
        (folder / name).write_bytes((whole / "negatives" / name.replace("2", "3")).read_bytes())
    if content:
        (folder / "epoch-0002.npy").write_bytes(content)
    fit(collection, run, *BASE)
    assert tables(run) == tables(whole)
    assert weights(run) == weights(whole)


def test_without_the_callback_the_remedy_is_named(collection: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"epoch-0002\.npy does not exist: negatives=ann needs the callback mining"):
        fit(collection, tmp_path / "run", *BASE, "~callbacks.mining")


def test_mining_is_no_training_time() -> None:
    names = [line.split(":")[0] for line in (CONF / "callbacks" / "default.yaml").read_text().splitlines()]
    assert names.index("mining") < names.index("speed")
