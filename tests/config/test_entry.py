"""How a command ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from omegaconf import DictConfig

from two_tower.config import entry
from two_tower.config.entry import run_hydra
from two_tower.errors import UserError


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")


def raising(error: BaseException) -> Callable[[DictConfig], NoReturn]:
    def task(composed: DictConfig) -> NoReturn:
        raise error

    return task


def test_the_task_gets_what_the_command_line_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "tower=gru", "seed=7"])
    seen: list[DictConfig] = []
    run_hydra(seen.append, "train")
    assert [(c.seed, c.tower.cell) for c in seen] == [(7, "gru")]


def test_a_sweep_calls_the_task_for_each_combination(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "seed=1,2", "tower=average,gru"])
    seen: list[DictConfig] = []
    run_hydra(seen.append, "train")
    assert sorted((c.seed, "cell" in c.tower) for c in seen) == [(1, False), (1, True), (2, False), (2, True)]


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (UserError("It is\nwrong"), 2, "It is wrong.\n"),
        (UserError("Is it?"), 2, "Is it?\n"),
        (PermissionError(13, "Permission denied", "there"), 2, "there cannot be used: Permission denied.\n"),
        (KeyboardInterrupt(), 1, "Interrupted: the same command continues.\n"),
        (KeyboardInterrupt("at step 3"), 1, "Interrupted at step 3: the same command continues.\n"),
    ],
)
def test_one_sentence_and_a_status(
    error: BaseException, status: int, sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_hydra(raising(error), "train")
    assert ended.value.code == status
    assert capfd.readouterr() == ("", sentence)


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("a bug"), FileNotFoundError(2, "a bug")])
def test_a_bug_keeps_its_traceback(error: Exception, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(type(error)) as raised:
        run_hydra(raising(error), "train")
    assert raised.value is error
    assert capfd.readouterr() == ("", "")


def test_an_interpolation_that_fails_in_the_task_is_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "seed=${nothing}"])
    with pytest.raises(SystemExit) as ended:
        run_hydra(lambda composed: composed.seed, "train")
    assert ended.value.code == 2
    assert capfd.readouterr().err == "seed cannot be used: Interpolation key 'nothing' not found.\n"


def test_ctrl_c_that_a_library_turns_into_another_error(capfd: pytest.CaptureFixture[str]) -> None:
    def task(composed: DictConfig) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("half imported") from None

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as ended:
        run_hydra(task, "train")
    assert ended.value.code == 1
    assert capfd.readouterr().err == "Interrupted: the same command continues.\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_hydras_own_options_still_work(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--cfg", "job", "seed=7"])
    run_hydra(raising(AssertionError("not called")), "train")
    assert "seed: 7" in capfd.readouterr().out


def test_a_package_without_its_configurations_says_so(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(entry, "CONF", tmp_path / "conf")
    with pytest.raises(SystemExit) as ended:
        run_hydra(raising(AssertionError("not called")), "train")
    assert ended.value.code == 2
    assert "install from a clone" in capfd.readouterr().err


def test_a_reader_that_has_seen_enough_ends_the_command_quietly() -> None:
    code = "from two_tower.errors import exit_statuses\nwith exit_statuses():\n for _ in range(10**5): print('x' * 100)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
