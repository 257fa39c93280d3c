"""The table of docs/doctor.md: what the doctor says of each injected failure, and of whole runs that are healthy.

python tests/doctor/confusion.py [MSMARCO_FOLDER]     ten minutes on two cores
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from doctor.cases import FAILURES, HEALTHY, SMALL, make_data
from doctor.failures import overrides
from hydra import compose, initialize_config_dir

from train import train
from two_tower.assemble import LOADER_KEYS, TOP_LEVEL
from two_tower.cache import cache_folder
from two_tower.config import check
from two_tower.config.groups import CONF


def examined(given: list[str], paths: dict[str, str]) -> list[tuple[str, str, int]]:
    """Id, severity and step of the findings of a training."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        filled = [o.format(**paths) if "{" in o else o for o in given]
        with initialize_config_dir(str(CONF), version_base="1.3"), contextlib.redirect_stdout(io.StringIO()):
            train(check(compose("train", [*filled, f"run_dir={run}"]), {"": TOP_LEVEL, "data": LOADER_KEYS}))
        found = json.loads((run / "doctor.json").read_text(encoding="utf-8"))["findings"]
    return [(f["id"], f["severity"], f["step"]) for f in found]


def main() -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory() as folder:
        harvest = str(cache_folder())
        paths = make_data(Path(folder) / "data", harvest) | {"msmarco": [*sys.argv, ""][1], "harvest": harvest}
        print("| injected | tower | first finding | at step | others |\n| --- | --- | --- | ---: | --- |")
        for name, case in FAILURES.items():
            for tower in case.towers:
                found = examined([*SMALL, *overrides(case, tower)], paths)
                first = found[0] if found else ("none", "", 0)
                mark = "" if first[0] == case.id else f" (expected `{case.id}`)"
                others = ", ".join(f"`{i}`{' (passed)' if severity == 'info' else ''}" for i, severity, _ in found[1:])
                print(f"| {name} | {tower} | `{first[0]}`{mark} | {first[2]} | {others} |", flush=True)
        print("\n| healthy run | warnings and errors | information |\n| --- | --- | --- |")
        for name, given in HEALTHY.items():
            found = examined([*given, "callbacks.samples.console=never"], paths)
            told = [", ".join(f"`{i}`" for i, s, _ in found if (s == "info") is info) for info in (False, True)]
            print(f"| {name} | {told[0] or 'none'} | {told[1]} |", flush=True)


if __name__ == "__main__":
    main()
