"""The model's own negatives: found exactly, in the epochs asked for, by the weights recorded, again after a stop."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from elsewhere import Elsewhere
from killing import Killed
from recorder import digest
from test_train import STEPS_PER_EPOCH, fit
from torch import Tensor
from training import state as state_of

from two_tower.assemble import make_data
from two_tower.callbacks import mining
from two_tower.callbacks.checkpoint import LastCheckpoint
from two_tower.callbacks.mining import checksum, search
from two_tower.config import read
from two_tower.config.saved import CONF
from two_tower.data.stream.batch import Batches
from two_tower.data.stream.module import TripletData
from two_tower.errors import UserError
from two_tower.loading import load_model
from two_tower.model import TwoTower
from two_tower.run import Run
from two_tower.similarity import Similarity
from two_tower.validation import _evaluate as evaluate

SHORT = ["scheduler=none", "validation.bm25=false", "trainer.max_epochs=3"]
BASE = [*SHORT, "negatives=ann", "negatives.last_rank=20"]


def weights(run: Path) -> str:
    return digest(state_of(run))


def tables(run: Path) -> dict[str, list[list[int]]]:
    return {path.name: np.load(path).tolist() for path in sorted((run / "negatives").glob("*.npy"))}


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((run / "negatives").glob("*.json"))]


class Watched(NamedTuple):
    path: Path
    models: list[dict[str, Tensor]]  # the weights of each search
    batches: list[tuple[int, np.ndarray, np.ndarray]]  # epoch, rows of the queries, (B,) of their extra documents


@pytest.fixture(scope="module")
def watched(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    run = Watched(tmp_path_factory.mktemp("whole") / "run", [], [])
    searched, assembled = search, Batches.assemble

    def note_model(model: TwoTower, *args: Any) -> Any:  # noqa: ANN401
        run.models.append({name: value.clone() for name, value in model.state_dict().items()})
        return searched(model, *args)

    def note_batch(self: Batches, *args: Any) -> Any:  # noqa: ANN401
        batch = assembled(self, *args)
        run.batches.append((self._order[0], batch.query_rows.numpy(), batch.document_rows.numpy()[len(batch) :]))
        return batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mining, "search", note_model)
        patch.setattr(Batches, "assemble", note_batch)
        fit(collection, run.path, *BASE)
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


@pytest.fixture(scope="module")
def data(watched: Watched) -> TripletData:
    data = make_data(read(watched.path / "config.yaml"), watched.path / "tokenizer.json")
    data.open()
    return data


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean"])
def test_search_equals_loops(name: str, watched: Watched, data: TripletData, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = load_model(Run(watched.path))
    model.similarity = Similarity(name)
    monkeypatch.setattr(evaluate, "DOCUMENT_BLOCK", 100)  # three blocks
    found = search(model, data, 12)
    elsewhere = search(model, data, 12, Elsewhere())
    for part in ("rows", "scores", "min_positive"):
        np.testing.assert_array_equal(getattr(elsewhere, part), getattr(found, part))
    queries, documents = model.encode("queries", data.train.tokens), model.encode("documents", data.corpus.tokens)
    scores = model.similarity.scores(queries.double(), documents.double()).numpy()
    for q in range(len(scores)):
        order = np.lexsort((-data.corpus.order, -scores[q].round(6)))
        np.testing.assert_allclose(found.scores[q], scores[q][order[:12]], atol=1e-5)
        assert len(set(found.rows[q]) & set(order[:12])) >= 11  # two scores may differ in the seventh digit
    pairs = data.collection.pairs
    np.testing.assert_allclose(found.min_positive[pairs[0]], scores[pairs], atol=1e-5)


def test_each_epoch_has_the_table_that_its_weights_find(watched: Watched, data: TripletData) -> None:
    assert [record["step"] for record in records(watched.path)] == [STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH]
    found, (model, _) = tables(watched.path), load_model(Run(watched.path))
    assert list(found) == ["epoch-0002.npy", "epoch-0003.npy"]
    for state, record, lines in zip(watched.models, records(watched.path), found.values(), strict=True):
        model.load_state_dict({name: value for name, value in state.items() if not name.startswith("loss.")})
        assert record["weights"] == checksum(model)
        table = data.negatives.choose(search(model, data, 20), data.collection)[0]
        assert table.tolist() == lines
        relevant = data.collection.positives.contains(np.arange(len(table))[:, None], np.maximum(table, 0))
        assert not (relevant & (table >= 0)).any()
        assert (table >= 0).mean() > 0.3
    assert len({json.dumps(lines) for lines in found.values()}) == 2


def test_batches_of_an_epoch_take_that_epochs_table(watched: Watched) -> None:
    """Also the first batch of an epoch; before the first table the documents are random."""
    assert len(watched.batches) == 3 * STEPS_PER_EPOCH
    second, third = (np.array(table) for table in tables(watched.path).values())

    def share(epoch: int, table: np.ndarray) -> float:
        inside = [(table[rows] == extras[:, None]).any(1) for e, rows, extras in watched.batches if e == epoch]
        return float(np.mean(inside))

    for epoch, table in ((1, second), (2, third)):
        assert share(epoch, table) >= 1 - (table[:, 0] < 0).mean() - 0.05 > 0.5
    assert share(0, second) < 0.3
    assert share(2, second) < share(2, third)


def test_epochs_are_those_of_the_loader(collection: Path, tmp_path: Path) -> None:
    """Of 9 steps in all, three a trainer's epoch and five one of the data."""
    fit(collection, tmp_path / "run", *BASE, "negatives.first_epoch=1", "+trainer.limit_train_batches=3")
    assert [record["step"] for record in records(tmp_path / "run")] == [0, 5]


