"""``--help`` of every command ends with a line to paste; shells complete commands, options and values."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from conftest import ROOT, composed, run_command

from two_tower.cli import app

Words = tuple[str, ...]


def commands(group: typer.core.TyperGroup, above: Words = ()) -> Iterator[Words]:
    """The words of every command and group below one."""
    for name, command in group.commands.items():
        yield (*above, name)
        if isinstance(command, typer.core.TyperGroup):
            yield from commands(command, (*above, name))


ROOT_COMMAND = typer.main.get_command(app)
assert isinstance(ROOT_COMMAND, typer.core.TyperGroup)
OWN = [(), *(words for words in commands(ROOT_COMMAND) if words not in [("train",), ("embed",)])]


def example(text: str) -> list[str]:
    """The words of the line to paste."""
    (line,) = re.findall(r"^ *Example:\n +(.*)$", text, re.MULTILINE)
    return shlex.split(line)


@pytest.mark.parametrize("words", OWN, ids=" ".join)
def test_the_example_of_a_command_parses(words: Words, tmp_path: Path) -> None:
    done = run_command("two-tower", *words, "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    program, *typed = example(done.stdout)
    assert program == "two-tower"
    assert tuple(typed[: len(words)]) == words
    context = ROOT_COMMAND.make_context("two-tower", list(typed))
    command: typer.core.TyperCommand | typer.core.TyperGroup = ROOT_COMMAND
    rest = typed
    while isinstance(command, typer.core.TyperGroup) and rest:
        _, command, rest = command.resolve_command(context, list(rest))
        context = command.make_context(command.name, list(rest), parent=context)  # an unknown option raises
        rest = [] if not isinstance(command, typer.core.TyperGroup) else rest
    for override in context.params.get("overrides") or []:
        assert re.match(r"data(\.\w+)?=", override)


@pytest.mark.parametrize("program", ["train", "embed"])
def test_the_example_of_hydra_composes(program: str, tmp_path: Path) -> None:
    shown = [run_command(*words, "--help", cwd=tmp_path) for words in ((f"{program}.py",), ("two-tower", program))]
    assert [done.returncode for done in shown] == [0, 0]
    python, script, *overrides = example(shown[0].stdout)
    assert (python, script) == ("python", f"{program}.py")
    assert example(shown[1].stdout) == [python, script, *overrides]
    assert composed(*overrides, program=program)["data"]["path"] == "FOLDER"


def completed(words: str, shell: str = "bash") -> list[str]:
    """What a shell is offered for the last of some words, by the protocol that typer's script for it speaks."""
    typed = shlex.split(words) + ([""] if words.endswith(" ") else [])
    variables = {"_TWO_TOWER_COMPLETE": f"complete_{shell}", "COMP_WORDS": words, "COMP_CWORD": str(len(typed) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "two_tower"], env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **variables},
        text=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("two-tower se", ["search", "serve"]),
        ("two-tower data ", ["inspect"]),
        ("two-tower evaluate RUN --h", ["--hybrid", "--help"]),
        ("two-tower evaluate RUN --split ", ["dev", "test", "train"]),
        ("two-tower search ", []),  # a path: the shell's own completion follows
    ],
)
def test_completion(words: str, offered: list[str]) -> None:
    assert completed(words) == offered


BASH = shutil.which("bash")


@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_bash_completes_commands_and_paths(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "two-tower").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m two_tower "$@"\n')
    (tmp_path / "two-tower").chmod(0o755)
    script = """
        eval "$(_TWO_TOWER_COMPLETE=source_bash two-tower)"
        complete -p two-tower
        COMP_WORDS=(two-tower exp) COMP_CWORD=1
        _two_tower_completion two-tower
        echo "${COMPREPLY[@]}"
    """
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    command = [str(BASH), "--norc", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=120)
    registered, offered = done.stdout.splitlines()
    assert "-o default" in registered  # where nothing is offered, bash offers paths
    assert offered == "export"


@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_hydra_completes_choices_of_train() -> None:
    script = """
        eval "$(python train.py -sc install=bash)"
        COMP_WORDS=(python train.py loss=m) COMP_CWORD=2 COMP_LINE="python train.py loss=m" COMP_POINT=22
        hydra_bash_completion
        echo "${COMPREPLY[@]}"
    """
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    command = [str(BASH), "--norc", "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=120)
    assert done.stdout.split() == ["loss=margin_mse", "loss=matryoshka"]


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom two_tower import cli\ntry:\n    cli.main()\nfinally:\n"
        "    sys.stderr.write(' '.join({'torch', 'lightning', 'fastapi', 'hydra', 'rich.progress'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], cwd=tmp_path, env={"PATH": "/usr/bin", "PYTHONPATH": str(ROOT)},
        text=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
