"""The collection of the scenarios, before and after it has changed."""

import shutil
from pathlib import Path

import pytest
from conftest import write_collection
from scenarios import run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_collection(folder / "data", documents=1200)
    assert run(folder, "two-tower", "cache").status == 0  # the first command starts the server of them all
    shutil.copytree(folder / "data", folder / "changed")
    rows = (folder / "data" / "corpus.jsonl").read_text().splitlines()
    (folder / "changed" / "corpus.jsonl").write_text("\n".join([*rows[5:900], *rows[901:], rows[0]]) + "\n")
    return folder
