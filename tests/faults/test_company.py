"""Two of the same command at once, and a clock that goes back: the end is that of one command, undisturbed.

``make faults`` tries every scenario several times, ``make test`` one of them once.
"""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from forked import forked
from scenarios import KILLS, SCENARIOS, SEED, begin, contents, run, settings, skip_unless

pytestmark = pytest.mark.timeout(600)
DAY = 86_400


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_second_of_two_waits_refuses_or_finds_it_done(
    name: str, data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    skip_unless(name == "embedded")
    prepared, both = tmp_path / "prepared", tmp_path / "both"
    command, whole, seconds = begin(name, data, prepared, request)
    moments = random.Random(f"{SEED}{name}")
    for _ in range(KILLS):
        shutil.copytree(prepared, both)
        with forked(*command, cwd=both, **settings(both)) as one:
            time.sleep(moments.uniform(0, seconds / 2))
            with forked(*command, cwd=both, **settings(both)) as two:
                for each in (one.ended(), two.ended()):
                    assert each.status in (0, 2) or name == "sweep", each
                    assert "Traceback" not in each.err, each.err
        assert (ended := run(both, *command)).status == 0, ended.err
        assert contents(both) == whole
        shutil.rmtree(both)


@pytest.mark.parametrize("name", SCENARIOS)
def test_stopped_and_continued_the_day_before(
    name: str, data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Half of the work is done when the clock is set back by a day: all of its files are of tomorrow."""
    skip_unless(name == "changed")
    prepared, stopped = tmp_path / "prepared", tmp_path / "stopped"
    command, whole, seconds = begin(name, data, prepared, request)
    shutil.copytree(prepared, stopped)
    with forked(*command, cwd=stopped, **settings(stopped)) as part:
        time.sleep(random.Random(f"{SEED}{name}").uniform(0, seconds))
        part.send(signal.SIGTERM)
        assert "Traceback" not in part.ended().err
    tomorrow = time.time() + DAY
    for path in stopped.rglob("*"):
        os.utime(path, (tomorrow, tomorrow))
    assert (ended := run(stopped, *command)).status == 0, ended.err
    assert contents(stopped) == whole
