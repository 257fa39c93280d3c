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
from scenarios import KILLS, SCENARIOS, SEED, contents, prepare, run, settings, skip_unless

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("name", SCENARIOS)
def test_it_ends_as_if_nothing_had_happened(
    name: str, data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    skip_unless(SCENARIOS[name].often)
    prepared, whole, killed = (tmp_path / name for name in ("prepared", "whole", "killed"))
    command = prepare(name, data, prepared, request)
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