def test_other_strategies_mine_nothing(collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "search", lambda *_: pytest.fail("searched"))
    monkeypatch.setattr(mining, "checksum", lambda *_: pytest.fail("read all weights"))
    fit(collection, tmp_path / "run", "negatives=random", "trainer.max_epochs=1")
    assert not (tmp_path / "run" / "negatives").exists()


def test_a_mixture_that_uses_it_mines(collection: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "two_tower")
    fit(
        collection, tmp_path / "run", *SHORT, "negatives=mixed", "~negatives@negatives.bm25", "~negatives.weights.bm25",
        "+negatives@negatives.hard=ann", "+negatives.weights.hard=[0,0,1]",
    )  # fmt: skip
    folder = tmp_path / "run" / "negatives" / "hard"
    assert sorted(path.name for path in folder.iterdir()) == ["epoch-0003.json", "epoch-0003.npy"]
    assert "Negatives from the model after 10 steps: " in caplog.text


EACH_STEP, EACH_EPOCH = ("callbacks.last.every_seconds=0", "callbacks.last.every_seconds=1000")  # checkpoints


@pytest.mark.parametrize(
    ("where", "name", "call", "often"),
    [
        (mining, "search", 1, EACH_EPOCH),  # while mining
        (mining, "_record_path", 2, EACH_STEP),  # the table is written, its record is not
        (LastCheckpoint, "on_train_batch_end", 7, EACH_STEP),  # in the second epoch
        (LastCheckpoint, "on_train_batch_end", 13, EACH_EPOCH),  # mined, and no checkpoint since
        (LastCheckpoint, "on_train_epoch_end", 2, EACH_STEP),
    ],
)
def test_a_stopped_run_continues(
    where: object, name: str, call: int, often: str, watched: Watched, collection: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    interrupted(run, collection, where, name, call, often)
    fit(collection, run, *BASE, often)
    assert weights(run) == weights(watched.path)
    assert tables(run) == tables(watched.path)
    assert records(run) == records(watched.path)


def test_epochs_share_a_table_across_a_stop(collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ["negatives.first_epoch=1", "negatives.every_n_epochs=2"]
    fit(collection, tmp_path / "whole", *BASE, *settings)
    assert [record["step"] for record in records(tmp_path / "whole")] == [0, 2 * STEPS_PER_EPOCH]
    interrupted(tmp_path / "run", collection, LastCheckpoint, "on_train_epoch_end", 1, *settings)
    searched: list[int] = []
    monkeypatch.setattr(mining, "search", lambda *args: (searched.append(1), search(*args))[1])
    fit(collection, tmp_path / "run", *BASE, *settings)
    assert len(searched) == 1  # for the third epoch only
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


@pytest.fixture(scope="module")
def stopped(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed in its second epoch, with a checkpoint that knows the epoch's table."""
    run = tmp_path_factory.mktemp("stopped") / "run"
    interrupted(run, collection, LastCheckpoint, "on_train_batch_end", 7, EACH_STEP)
    return run


@pytest.mark.parametrize("damage", ["half", "gone", "record"])
def test_another_table_than_the_saved_is_noticed(damage: str, stopped: Path, collection: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(stopped, tmp_path / "run"))
    path = run / "negatives" / "epoch-0002.npy"
    if damage == "half":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.with_suffix(".npy" if damage == "gone" else ".json").unlink()
    with pytest.raises(UserError, match=r"epoch-0002\.npy is not the table .* \(mined at step 5\): put that file and"):
        fit(collection, run, *BASE, EACH_STEP)


@pytest.mark.parametrize("content", [b"not a table", None])
def test_a_foreign_table_is_replaced(content: bytes | None, watched: Watched, collection: Path, tmp_path: Path) -> None:
    """As a run leaves it that was killed before its first checkpoint, if the code has changed since."""
    folder = tmp_path / "run" / "negatives"
    folder.mkdir(parents=True)
    for name in ("epoch-0002.npy", "epoch-0002.json"):
        (folder / name).write_bytes((watched.path / "negatives" / name.replace("2", "3")).read_bytes())
    if content:
        (folder / "epoch-0002.npy").write_bytes(content)
    fit(collection, tmp_path / "run", *BASE, "trainer.max_epochs=2")
    assert tables(tmp_path / "run")["epoch-0002.npy"] == tables(watched.path)["epoch-0002.npy"]
    assert records(tmp_path / "run")[0] == records(watched.path)[0]


def test_without_the_callback_the_remedy_is_named(collection: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"epoch-0002\.npy does not exist: negatives=ann needs the callback mining"):
        fit(collection, tmp_path / "run", *BASE, "~callbacks.mining")


def test_mining_is_no_training_time() -> None:
    names = [line.split(":")[0] for line in (CONF / "callbacks" / "default.yaml").read_text().splitlines()]
    assert names.index("mining") < names.index("speed")
