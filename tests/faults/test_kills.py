"""Kill -9 at random moments, the same command again until it is done: all files are those of an undisturbed one.

``make faults`` kills each scenario many times, ``make test`` some of them once. ``KILLS`` says how often, ``SEED``
when.
"""

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import xxhash
from conftest import write_collection
from forked import forked, run_forked
from killing import untimed
from training import state

KILLS, SEED = int(os.environ.get("KILLS", 1)), os.environ.get("SEED", "0")
pytestmark = pytest.mark.timeout(600)

TEACHER = ["teacher=sentence_transformer", "embedding=transformer", "loss=distillation", "data.examples=passages"]
TRAIN = [
    "train.py", "data=beir", "data.path=data", "tower.dim=8", "trainer=cpu", "trainer.max_epochs=3", "run_dir=run",
    "data.batch_size=100", "callbacks.last.every_seconds=0.1",
]  # fmt: skip
OWN = ["embed.py", "run=run", "shard_rows=50"]
UPDATE = ["two-tower", "update", "run", "new", "data=beir", "data.path=changed"]
EMBED = [*OWN, "output=index", "data=beir"]


class Scenario(NamedTuple):
    """A command that is killed, after others that are not."""

    command: list[str]
    before: Sequence[list[str]] = ()
    often: bool = True  # also in ``make test``


SCENARIOS = {
    "average": Scenario(TRAIN),
    "gru": Scenario([*TRAIN, "tower=gru"], often=False),
    "middle_of_a_check": Scenario([*TRAIN, "validation.every_n_steps=1", "trainer.max_epochs=1"], often=False),
    "mined": Scenario([*TRAIN, "negatives=ann"], often=False),
    "given": Scenario([*TRAIN, "negatives=given"], often=False),
    "random": Scenario([*TRAIN, "negatives=random", "data.num_workers=1"], often=False),
    "distilled": Scenario([*TRAIN, *TEACHER], often=False),
    "embedded": Scenario(OWN, [TRAIN]),
    "int8": Scenario([*OWN, "dtype=int8"], [TRAIN], often=False),
    "indexed": Scenario([*OWN, "index=ivf"], [TRAIN, OWN], often=False),
    "changed": Scenario([*EMBED, "data.path=changed"], [TRAIN, [*EMBED, "data.path=data"]]),
    "updated": Scenario(UPDATE, [TRAIN], often=False),
    "updated_by_a_teacher": Scenario(UPDATE, [[*TRAIN, *TEACHER]], often=False),
    "sweep": Scenario([*TRAIN[:-3], "hydra.sweep.dir=run", "-m", "seed=0,1"], often=False),
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_collection(folder / "data", documents=1200)
    assert run(folder, "two-tower", "cache").status == 0  # the first command starts the server of them all
    shutil.copytree(folder / "data", folder / "changed")
    rows = (folder / "data" / "corpus.jsonl").read_text().splitlines()
    (folder / "changed" / "corpus.jsonl").write_text("\n".join([*rows[5:900], *rows[901:], rows[0]]) + "\n")
    return folder


@pytest.mark.parametrize("name", SCENARIOS)
def test_it_ends_as_if_nothing_had_happened(name: str, data: Path, tmp_path: Path, request: Any) -> None:  # noqa: ANN401
    scenario = SCENARIOS[name]
    if not (scenario.often or "KILLS" in os.environ):
        pytest.skip("only in  make faults")
    commands = [*scenario.before, scenario.command]
    if any(TEACHER[0] in command for command in commands):
        model = f"teacher.model={request.getfixturevalue('teacher_folder')}"
        commands = [[*command, model] if TEACHER[0] in command else command for command in commands]
    prepared = tmp_path / "prepared"
    shutil.copytree(data, prepared)
    for command in commands[:-1]:
        assert (ended := run(prepared, *command)).status == 0, ended.err
    command = commands[-1]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    shutil.copytree(prepared, whole)
    shutil.copytree(prepared, killed)
    start = time.monotonic()
    assert (ended := run(whole, *command)).status == 0, ended.err
    seconds, moments = time.monotonic() - start, random.Random(f"{SEED}{name}")
    for _ in range(KILLS):
        with forked(*command, cwd=killed, **settings(killed)):  # and killed where it ends
            time.sleep(moments.uniform(0, seconds))
    assert (ended := run(killed, *command)).status == 0, ended.err
    assert contents(killed) == contents(whole)


def settings(folder: Path) -> Mapping[str, str]:
    return {"TWO_TOWER_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


def run(folder: Path, *command: str) -> Any:  # noqa: ANN401
    return run_forked(*command, cwd=folder, **settings(folder))


def contents(folder: Path) -> dict[str, Any]:
    """What must not depend on interruptions, by file: numbers as numbers, without those of time."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        read = next((read for ending, read in READ.items() if name.endswith(ending)), None)
        if path.is_file() and read is not None:
            found[name] = read(path)
    return found


def _weights(path: Path) -> dict[str, list[float]]:
    return {
        key: value.tolist() for key, value in state(path.parent.parent, path.stem).items() if torch.is_tensor(value)
    }


def _hash(path: Path) -> str:
    return xxhash.xxh3_64(path.read_bytes()).hexdigest()


def _manifest(path: Path) -> dict[str, Any]:
    return {**json.loads(path.read_text()), "checkpoint": "a file with times in it"}


READ: dict[str, Callable[[Path], Any]] = {
    "best.ckpt": _weights,
    "last.ckpt": _weights,
    "results.json": lambda path: untimed(json.loads(path.read_text())),
    "run.trec": _hash,
    "per_query.csv": _hash,
    "tokenizer.json": _hash,
    ".npy": _hash,
    ".arrow": _hash,
    "manifest.json": _manifest,
    ".faiss": _hash,
}
