"""Kill -9 at random moments, the same command again until it is done: all files are those of an undisturbed one.

``make faults`` kills each scenario many times, ``make test`` some of them once. ``KILLS`` says how often, ``SEED``
when.
"""

import random
import shutil
import time
from pathlib import Path

import pytest
from forked import forked
from scenarios import KILLS, SCENARIOS, SEED, begin, contents, run, settings, skip_unless

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("name", SCENARIOS)
def test_it_ends_as_if_nothing_had_happened(
    name: str, data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    skip_unless(SCENARIOS[name].often)
    prepared, killed = tmp_path / "prepared", tmp_path / "killed"
    command, whole, seconds = begin(name, data, prepared, request)
    shutil.copytree(prepared, killed)
    moments = random.Random(f"{SEED}{name}")
    for _ in range(KILLS):
        with forked(*command, cwd=killed, **settings(killed)):  # and killed where it ends
            time.sleep(moments.uniform(0, seconds))
    assert (ended := run(killed, *command)).status == 0, ended.err
    assert contents(killed) == whole
