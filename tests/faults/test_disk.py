"""A disk that is full: one sentence, nothing corrupt, and the same command ends as usual once there is space again.

``make faults`` fills it in every scenario at several moments, ``make test`` in one of them once.
"""

import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scenarios import KILLS, SCENARIOS, SEED, contents, prepare, run, skip_unless

MOMENTS = min(3, KILLS)
ROOM = 1 << 30
pytestmark = pytest.mark.timeout(600)


def _mount(folder: Path, options: str) -> None:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no disk of a certain size here: {done.stderr.strip()}")


@contextmanager
def disk(folder: Path) -> Iterator[Path]:
    """A folder on a disk of its own."""
    _mount(folder, f"size={ROOM}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def leave(folder: Path, room: int) -> None:
    """Let a disk have so many bytes left."""
    _mount(folder, f"remount,size={shutil.disk_usage(folder).used + room}")


def differing(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Where two documents differ, and how."""
    pairs = {key: (found.get(key), wanted.get(key)) for key in {*found, *wanted}}
    return {
        key: differing(*pair) if all(isinstance(each, dict) for each in pair) else pair
        for key, pair in pairs.items()
        if pair[0] != pair[1]
    }


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_full_disk_is_named_and_nothing_is_lost(
    name: str, data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    skip_unless(name == "average")
    prepared = tmp_path / "prepared"
    command = prepare(name, data, prepared, request)
    with disk(tmp_path / "disk") as folder:
        shutil.copytree(prepared, folder, dirs_exist_ok=True)
        before = shutil.disk_usage(folder).used
        ended = run(folder, *command)
        assert ended.status == 0, ended.err
        whole, needed = contents(folder), shutil.disk_usage(folder).used - before
    moments = random.Random(f"{SEED}{name}")
    for room in sorted(int(needed * moments.random()) for _ in range(MOMENTS)):
        with disk(tmp_path / "disk") as folder:
            shutil.copytree(prepared, folder, dirs_exist_ok=True)
            leave(folder, room)
            ended = run(folder, *command)
            assert "Traceback" not in ended.err, ended.err
            if ended.status:  # some of what is written in between takes less space in the end
                assert ended.status == 2 or name == "sweep", ended  # that of jobs that have failed is 1
                assert "No space left on device" in ended.err.splitlines()[-1], ended.err
            leave(folder, ROOM)
            ended = run(folder, *command)
            assert ended.status == 0, ended.err
            assert differing(contents(folder), whole) == {}
