"""docs/tutorial.md: its commands, one after another, on a small collection."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT, word

from tests.commands.conftest import Call

TEXT = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"^```sh\n(.*?)^```", TEXT, re.M | re.S) for line in block.splitlines()]
HAS_TEACHER = importlib.util.find_spec("sentence_transformers") is not None


@pytest.mark.skipif(not HAS_TEACHER, reason="a step needs sentence_transformers")
def test_the_tutorial_goes_from_a_flat_loss_to_search(
    collection: Path, transformer_folder: Path, call: Call, tmp_path: Path
) -> None:
    small = ["data=beir", f"data.path={collection}", "trainer.max_steps=4", "trainer.max_epochs=-1", "trainer=cpu"]
    printed = {}
    for command in COMMANDS[2:]:  # after the installation
        program, *words = shlex.split(command)
        if program == "python":
            program, *words = words
        if program == "train.py":
            words += small
        if "experiment=distil_average" in words:
            words += [f"teacher.model={transformer_folder}", "tower.dim=16"]
        if words[0] == "search":
            words[2] = word(1000)  # of the first passage
        ended = call(program, *words)
        assert ended.status == 0, f"{command}\n{ended.err}"
        printed[command] = ended.out
    assert (tmp_path / "plots" / "curves.svg").read_text().startswith("<svg")
    (search,) = (out for command, out in printed.items() if " search " in command)
    assert search.splitlines()[0].split()[0] == "1"
    (board,) = (out for command, out in printed.items() if " compare " in command)
    assert all(f"| {name} " in board for name in ("flat", "semi-hard", "average", "distilled"))


def test_it_shows_what_its_commands_make() -> None:
    assert COMMANDS[:2] == ["python install.py start", "source .venv/bin/activate"]
    assert len(COMMANDS) >= 10
    assert (ROOT / "docs" / "tutorial-curves.svg").read_text().count("BM25") >= 1
