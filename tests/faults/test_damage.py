"""Each file of a run and its index: cut short, with another bit, emptied, gone, unreadable; named, or not needed.

``make faults`` damages every file in every way before each command, ``make test`` a few before a search.
"""

import random
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from scenarios import FAULTS, SEED, TRAIN, run, skip_unless

FEW = 4
pytestmark = pytest.mark.timeout(900)


def _cut(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: rng.randrange(max(1, path.stat().st_size))])


def _flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _shut(path: Path, rng: random.Random) -> None:
    """What cannot be read, even by root."""
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path, random.Random], object]] = {
    "cut": _cut,
    "flipped": _flip,
    "emptied": lambda path, rng: path.write_bytes(b""),
    "gone": lambda path, rng: path.unlink(),
    "unreadable": _shut,
}
EMBEDDED = ["embed.py", "run=run", "shard_rows=1000"]
COMMANDS = {
    "search": ["two-tower", "search", "run", "salt sea", "--json"],
    "hybrid": ["two-tower", "search", "run", "salt sea", "--json", "--hybrid"],
    "evaluate": ["two-tower", "evaluate", "run"],
    "embed": EMBEDDED,
    "doctor": ["two-tower", "doctor", "run"],
    "train": TRAIN,
}
TEXT = {".json", ".yaml", ".csv", ".txt", ".md", ".svg", ".trec", ".lock", ""}  # a digit more or less is no damage


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(data, tmp_path_factory.mktemp("damage") / "whole")
    for command in (TRAIN, EMBEDDED, COMMANDS["hybrid"]):
        ended = run(folder, *command)
        assert ended.status == 0, ended.err
    return folder


def cases(whole: Path) -> list[tuple[str, str]]:
    """Files, and what happens to them."""
    files = sorted(path for path in (whole / "run").rglob("*") if path.is_file())
    found = [
        (str(file.relative_to(whole)), damage)
        for file, damage in product(files, DAMAGES)
        if not (damage == "flipped" and (file.suffix in TEXT or not file.stat().st_size))
    ]
    return found if FAULTS else random.Random(SEED).sample(found, FEW)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_damaged_file_is_named_or_not_needed(name: str, whole: Path, tmp_path: Path) -> None:
    skip_unless(name == "search")
    answer = run(shutil.copytree(whole, tmp_path / "whole"), *COMMANDS[name])
    wrong = list[str]()
    for number, (file, damage) in enumerate(cases(whole)):
        folder = shutil.copytree(whole, tmp_path / str(number))
        DAMAGES[damage](folder / file, random.Random(f"{SEED}{file}{damage}"))
        ended = run(folder, *COMMANDS[name])
        named = ended.status == 2 and "Traceback" not in ended.err and ended.err.endswith((".\n", "?\n", "!\n"))
        same = ended.out == answer.out or name not in ("search", "hybrid")
        if not (named or (ended.status == 0 and same)):
            wrong.append(f"{damage} {file}: {ended.status} {ended.err or ended.out}")
        shutil.rmtree(folder)
    assert not wrong, "\n".join(wrong)
