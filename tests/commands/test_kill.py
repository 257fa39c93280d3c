"""Kill -9 in the middle of an epoch or of mining, same command again: the same batches, tables and model.

Every run is a chain of real processes that share nothing but the command and the run folder: with workers
that load data, and with two or three ranks that speak gloo; test_train.py continues runs without either.
`recorder.Recorder` writes the batches down and kills. Negatives are drawn at random and mined; batches, memory and
gradient cache are shared between the ranks, so 12 and 13, or 8, 8 and 9, learn what 25 do.
"""

import csv
import json
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from conftest import ROOT
from forked import Ended, run_forked
from killing import untimed
from recorder import LAST, MINING, digest
from training import state

from two_tower.data.stream.batch import BlockShuffle

pytestmark = pytest.mark.timeout(600)  # the first test waits for all runs, on a busy machine for minutes

EPOCHS, BATCHES, BATCH = 3, 6, 25
STEPS = EPOCHS * BATCHES
# The training queries of the generated collection; 10 of the 160 are left out of every epoch.
QUERIES = [f"q{number}" for number in range(240) if number % 6 > 1]


class Part(NamedTuple):
    """What one process of a run does: the steps ``first`` to ``end`` (exclusive), and how it ends."""

    first: int
    end: int
    signal: str | None = None


class Mode(NamedTuple):
    """One way to do the same training: overrides of the configuration, number of ranks, what interrupts it."""

    overrides: list[str]
    ranks: int
    parts: list[Part]


# A checkpoint is due after 3 steps and at the end of an epoch, so what was done since the last one is repeated.
# Negatives are mined before the second epoch. SIGINT and SIGTERM write a checkpoint first.
KILLED_AND_INTERRUPTED = [Part(0, 5, "SIGKILL"), Part(3, 6, MINING), Part(6, 8, "SIGINT"), Part(8, STEPS)]
# One rank alone gets the SIGTERM: it stops both after the same step.
KILLED_AND_STOPPED = [Part(0, 5, "SIGKILL"), Part(3, 6, MINING), Part(6, 8, "SIGTERM"), Part(8, STEPS)]
SETTINGS = {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT}/tests"}  # the path is for a rank that imports anew
RANKS = ["trainer=ddp", "trainer.accelerator=cpu"]
TWO_RANKS = [*RANKS, "trainer.devices=2"]
MODES = {
    "two_ranks": Mode(TWO_RANKS, 2, KILLED_AND_STOPPED),  # the slowest first
    "torchrun": Mode(RANKS, 3, [Part(0, 5, LAST), Part(3, STEPS)]),
    "two_workers": Mode(["data.num_workers=2"], 1, KILLED_AND_INTERRUPTED),
    "whole": Mode([], 1, [Part(0, STEPS)]),
}


class Finished(NamedTuple):
    """A run that was started until it was complete."""

    path: Path
    processes: list[Ended]

    def steps(self, rank: int) -> list[tuple[int, list[str]]]:
        """What a rank trained on, repetitions included: steps and the ids of their queries."""
        lines = [json.loads(line) for line in (self.path / f"{rank}.jsonl").read_text().splitlines()]
        return [(line["step"], line["queries"]) for line in lines]

    def weights(self, which: str = "last") -> dict[str, torch.Tensor]:
        """The model at the end, or at the best check."""
        return state(self.path, which)

    def history(self) -> list[dict[str, float]]:
        """Every logged step and its figures, of training and of the checks, without those of time."""
        with (self.path / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        return [{k: float(v) for k, v in row.items() if v and k != "train/triplets_per_second"} for row in rows]

    def results(self) -> dict[str, Any]:
        """The figures at the end, without those of time."""
        return untimed(json.loads((self.path / "results.json").read_text()))

    def mined(self) -> Path:
        """The folder of the tables of mined negatives."""
        return self.path / "negatives" / "ann"


def run_to_the_end(mode: Mode, collection: Path, path: Path) -> Finished:
    """Start the same command again and again."""
    interruptions = ",".join(f"'{part.end}:{part.signal}'" for part in mode.parts if part.signal)
    command = [
        "data=beir", f"data.path={collection}", f"data.global_batch_size={BATCH}", "tower.dim=8", "trainer=cpu",
        f"trainer.max_epochs={EPOCHS}", "callbacks.last.every_seconds=3", "validation.bm25=false", f"run_dir={path}",
        "validation.every_n_steps=2", "trainer.log_every_n_steps=1",
        "negatives=mixed", "~negatives@negatives.bm25", "~negatives.weights.bm25", "+negatives@negatives.ann=ann",
        "negatives.count=2", "cross_device=true", "cross_batch_memory=100", "cross_batch_start=1", "encode_chunk=10",
        "+callbacks.recorder._target_=recorder.Recorder", f"+callbacks.recorder.folder={path}",
        f"+callbacks.recorder.interruptions=[{interruptions}]", *mode.overrides,
    ]  # fmt: skip
    if mode.parts[0].signal == LAST:  # torchrun starts its ranks again by itself
        return Finished(path, [run_forked("train.py", *command, cwd=ROOT, TORCHRUN=str(mode.ranks), **SETTINGS)])
    ranks = ["forked" if mode.ranks > 1 and part.first else "anew" for part in mode.parts]  # to import takes longest
    return Finished(path, [run_forked("train.py", *command, cwd=ROOT, SECOND_RANK=r, **SETTINGS) for r in ranks])


@pytest.fixture(scope="module")
def runs(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Finished]]]:
    """All runs, two at a time: a process takes seconds to start."""
    folder = tmp_path_factory.mktemp("runs")
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(run_to_the_end, mode, collection, folder / name) for name, mode in MODES.items()}
        pool.shutdown(cancel_futures=True)


