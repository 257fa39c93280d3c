"""The folder conf: every file builds what its place says, every key exists, every line says why."""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from two_tower import embed, train
from two_tower.config import build
from two_tower.config.compose import compose_raw
from two_tower.config.saved import CONF, choices, groups
from two_tower.engine.local import LOCAL
from two_tower.errors import UserError
from two_tower.index import MEASURE_KEYS
from two_tower.run import Run
from two_tower.tower.base import WordTable
from two_tower.validation.full import FullValidation

FILES = sorted(CONF.rglob("*.yaml"))
CHOICES = [(group, choice) for group in sorted(groups()) for choice in choices(group)]


@functools.cache
def filled(program: str, *overrides: str) -> dict[str, Any]:
    """A checked configuration in which what has no default gets some value."""
    config = compose_raw(program, overrides)
    OmegaConf.set_struct(config, False)
    for key in OmegaConf.missing_keys(config):
        OmegaConf.update(config, key, "x")
    return {"train": train, "embed": embed}[program].resolve(config)


def defaults(program: str) -> set[str]:
    """The groups that a program's configuration is made of."""
    listed = yaml.safe_load((CONF / f"{program}.yaml").read_text())["defaults"]
    return {key for entry in listed if isinstance(entry, dict) for key in entry if not key.startswith("override")}


def with_choice(group: str, choice: str, *more: str) -> dict[str, Any]:
    """A configuration with a choice of a group; the others are chosen so that few are composed, which takes a while."""
    program = "train" if group in defaults("train") else "embed"
    if group == "experiment":
        return filled(program, f"{group}={choice}", *more)
    place = choices(group).index(choice)
    others = {g: choices(g)[place % len(choices(g))] for g in defaults(program) & groups() if g != "experiment"}
    if others.get("tower") == "transformer":
        others["tokenizer"] = "subword"  # reads no other
    return filled(program, *(f"{g}={c}" for g, c in sorted(others.items())), *more)


def targets(config: Any) -> Iterator[str]:  # noqa: ANN401
    if isinstance(config, dict):
        yield from [config["_target_"]] if "_target_" in config else []
        for value in config.values():
            yield from targets(value)


def test_every_folder_is_a_group_of_a_program() -> None:
    named = defaults("train") | defaults("embed")
    assert groups() <= named
    assert named - groups() <= {"experiment"}  # presets are optional


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_builds_a_class_of_its_folder(group: str, choice: str) -> None:
    config = with_choice(group, choice)  # keys and types are checked
    if group == "experiment":
        return
    found = list(targets(config[group]))
    assert found
    for target in found:
        own = (f"two_tower.{group}.", "two_tower.teacher.")  # a loss or an embedding may name the teacher
        assert target.startswith(own) or not target.startswith("two_tower."), target


@pytest.mark.parametrize(("group", "choice"), [each for each in CHOICES if each[0] not in ("data", "experiment")])
def test_every_choice_can_be_built(group: str, choice: str, tmp_path: Path, transformer_folder: Path) -> None:
    """Sources of data are built in tests/data, and experiments run in tests/test_experiments.py."""
    (tmp_path / "vectors.txt").write_text("a 1 2\nb 3 4\n")
    places = {"pretrained": tmp_path / "vectors.txt"} | dict.fromkeys(("transformer", "subword"), transformer_folder)
    path = [f"{group}.path={places[choice]}"] if choice in places else []
    if f"{group}={choice}" in ("embedding=transformer", "loss=distillation"):
        path = ["teacher=sentence_transformer", f"teacher.model={transformer_folder}"]
    config = with_choice(group, choice, *path)[group]
    offer: dict[str, Any] = {"run": Run(tmp_path), "words": WordTable(3, 8), "engine": LOCAL}
    offer |= {"path": tmp_path / "metrics.csv"} if group == "logger" else {}
    offer["validation"] = FullValidation(offer["run"])
    parts = config.values() if "_target_" not in config else [config]
    own = {"index": MEASURE_KEYS, "trainer": {"num_nodes": None}}.get(group, {})  # which the program reads itself
    for part in parts:
        try:
            assert build(group, {key: value for key, value in part.items() if key not in own}, offer=offer) is not None
        except UserError as error:  # says which extra it needs, or what of the folder it cannot use
            if "pip install" in str(error):
                pytest.skip(str(error))
            if choice != "gpu":
                raise


@pytest.mark.parametrize("choice", choices("data"))
def test_every_data_source_can_be_embedded(choice: str) -> None:
    assert filled("embed", f"data={choice}")["data"]["_target_"].startswith("two_tower.data.")


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(CONF)) for p in FILES])
def test_every_line_is_explained(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    assert "#" in lines[0], "the first line says what the file is for"
    blocks: list[tuple[int, str]] = [(-1, "")]  # the lines that the current one is inside of
    for line in lines:
        found = re.match(r"(\s*)(?:- )?([\w/@. ]+):\s*([^#]*)", line)
        if found is None:
            continue
        indent, key, value = len(found[1]), found[2], found[3]
        while blocks[-1][0] >= indent:
            blocks.pop()
        if not value:
            blocks.append((indent, line))
        elif key not in ("_target_", "defaults") and not key.startswith("override hydra/"):
            assert re.search(r"\s#\s*\S", line + "".join(outer for _, outer in blocks)), line
