"""Kill -9 at random moments, the same command again until it is done: all files are those of an undisturbed one.

``make faults`` kills each scenario many times, ``make test`` some of them once. ``KILLS`` says how often, ``SEED``
when.
"""

import os
import random
import shutil
import time
from pathlib import Path

import pytest
from forked import forked
from scenarios import SCENARIOS, contents, prepare, run, settings

KILLS, SEED = int(os.environ.get("KILLS", 1)), os.environ.get("SEED", "0")
pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("name", SCENARIOS)
def test_it_ends_as_if_nothing_had_happened(
    name: str, data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if not (SCENARIOS[name].often or "KILLS" in os.environ):
        pytest.skip("only in  make faults")
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