Runs = dict[str, Future[Finished]]


def test_an_epoch_is_the_planned_order_without_loss_or_doubling(runs: Runs) -> None:
    steps = runs["whole"].result().steps(rank=0)
    assert [step for step, _ in steps] == list(range(STEPS))
    for epoch in range(EPOCHS):
        seen = [query for _, batch in steps[epoch * BATCHES : (epoch + 1) * BATCHES] for query in batch]
        assert len(set(seen)) == len(seen) == BATCHES * BATCH
        assert seen == [QUERIES[row] for row in BlockShuffle(len(QUERIES), 0, epoch).take(0, BATCHES * BATCH)]


@pytest.mark.parametrize("name", ["two_workers", "two_ranks", "torchrun"])
def test_a_killed_run_trains_on_the_same_batches(name: str, runs: Runs) -> None:
    mode, run = MODES[name], runs[name].result()
    statuses = {"SIGKILL": -signal.SIGKILL, MINING: -signal.SIGKILL, "SIGINT": 1, "SIGTERM": 1, None: 0}
    ends = [statuses[part.signal] for part in mode.parts if part.signal != LAST]
    assert [p.status for p in run.processes] == ends, run.processes
    whole = dict(runs["whole"].result().steps(rank=0))
    bounds = [rank * BATCH // mode.ranks for rank in range(mode.ranks + 1)]
    for rank in range(mode.ranks):
        steps = run.steps(rank)
        assert [step for step, _ in steps] == [step for part in mode.parts for step in range(part.first, part.end)]
        for step, queries in steps:
            assert queries == whole[step][bounds[rank] : bounds[rank + 1]]


def test_a_killed_run_learns_the_same_bits(runs: Runs) -> None:
    run, whole = runs["two_workers"].result(), runs["whole"].result()
    for which in ("last", "best"):
        assert digest(run.weights(which)) == digest(whole.weights(which))


def test_a_run_is_checked_within_its_epochs(runs: Runs) -> None:
    whole = runs["whole"].result()
    checks = [row["step"] + 1 for row in whole.history() if "val/mrr@10" in row]
    assert checks == list(range(2, STEPS + 1, 2))  # once where a multiple of 2 is also the end of an epoch
    assert whole.results()["best_step"] in checks


@pytest.mark.parametrize("name", ["two_workers", "two_ranks", "torchrun"])
def test_a_killed_run_has_the_same_history(name: str, runs: Runs) -> None:
    run, whole = runs[name].result(), runs["whole"].result()
    found, expected = run.history(), whole.history()
    if MODES[name].ranks > 1:  # whose sums have another order
        for row, same in zip(found, expected, strict=True):
            assert row.keys() == same.keys()
            assert row.get("train/loss") == pytest.approx(same.get("train/loss"), rel=1e-4)
    else:
        assert found == expected
        assert run.results() == whole.results()


def test_a_killed_run_mines_the_same(runs: Runs) -> None:
    run, whole = runs["two_workers"].result(), runs["whole"].result()
    tables = [{f.name: np.load(f).tolist() for f in sorted(each.mined().glob("*.npy"))} for each in (run, whole)]
    assert tables[0] == tables[1]
    assert list(tables[0]) == ["epoch-0002.npy", "epoch-0003.npy"]


@pytest.mark.parametrize("name", MODES)
def test_the_record_says_which_step_was_mined_from(name: str, runs: Runs) -> None:
    run = runs[name].result()
    records = [json.loads(path.read_text()) for path in sorted(run.mined().glob("*.json"))]
    steps = [(record["file"], record["step"]) for record in records]
    assert steps == [("epoch-0002.npy", BATCHES), ("epoch-0003.npy", 2 * BATCHES)]
    assert not list((run.path / "negatives").rglob("*.tmp"))
    assert (run.path / "killed-in-mining").exists() == any(part.signal == MINING for part in MODES[name].parts)


@pytest.mark.parametrize("name", ["two_ranks", "torchrun"])
def test_ranks_with_unequal_shares_learn_what_one_process_does(name: str, runs: Runs) -> None:
    run, ranks = runs[name].result(), MODES[name].ranks
    assert {(run.path / f"{rank}.weights").read_text() for rank in range(ranks)} == {digest(run.weights())}
    whole = runs["whole"].result().weights()
    for name, weights in run.weights().items():
        torch.testing.assert_close(weights, whole[name], rtol=0, atol=1e-5)  # sums in another order


def test_two_ranks_speak_with_one_voice(runs: Runs) -> None:
    run = runs["two_ranks"].result()
    stopped, finished = run.processes[2:]
    for interrupted in (stopped, runs["two_workers"].result().processes[2]):
        assert interrupted.err == "Interrupted at step 8: the same command continues.\n"
    assert finished.err == ""
    lines = [line for line in finished.out.splitlines() if line]
    assert len(lines) == len(set(lines))
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["command"][-1] == TWO_RANKS[-1]
