"""Commands that are killed, whose disk fills up; and what they must have written in the end."""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import xxhash
from forked import Ended, run_forked
from killing import untimed
from training import state

# ``make faults`` sets both: how often each is killed, and when.
FAULTS, SEED = "KILLS" in os.environ, os.environ.get("SEED", "0")
KILLS = int(os.environ.get("KILLS", 1))

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


def skip_unless(often: bool) -> None:
    """In ``make test``, skip what takes long."""
    if not (often or FAULTS):
        pytest.skip("only in  make faults")


def prepare(name: str, data: Path, folder: Path, request: pytest.FixtureRequest) -> list[str]:
    """Do in a folder what comes before a scenario's command, which is returned."""
    scenario = SCENARIOS[name]
    commands = [*scenario.before, scenario.command]
    if any(TEACHER[0] in command for command in commands):
        model = f"teacher.model={request.getfixturevalue('teacher_folder')}"
        commands = [[*command, model] if TEACHER[0] in command else command for command in commands]
    shutil.copytree(data, folder, dirs_exist_ok=True)
    for command in commands[:-1]:
        ended = run(folder, *command)
        assert ended.status == 0, ended.err
    return commands[-1]


class Begun(NamedTuple):
    """A command, what it has written undisturbed, and how long it took."""

    command: list[str]
    whole: dict[str, Any]
    seconds: float


def begin(name: str, data: Path, prepared: Path, request: pytest.FixtureRequest) -> Begun:
    """Make the folder in which a scenario's command can begin, and see what that does to a copy of it."""
    command, whole = prepare(name, data, prepared, request), prepared.with_name("whole")
    shutil.copytree(prepared, whole)
    start = time.monotonic()
    assert (ended := run(whole, *command)).status == 0, ended.err
    return Begun(command, contents(whole), time.monotonic() - start)


def settings(folder: Path) -> Mapping[str, str]:
    return {"TWO_TOWER_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


def run(folder: Path, *command: str) -> Ended:
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
    "results.json": lambda path: {**untimed(json.loads(path.read_text())), "doctor/findings": "some are of time"},
    "run.trec": _hash,
    "per_query.csv": _hash,
    "tokenizer.json": _hash,
    ".npy": _hash,
    ".arrow": _hash,
    "manifest.json": _manifest,
    ".faiss": _hash,
}
