"""The folder listing tells the truth: what docs/architecture.md says of modules and choices holds."""

import configparser
import re

import pytest
from conftest import ROOT

from two_tower.config.saved import CONF, groups

PACKAGE = ROOT / "two_tower"
FOLDERS = sorted(group for group in groups() if (PACKAGE / group).is_dir())


def targets() -> set[str]:
    """The modules that configurations name."""
    found = re.findall(r"_target_: (two_tower[\w.]+)\.\w+", "".join(p.read_text() for p in CONF.rglob("*.yaml")))
    return set(found)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_is_its_choices(folder: str) -> None:
    modules = {path.stem for path in (PACKAGE / folder).glob("*.py")}
    choices = {name for name in modules if not name.startswith("_") and name != "base"}
    assert {f"two_tower.{folder}.{name}" for name in choices} <= targets()


def test_the_page_on_architecture_lists_every_module_in_the_order_that_the_linter_holds() -> None:
    table = (ROOT / "docs" / "architecture.md").read_text().partition("| --- | --- |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.strip().splitlines()]
    listed = [name.rstrip("/").removesuffix(".py") for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    linter = configparser.ConfigParser()
    linter.read(ROOT / ".importlinter")
    layers = linter["importlinter:contract:map"]["layers"].split()
    assert layers == ["__main__", *reversed(listed)]


def test_every_file_of_a_training_step_exists() -> None:
    """docs/architecture.md names them in order; the issue of a house is how many a reader must open."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    steps = re.findall(r"`([\w/]+\.(?:py|yaml))`", page.partition("### One training step")[2].partition("## ")[0])
    folder, missing = PACKAGE, []
    for step in steps:
        if (ROOT / step).exists():
            continue
        path = PACKAGE / step if (PACKAGE / step).exists() else folder / step
        missing += [] if path.exists() else [step]
        folder = path.parent
    assert not missing
    assert len(steps) <= 18
