"""How a command begins and ends: what Hydra reads, what a job is called, which sentence and status a mistake gets."""

import contextlib
import logging
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig

from two_tower.config.entry import folder_name, run_hydra, this_job
from two_tower.errors import UserError

Composed = Callable[..., list[DictConfig]]


@pytest.fixture
def composed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Composed:
    """``composed(*arguments, task=…)``: runs train.py from an empty folder; what its task was called with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")

    def run(*arguments: str, task: Callable[[DictConfig], object] | None = None) -> list[DictConfig]:
        seen: list[DictConfig] = []
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        run_hydra(task or seen.append, "train")
        assert sys.argv == ["train.py", *arguments]
        return seen

    return run


def raising(error: BaseException) -> Callable[[DictConfig], NoReturn]:
    def task(composed: DictConfig) -> NoReturn:
        raise error

    return task


def test_the_task_gets_what_the_command_line_says(composed: Composed) -> None:
    for command in ([], ["train"]):  # two-tower train
        assert [(c.seed, c.tower.cell) for c in composed(*command, "tower=gru", "seed=7")] == [(7, "gru")]


def test_a_sweep_calls_the_task_for_each_combination(composed: Composed) -> None:
    seen = composed("-m", "seed=1,2", "tower=average,gru")
    assert [(c.seed, c.tower.get("cell")) for c in seen] == [(1, None), (1, "gru"), (2, None), (2, "gru")]
    assert [c.tower.cell for c in composed("-m", "tower=glob(g*)")] == ["gru"]


def test_a_sweep_over_texts(composed: Composed) -> None:
    swept = ["-m", "data=pairs", "data.path=müller (1).csv,2024_06", "data.query_column='Frage, kurz'"]
    names = []
    seen = composed(*swept, task=lambda config: names.append((config.data, this_job(config).folder.name)))
    assert seen == []
    assert [(data.path, data.query_column) for data, _ in names] == [
        ("müller (1).csv", "Frage, kurz"), ("2024_06", "Frage, kurz"),
    ]  # fmt: skip
    assert names[0][1].startswith("data.path=müller-1-.csv,data.query_column=Frage,-kurz,data=pairs-")


def test_a_job_knows_what_it_was_composed_from(composed: Composed) -> None:
    jobs = []
    composed("tower=gru", "~tower.pooling", task=lambda config: jobs.append(this_job(config)))
    composed("-m", "loss=triplet", "hydra.sweep.dir=s", task=lambda config: jobs.append(this_job(config)))
    single, swept = jobs
    assert (single.sweep, single.composition.choices["tower"], single.overrides[0]) == (None, "gru", "tower=gru")
    assert "embedding.dim" in single.composition.derived
    assert "tower.dim" not in single.composition.derived
    assert (swept.sweep, swept.number, swept.folder.name) == (Path("s"), 0, "loss=triplet")


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
    error: BaseException, status: int, sentence: str, composed: Composed, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        composed(task=raising(error))
    assert ended.value.code == status
    assert capfd.readouterr() == ("", sentence)


@pytest.mark.parametrize("error", [ValueError("a bug"), FileNotFoundError(2, "a bug")])
def test_a_bug_keeps_its_traceback(error: Exception, composed: Composed, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(type(error)) as raised:
        composed(task=raising(error))
    assert raised.value is error
    assert capfd.readouterr() == ("", "")


def test_an_interpolation_that_fails_in_the_task_is_a_mistake(
    composed: Composed, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        composed("seed=${nothing}", task=lambda config: config.seed)
    assert ended.value.code == 2
    assert capfd.readouterr().err == "seed cannot be used: Interpolation key 'nothing' not found.\n"


def test_ctrl_c_that_a_library_turns_into_another_error(composed: Composed, capfd: pytest.CaptureFixture[str]) -> None:
    def task(config: DictConfig) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("half imported") from None

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as ended:
        composed(task=task)
    assert ended.value.code == 1
    assert capfd.readouterr().err == "Interrupted: the same command continues.\n"
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [(["--cfg", "job", "seed=7"], "seed: 7"), (["-c", "job", "-p", "tower"], "dim: "),
     (["--help"], "similarity: cosine"), (["--info", "defaults"], "tower/average")],
)  # fmt: skip
def test_hydras_own_options_still_work(
    arguments: list[str], shown: str, composed: Composed, capfd: pytest.CaptureFixture[str]
) -> None:
    handlers, level = logging.root.handlers[:], logging.root.level
    with contextlib.suppress(SystemExit):  # how Hydra ends its help
        assert composed(*arguments) == []
    logging.root.handlers[:], logging.root.level = handlers, level  # --info sets up messages of its own
    assert shown in capfd.readouterr().out


def test_a_reader_that_has_seen_enough_ends_the_command_quietly() -> None:
    code = "from two_tower.errors import exit_statuses\nwith exit_statuses():\n for _ in range(10**5): print('x' * 100)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_a_folder_is_named_by_its_overrides() -> None:
    assert folder_name("loss=in_batch,seed=0,tower.dim=128") == "loss=in_batch,seed=0,tower.dim=128"
    assert folder_name("") == "default"
    name = folder_name("data.path=/somewhere/far/away/from/here/msmarco-small,loss=triplet,seed=0")
    assert re.fullmatch(r"data\.path=[\w-]*msmarco-small,loss=triplet,seed=0-[0-9a-f]{8}", name)
    name = folder_name("data.path='müller (1)/ข้าว, हिन्दी.csv',seed=0")
    assert re.fullmatch(r"data\.path=müller-1-ข้าว,-हिन्दी\.csv,seed=0-[0-9a-f]{8}", name)


@given(st.lists(st.text(max_size=300), min_size=2, max_size=2, unique=True))
def test_no_two_jobs_share_a_folder_and_every_name_is_one(overrides: list[str]) -> None:
    names = [folder_name(each) for each in overrides]
    assert names[0] != names[1] or "default" in overrides
    for name in names:
        assert name not in (".", "..")
        assert len(name.encode()) <= 255
        assert all(each in ".,=+@-_" or category(each)[0] in "LMN" for each in name)
