"""What a command says to do next can be pasted: a chain of them from a folder of text to the figures to report."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import write_collection
from forked import run_forked

from two_tower.doctor.base import Finding
from two_tower.examine import retry
from two_tower.files import read_json, write_json

Call = Callable[..., Any]  # see conftest.py in this folder

NAME = "l'été (1)"  # which a shell would take apart
SMALL = ["trainer=cpu", "trainer.max_epochs=1", "tower.dim=8", "data.batch_size=16"]


def next_of(out: str) -> list[str]:
    (line,) = re.findall("^Next: (.*)$", out, re.MULTILINE)
    return line.split("   then   ")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a collection, from which the commands are run."""
    place = tmp_path_factory.mktemp("place")
    write_collection(place / NAME, 120)
    return place


def test_a_chain_from_text_to_the_figure_to_report(place: Path) -> None:
    def pasted(command: str, *more: str) -> str:
        words = shlex.split(command.removeprefix("python "))
        done = run_forked(*words, *more, cwd=place)
        assert (done.status, done.err) == (0, ""), done.err
        return done.out

    (train,) = next_of(pasted('two-tower data inspect data=beir "data.path=l\'été (1)"'))
    embed, search = next_of(pasted(train, *SMALL, "run_dir=mein Lauf", "data.train_split=dev"))
    assert next_of(pasted(embed)) == [search, "two-tower serve 'mein Lauf'"]
    assert next_of(pasted(search)) == ["two-tower serve 'mein Lauf'"]
    assert next_of(pasted(embed)) == [search, "two-tower serve 'mein Lauf'"]  # which has nothing to do any more
    (hybrid,) = next_of(pasted("two-tower evaluate 'mein Lauf'"))
    assert shlex.split(hybrid)[-3:] == ["--split", "dev", "--hybrid"]
    (compare,) = next_of(pasted(hybrid))
    (report,) = next_of(pasted(compare))
    assert shlex.split(report) == ["two-tower", "evaluate", "mein Lauf", "--split", "test"]
    assert next_of(pasted(report)) == [compare]
    (again,) = next_of(pasted("two-tower doctor 'mein Lauf'"))
    assert "data.train_split=dev" not in again
    assert "data.train_split=train" in again
    assert "run_dir" not in again
    assert "Best epoch 1" in pasted(again)


def test_a_program_is_told_nothing_else(place: Path) -> None:
    run = place / "json"
    words = [
        "train.py",
        "data=beir",
        f"data.path={place / NAME}",
        *SMALL,
        f"run_dir={run}",
    ]
    assert run_forked(*words, "console=quiet", cwd=place).out == ""
    assert run_forked("embed.py", f"run={run}", cwd=place).status == 0
    for command in (["evaluate", run], ["compare", run], ["doctor", run], ["search", run, "ba"]):
        done = run_forked("two-tower", *command, "--json", cwd=place)
        assert (done.status, done.err) == (0, "")
        assert json.loads(done.out)


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """What a run's folder says of the command that made it."""
    overrides = [
        "data=beir",
        "data.path=x",
        "loss=triplet",
        "loss.select=hardest",
        "seed=3",
        "run_dir=r",
        "console=json",
    ]
    write_json(tmp_path / "environment.json", {"choices": {"loss": "triplet"}, "overrides": overrides})
    return tmp_path


def advised(remedy: str, severity: Any = "error") -> list[Finding]:  # noqa: ANN401
    return [Finding("known", "", "seed=9", "info"), Finding("wrong", "a cause", remedy, severity)]


@pytest.mark.parametrize(
    ("remedy", "overrides"),
    [
        ("loss.select=semi_hard", ["data=beir", "data.path=x", "loss=triplet", "seed=3", "loss.select=semi_hard"]),
        (
            "loss=in_batch negatives=in_batch",
            ["data=beir", "data.path=x", "seed=3", "loss=in_batch", "negatives=in_batch"],
        ),
        (
            "embedding.pull=1; tower.lexical_dims=256 finds the exact words",
            ["data=beir", "data.path=x", "loss=triplet", "loss.select=hardest", "seed=3", "embedding.pull=1"],
        ),
        (
            "data.batch_size=32, or as much of that as there are examples",
            ["data=beir", "data.path=x", "loss=triplet", "loss.select=hardest", "seed=3", "data.batch_size=32"],
        ),
    ],
)
def test_the_doctor_advises_a_command(known: Path, remedy: str, overrides: list[str]) -> None:
    assert retry(known, advised(remedy)) == overrides


@pytest.mark.parametrize(
    "remedy",
    [
        "more pairs and passages",
        "tokenizer=subword tokenizer.path=FOLDER",
        "loss=unheard_of",
        "an optimizer.lr=1 of conf",
    ],
)
def test_what_cannot_be_typed_is_no_command(known: Path, remedy: str) -> None:
    assert retry(known, advised(remedy)) is None


def test_a_healthy_run_or_one_that_no_command_made_needs_none(known: Path) -> None:
    assert retry(known, advised("loss.select=semi_hard", "info")) is None
    assert retry(known, []) is None
    write_json(known / "environment.json", {**read_json(known / "environment.json"), "choices": {}})
    assert retry(known, advised("loss.select=semi_hard")) is None
