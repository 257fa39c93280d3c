"""Small real runs for the doctor; one that was made before is not made again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from doctor.cases import configured, doctor_of, make_data

Run = Callable[[list[str]], dict[str, Any]]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """``run(overrides)``: ``doctor.json`` of a training. Many remedies bring the same healthy run."""
    paths, runs = make_data(tmp_path_factory.mktemp("cases")), dict[str, dict[str, Any]]()

    def examined(overrides: list[str]) -> dict[str, Any]:
        key = json.dumps(configured(overrides, paths), sort_keys=True)
        if key not in runs:
            runs[key] = doctor_of(overrides, paths, tmp_path_factory.mktemp("runs") / "run")
        return runs[key]

    return examined
