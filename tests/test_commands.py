"""Every command that a document shows is one: its program, its options, its settings and its files exist."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer.main
from conftest import ROOT, composed

from two_tower.cli import app

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = (
    "python",
    "two-tower",
    "make",
    "pip",
    "torchrun",
    "source",
    "wandb",
    "sbatch",
    "curl",
    "ray",
    "docker",
    "git",
)
# Parts of one's own that a page shows how to write.
OWN = ("squared_hinge", "uniformity", "loss.mine", "answers", "tower=mine", "data=notes")
# Lines of other programs, and what is left out of a command.
LEFT_OUT = "…"


def commands(page: Path) -> list[str]:
    """The commands of a page, without comments: indented lines, and lines of blocks marked ``sh``."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(
        r"^    (\S.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    lines = [line.strip().removeprefix("$ ") for line in (*indented, *"\n".join(blocks).splitlines())]
    return [line for line in lines if re.match(rf"(?:[A-Z_]+=\S+ )*(?:{'|'.join(PROGRAMS)})(?: |$)", line)]


def words(command: str) -> list[str]:
    found = shlex.split(command, comments=True)
    while found and re.fullmatch(r"[A-Z_]+=.*", found[0]):
        found = found[1:]
    return [word for word in found if LEFT_OUT not in word]


def one_value(override: str) -> str:
    """The first of the values that a sweep goes through; any where the shell's quotes keep an odd text together."""
    key, _, value = override.partition("=")
    if re.search("[ (]", value):
        return f"{key}=x"
    return f"{key}={value.split(',')[0]}" if "," in value and value[0] not in "[{'\"" else override


def check(command: str) -> None:
    program, *rest = words(command)
    if program == "torchrun":
        program, rest = "python", rest[rest.index("train.py") :]
    first = rest[0].removesuffix(".py") if rest else ""
    if program in ("python", "two-tower") and first in ("train", "embed"):
        if "--help" not in rest and not re.search("hydra[/.]", command):
            composed(*(one_value(word) for word in rest[1:] if not word.startswith("-")), program=first)
    else:
        {"two-tower": check_own, "python": check_module, "make": check_target, "pip": check_extra}.get(program, len)(
            rest
        )


def check_own(rest: list[str]) -> None:
    options = typer.main.get_command(app)
    while hasattr(options, "commands") and (rest or not options.invoke_without_command):
        if rest[0].startswith("--"):  # to parse it would do it
            assert rest[0] in {name for option in options.params for name in option.opts}
            return
        options = options.commands[rest.pop(0)]
    if "--help" not in rest:
        options.make_context("two-tower", rest)


def check_module(rest: list[str]) -> None:
    if rest[0] == "-m":
        assert importlib.util.find_spec(rest[1]) is not None
        assert rest[1] != "pytest" or all((ROOT / word).exists() for word in rest[2:] if "/" in word)
    else:
        assert rest[0] == "-c" or (ROOT / rest[0]).exists()


def check_target(rest: list[str]) -> None:
    assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def check_extra(rest: list[str]) -> None:
    if "-e" in rest:
        known = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
        assert {*re.findall(r"[\w-]+", rest[rest.index("-e") + 1])} <= {*known}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_exist(page: Path) -> None:
    wrong = []
    for command in dict.fromkeys(commands(page)):
        if any(each in command for each in OWN):
            continue
        try:
            check(command)
        except BaseException as error:  # a parser may exit
            wrong.append(f"{command}: {error!r}")
    assert not wrong, "\n".join(wrong)


def test_commands_are_found() -> None:
    found = [command for page in PAGES for command in commands(page)]
    assert len(found) > 150
    assert len({command.split()[1] for command in found if command.startswith("two-tower")}) >= 11


@pytest.mark.parametrize(
    "command",
    [
        "python train.py tower=grew", "two-tower serach RUN", "two-tower search RUN --hybird", "make nothing",
        "python -m benchmarks.nothing", 'pip install -e ".[nothing]"', "python nothing.py", "two-tower serve",
    ],
)  # fmt: skip
def test_wrong_commands_are_noticed(command: str) -> None:
    with pytest.raises(BaseException):  # noqa: B017, PT011
        check(command)
