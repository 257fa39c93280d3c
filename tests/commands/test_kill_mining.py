"""Kill -9 while negatives are mined and after it, same command again: the same tables and the same model.

As in `test_kill`, every run is a chain of real processes: with 2 workers, and with two ranks.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from commands.test_kill import BATCH, BATCHES, EPOCHS, Finished, start
from recorder import digest

pytestmark = pytest.mark.timeout(600)  # the first test waits for all runs, on a busy machine for minutes

TWO_RANKS = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", f"data.batch_size={BATCH // 2}"]
ONE = ["trainer=cpu", f"data.batch_size={BATCH}"]
# Killed in the mining before epoch 2; then after 9 steps, in the middle of that epoch; then let be.
KILLED = ["+callbacks.killer._target_=mining_killer.MiningKiller", "+callbacks.killer.folder={path}"]
MODES = {
    "two_ranks": [*TWO_RANKS, *KILLED],  # the slowest first
    "two_workers": [*ONE, *KILLED, "data.num_workers=2"],
    "whole": ONE,
}
Runs = dict[str, Future[Finished]]


def run_to_the_end(overrides: list[str], collection: Path, path: Path) -> Finished:
    """Start the same command again and again."""
    killed = len(overrides) > len(ONE)
    command = [
        "data=beir", f"data.path={collection}", "tower.dim=8", f"trainer.max_epochs={EPOCHS}",
        "callbacks.last.every_seconds=1", "validation.bm25=false", f"run_dir={path}",
        # No query's loss depends on the others, so 2 x 12 learn what 24 do.
        "loss=triplet", "negatives=mixed", "~negatives@negatives.bm25", "~negatives.weights.bm25",
        "+negatives@negatives.ann=ann", "negatives.count=2",
        "+callbacks.recorder._target_=recorder.Recorder", f"+callbacks.recorder.folder={path}",
        f"+callbacks.recorder.interruptions=[{'9:SIGKILL' if killed else ''}]",
        *(part.format(path=path) for part in overrides),
    ]  # fmt: skip
    return Finished(path, [start(command) for _ in range(3 if killed else 1)])


@pytest.fixture(scope="module")
def mined(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """All runs, two at a time."""
    folder = tmp_path_factory.mktemp("mined")
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(run_to_the_end, mode, collection, folder / name) for name, mode in MODES.items()}
        pool.shutdown(cancel_futures=True)


def tables(run: Path) -> dict[str, list[list[int]]]:
    return {path.name: np.load(path).tolist() for path in sorted((run / "negatives" / "ann").glob("*.npy"))}


@pytest.mark.parametrize("name", ["two_workers", "two_ranks"])
def test_a_run_killed_in_mining_goes_on(name: str, mined: Runs) -> None:
    run = mined[name].result()
    assert [p.status for p in run.processes] == [-signal.SIGKILL, -signal.SIGKILL, 0], run.processes
    steps = [step for step, _ in run.steps(rank=0)]
    assert steps[:BATCHES] == list(range(BATCHES))
    assert steps[BATCHES] == BATCHES  # nothing of the second epoch before it was mined for
    assert (run.path / "killed").exists()
    assert not list((run.path / "negatives").rglob("*.tmp"))


def test_it_mines_and_learns_the_same_bits(mined: Runs) -> None:
    run, whole = mined["two_workers"].result(), mined["whole"].result()
    assert list(tables(whole.path)) == ["epoch-0002.npy", "epoch-0003.npy"]
    assert tables(run.path) == tables(whole.path)
    assert digest(run.weights()) == digest(whole.weights())


def test_two_ranks_draw_the_documents_that_one_process_does(mined: Runs) -> None:
    """Weights equal but for the order of sums, over epochs with random and with mined documents."""
    run, whole = mined["two_ranks"].result(), mined["whole"].result()
    assert {(run.path / f"{rank}.weights").read_text() for rank in range(2)} == {digest(run.weights())}
    for name, weights in run.weights().items():
        torch.testing.assert_close(weights, whole.weights()[name], rtol=0, atol=1e-5)


def test_the_record_says_which_step_was_mined_from(mined: Runs) -> None:
    for name in MODES:
        folder = mined[name].result().path / "negatives" / "ann"
        records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
        assert [(record["file"], record["step"]) for record in records] == [
            ("epoch-0002.npy", BATCHES),
            ("epoch-0003.npy", 2 * BATCHES),
        ]
