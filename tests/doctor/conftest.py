"""Small real runs for the doctor."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import SHARED_DATA
from doctor import cases
from filelock import FileLock
from hydra import compose, initialize_config_dir

from train import train
from two_tower.assemble import LOADER_KEYS, TOP_LEVEL
from two_tower.config import check
from two_tower.config.groups import CONF


@pytest.fixture(scope="session")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The folders and files that the cases name."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # a folder that all workers have in common
        shared = shared.parent
    harvest = str(shared / "harvest")
    with FileLock(shared / "harvest.lock"):  # it takes 10 s, once
        data = cases.make_data(tmp_path_factory.mktemp("cases") / "data", harvest)
    return data | {"harvest": harvest, "msmarco": str(SHARED_DATA / "msmarco-small")}


@pytest.fixture
def run(paths: dict[str, str], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """``run(overrides)``: ``doctor.json`` of a training; its folder is ``tmp_path / name``."""

    def examined(overrides: list[str], name: str = "run") -> dict[str, Any]:
        folder = tmp_path / name
        given = [o.format(**paths) if "{" in o else o for o in overrides]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            train(check(compose("train", [*given, f"run_dir={folder}"]), {"": TOP_LEVEL, "data": LOADER_KEYS}))
        return json.loads((folder / "doctor.json").read_text(encoding="utf-8"))

    return examined
