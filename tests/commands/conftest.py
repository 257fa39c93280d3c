"""Commands inside the test's process: as a process of its own would end, without the seconds that one costs."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from two_tower import cli, embed, train

PROGRAMS: dict[str, Callable[[], None]] = {"train.py": train.main, "embed.py": embed.main, "two-tower": cli.main}


class Ended(NamedTuple):
    """What a command left: exit status and the two streams."""

    status: int
    out: str
    err: str


Call = Callable[..., Ended]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """``call(program, *arguments, cwd=…, stdin=…)``; by default from an empty folder."""

    def run(program: str, *arguments: str | Path, cwd: Path = tmp_path, stdin: str = "") -> Ended:
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        monkeypatch.setenv("HYDRA_FULL_ERROR", "")  # put back afterwards
        monkeypatch.chdir(cwd)
        capfd.readouterr()
        status: object = 0
        try:
            PROGRAMS[program]()
        except SystemExit as error:
            status = error.code
        assert isinstance(status, int)
        return Ended(status, *capfd.readouterr())

    return run
